import csv
import itertools
import logging
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments

import tugofwar as tow
from tugofwar.callback import TugOfWarCallback

GENERATOR = torch.Generator().manual_seed(5)
TRAINING = [{"x": torch.randn(6, generator=GENERATOR), "y": torch.randn(1, generator=GENERATOR)} for _ in range(48)]
HELD_OUT = {
    name: [
        {"x": torch.randn(4, 6, generator=GENERATOR) + shift, "y": torch.randn(4, 1, generator=GENERATOR) + shift}
        for _ in range(6)
    ]
    for name, shift in (("near", 0.5), ("far", 2.0))
}


class Net(nn.Module):
    """Dropout, batch statistics, a counter that also runs in evaluation mode, and a part in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.connector = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Dropout(0.3))
        self.head = nn.Linear(8, 1)
        self.register_buffer("seen", torch.zeros(1))
        self.inputs = []

    def forward(self, x, y):
        self.seen += len(x)
        if self.training:
            self.inputs.append(x.clone())
        return {"loss": nn.functional.mse_loss(self.head(self.connector(x)), y)}


class Spy(TrainerCallback):
    """What a reporter sees, and the state that the next step starts from."""

    def __init__(self):
        self.logs = []
        self.states = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.logs.append((state.global_step, dict(logs)))

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        self.states.append(
            (
                torch.get_rng_state().sum().item(),
                random.getstate(),
                np.random.get_state()[1].sum(),
                [module.training for module in model.modules()],
                [parameter.requires_grad for parameter in model.parameters()],
                [parameter.grad is None for parameter in model.parameters()],
                model.seen.item(),
            )
        )


def train(folder, callback=None, attach=False, resume=None, before=None, **options):
    torch.manual_seed(0)
    model = Net()
    arguments = TrainingArguments(
        output_dir=str(folder),
        **{
            "max_steps": 8,
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 2,
            "logging_steps": 2,
            "save_strategy": "no",
            "seed": 3,
            "report_to": "none",
            "use_cpu": True,
            "disable_tqdm": True,
            "dataloader_pin_memory": False,
            **options,
        },
    )
    spy = Spy()
    callbacks = [spy, *(before or [])]
    trainer = Trainer(model, arguments, train_dataset=TRAINING, callbacks=callbacks)
    if attach:
        callback.attach(trainer)
    elif callback:
        trainer.add_callback(callback)
    trainer.train(resume_from_checkpoint=resume)
    return trainer, spy


def build(every=2, batches=5, **options):
    return TugOfWarCallback(HELD_OUT, "connector.*", every=every, batches=batches, **options)


def history(folder):
    with (folder / "history.csv").open(newline="") as file:
        return [(int(row["step"]), row["name"], float(row["value"])) for row in csv.DictReader(file)]


def samples(name):
    return ({"x": x, "y": y} for batch in HELD_OUT[name] for x, y in zip(batch["x"], batch["y"], strict=True))


def flat(value):
    if isinstance(value, dict):
        return [entry for key in value for entry in flat(value[key])]
    return [entry for item in value for entry in flat(item)] if isinstance(value, list | tuple) else [value]


def of_training(log_history):
    timed = ("train_runtime", "train_samples_per_second", "train_steps_per_second")
    kept = [{key: value for key, value in entry.items() if key not in timed} for entry in log_history]
    return [entry for entry in kept if not any(key.startswith("tugofwar/") for key in entry)]


@pytest.mark.parametrize("attach", [False, True])
@pytest.mark.parametrize("options", [{"at_start": True}, {"every": 3}])
def test_training_is_the_same_to_the_bit(tmp_path, attach, options):
    plain, plain_spy = train(tmp_path / "plain")
    end = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy())
    shuffled = {name: DataLoader(list(samples(name)), 4, shuffle=True) for name in HELD_OUT}
    callback = TugOfWarCallback(shuffled, **{"every": 2, "batches": 5, **options})
    observed, spy = train(tmp_path / "observed", callback, attach)
    assert torch.equal(torch.get_rng_state(), end[0])
    assert random.getstate() == end[1]
    assert (np.random.get_state()[1] == end[2]).all()
    expected, found = plain.model.state_dict(), observed.model.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    for mine, theirs in zip(flat(plain.optimizer.state_dict()), flat(observed.optimizer.state_dict()), strict=True):
        assert torch.equal(mine, theirs) if isinstance(mine, torch.Tensor) else mine == theirs
    assert len(plain.model.inputs) == 16
    assert all(map(torch.equal, plain.model.inputs, observed.model.inputs))
    assert spy.states == plain_spy.states
    assert of_training(plain.state.log_history) == of_training(observed.state.log_history)
    assert [entry["step"] for entry in of_training(observed.state.log_history) if "loss" in entry] == [2, 4, 6, 8]


def test_the_check_itself_sees_a_draw_of_random_numbers(tmp_path):
    class Draws(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            torch.rand(1)

    plain, _ = train(tmp_path / "plain")
    disturbed, _ = train(tmp_path / "disturbed", before=[Draws()])
    assert of_training(plain.state.log_history) != of_training(disturbed.state.log_history)


def test_what_is_written_is_the_gram_matrix_of_that_step(tmp_path):
    trainer, _ = train(tmp_path, build(tasks={"near": "A", "far": "B"}))
    folder = tmp_path / "tugofwar"
    assert sorted(path.name for path in folder.iterdir()) == [
        "history.csv",
        "step-000002",
        "step-000004",
        "step-000006",
        "step-000008",
    ]
    recording = tow.Recording.load(folder / "step-000008")
    assert recording.metadata["step"] == 8
    assert recording.tasks == {"near": "A", "far": "B"}
    model = trainer.model.eval()
    parameters = list(model.connector.parameters())
    rows = [
        torch.cat([g.flatten() for g in torch.autograd.grad(model(**batch)["loss"], parameters)])
        for batch in itertools.chain(HELD_OUT["near"][:5], HELD_OUT["far"][:5])
    ]
    expected = (torch.stack(rows).double() @ torch.stack(rows).double().T).numpy()
    scale = np.sqrt(np.outer(np.diagonal(expected), np.diagonal(expected)))
    assert (abs(recording.gram - expected) / scale).max() < 1e-5
    result = tow.interference(recording, resamples=0)
    values = {name: value for step, name, value in history(folder) if step == 8}
    assert values["gd_min"] <= values["gd_mean"]
    assert values["gm_mean"] == pytest.approx(result.gm.loc["near", "far"], rel=1e-12)
    assert values["loss/near"] == pytest.approx(recording.losses[:5].mean(), rel=1e-12)
    assert values["index/far"] == pytest.approx(result.index["far"], rel=1e-12)


def test_the_numbers_are_in_the_log_history_and_reach_reporters_when_attached(tmp_path):
    alone, silent = train(tmp_path / "alone", build())
    assert not [logs for _, logs in silent.logs if "tugofwar/gm_mean" in logs]
    attached, spy = train(tmp_path / "attached", build(), attach=True)
    reported = {step: logs for step, logs in spy.logs if "tugofwar/gm_mean" in logs}
    assert list(reported) == [2, 4, 6, 8]
    for trainer in (alone, attached):
        entries = [entry for entry in trainer.state.log_history if "tugofwar/gm_mean" in entry]
        assert [entry["step"] for entry in entries] == [2, 4, 6, 8]
        assert entries[-1]["tugofwar/gm_mean"] == reported[8]["tugofwar/gm_mean"]
        assert all(type(value) in (int, float) for entry in entries for value in entry.values())


def test_a_reporter_that_is_out_of_reach_is_said_once(tmp_path, caplog):
    train(tmp_path / "alone", build(every=8), before=[Reports()])
    train(tmp_path / "attached", build(every=8), attach=True, before=[Reports()])
    (message,) = [record.getMessage() for record in caplog.records if record.name == "tugofwar.callback"]
    assert "but not to somewhere: call attach(trainer)" in message


class Reports(TrainerCallback):
    """Stands for a reporter, none of which is installed here."""

    def on_train_begin(self, args, state, control, **kwargs):
        args.report_to = ["somewhere"]


def test_the_start_is_recorded_on_request_and_the_last_step_always(tmp_path):
    train(tmp_path, build(every=100, at_start=True, folder=tmp_path / "elsewhere"))
    assert {step for step, *_ in history(tmp_path / "elsewhere")} == {0, 8}
    assert not (tmp_path / "tugofwar").exists()


class StopAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            control.should_training_stop = True


def test_training_that_stops_early_is_recorded_where_it_stopped(tmp_path):
    train(tmp_path, build(every=100), before=[StopAt(5)])
    assert {step for step, *_ in history(tmp_path / "tugofwar")} == {5}


def test_resuming_and_starting_again_leave_no_step_of_another_run(tmp_path):
    train(tmp_path, build(every=2), save_strategy="steps", save_steps=4)
    first = history(tmp_path / "tugofwar")
    train(tmp_path, build(every=2), resume=str(tmp_path / "checkpoint-4"))
    assert history(tmp_path / "tugofwar") == first
    train(tmp_path, build(every=5))
    assert {step for step, *_ in history(tmp_path / "tugofwar")} == {5, 8}


def test_datasets_that_can_be_read_once_are_the_same_batches_at_every_step(tmp_path):
    once = {name: iter(batches) for name, batches in HELD_OUT.items()}
    train(tmp_path / "once", TugOfWarCallback(once, every=4, batches=5))
    train(tmp_path / "list", build(every=4))
    assert history(tmp_path / "once" / "tugofwar") == history(tmp_path / "list" / "tugofwar")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"parameters": "conector.*"}, "selects no parameter of the model; the closest names are connector"),
        ({"batches": 7}, "Dataset 'near' has 6 batches but 7"),
        ({"loss": lambda model, batch: model(**batch)["loss"] * torch.nan}, "loss of batch 1 of dataset 'near' is nan"),
        ({"loss": lambda model, batch: batch["x"]}, "not a scalar"),
    ],
)
def test_a_mistake_ends_training_before_its_first_step(tmp_path, arguments, message):
    spy = Spy()
    with pytest.raises(tow.UserError, match=message):
        train(tmp_path, TugOfWarCallback(HELD_OUT, **{"batches": 5, **arguments}), before=[spy])
    assert spy.states == []


@pytest.mark.parametrize(("name", "value"), [("every", 0), ("batches", 1)])
def test_settings_out_of_range(name, value):
    with pytest.raises(tow.UserError, match=f"`{name}`"):
        TugOfWarCallback(HELD_OUT, **{name: value})


def test_a_failure_later_is_a_warning_that_names_the_step_and_training_goes_on(tmp_path, caplog):
    class Fragile:
        step = 0

        def __call__(self, model, batch):
            return model(**batch)["loss"] * (torch.inf if self.step == 4 else 1)

    class Watch(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            loss.step = state.global_step + 1

    loss = Fragile()
    trainer, _ = train(tmp_path, build(loss=loss), before=[Watch()])
    assert trainer.state.global_step == 8
    assert {step for step, *_ in history(tmp_path / "tugofwar")} == {2, 6, 8}
    assert not (tmp_path / "tugofwar" / "step-000004").exists()
    (warning,) = [record for record in caplog.records if record.name == "tugofwar.callback"]
    assert warning.levelno == logging.WARNING
    assert warning.getMessage().startswith("Step 4: interference is not measured, training goes on: The loss of batch")


def test_a_folder_of_something_else_is_not_replaced(tmp_path, caplog):
    other = tmp_path / "tugofwar" / "step-000002"
    other.mkdir(parents=True)
    (other / "precious.txt").write_text("mine")
    train(tmp_path, build())
    assert (other / "precious.txt").read_text() == "mine"
    assert "Step 2: interference is not measured" in caplog.text
    assert (tmp_path / "tugofwar" / "step-000004" / "manifest.json").is_file()


def test_sharded_parameters_are_refused(tmp_path):
    class Shard(TrainerCallback):
        def on_train_begin(self, args, state, control, model=None, **kwargs):
            model.connector[0].weight.data = torch.empty(0)

    with pytest.raises(tow.UserError, match=r"Parameter connector\.0\.weight is sharded"):
        train(tmp_path, build(), before=[Shard()])


DISTRIBUTED = """
import os, sys, torch
sys.path.insert(0, {tests!r})
import test_callback as t
callback = t.build(every=4) if sys.argv[2] == "observed" else None
trainer, _ = t.train(sys.argv[1], callback, ddp_backend="gloo")
assert trainer.args.world_size == 2
assert type(trainer.model_wrapped).__name__ == "DistributedDataParallel"
if trainer.args.process_index == 0:
    torch.save((trainer.model.state_dict(), t.of_training(trainer.state.log_history)), sys.argv[1] + "/end.pt")
torch.distributed.barrier()
# torch's threads may abort the interpreter's own end ("terminate called"), also without a callback and with the group
# taken down before: all that is tested has been written by now.
os._exit(0)
"""


@pytest.mark.slow
def test_two_processes_write_once_and_train_the_same(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(DISTRIBUTED.format(tests=str(Path(__file__).parent)))
    for kind in ("plain", "observed"):
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0"]
        command += ["--standalone", str(script), str(tmp_path / kind), kind]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    plain, observed = (torch.load(tmp_path / kind / "end.pt") for kind in ("plain", "observed"))
    assert all(torch.equal(plain[0][name], observed[0][name]) for name in plain[0])
    assert plain[1] == observed[1]
    assert {step for step, *_ in history(tmp_path / "observed" / "tugofwar")} == {4, 8}
