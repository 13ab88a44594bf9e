import json
import re
from types import SimpleNamespace

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from unimed_model.building import build
from unimed_model.data import discover, open_source
from unimed_model.data.collator import Collator
from unimed_model.data.mixture import Mixture
from unimed_model.errors import UserError
from unimed_model.modeling import UniMedForConditionalGeneration
from unimed_model.run_file import reason_of
from unimed_model.trainer import UniMedTrainer, _not_written
from unimed_model.training import Outcome, _texts, train

from .conftest import tiny_settings


def test_a_run_says_what_happened(trained):
    run = json.loads((trained / "run.json").read_text())
    log = [json.loads(line) for line in (trained / "training_log.jsonl").read_text().splitlines()]
    assert run["exit_reason"] == "finished"
    assert [entry["step"] for entry in log] == [1, 2, 3, 4]
    assert sum(run["realised_mixture"].values()) == 4 * 2
    drawn = {name: 2 * sum(entry["dataset"] == name for entry in log) for name in run["datasets"]}
    assert drawn == run["realised_mixture"]
    settings = tiny_settings().training
    # warm-up from 0 over one step, then the cosine to the floor over the other three
    assert [entry["learning_rate"] for entry in log[:2]] == pytest.approx([0.0, settings.peak_learning_rate])
    assert {"model.safetensors", "config.json", "tokenizer.json", "run.json"} <= {p.name for p in trained.iterdir()}


def test_one_seed_gives_identical_weights_and_losses(trained, corpus, tmp_path):
    assert train(tiny_settings(), corpus, tmp_path / "again", quiet=True)
    first, second = load_file(trained / "model.safetensors"), load_file(tmp_path / "again" / "model.safetensors")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    logs = [(folder / "training_log.jsonl").read_text() for folder in (trained, tmp_path / "again")]
    assert logs[0] == logs[1]


def test_a_finished_run_is_not_trained_again(trained, corpus):
    before = (trained / "run.json").stat().st_mtime_ns
    assert train(tiny_settings(), corpus, trained, quiet=True) is Outcome.STOOD
    assert (trained / "run.json").stat().st_mtime_ns == before


def test_other_settings_are_refused_by_name_unless_overwriting(corpus, tmp_path):
    out = tmp_path / "run"
    train(tiny_settings("training.steps=1"), corpus, out, quiet=True)
    with pytest.raises(UserError, match=r"connector\.kind: cmoe there, mlp asked for"):
        train(tiny_settings("training.steps=1", "connector.kind=mlp"), corpus, out, quiet=True)
    assert train(tiny_settings("training.steps=1", "connector.kind=mlp"), corpus, out, quiet=True, overwrite=True)
    assert "mlp" in (out / "config.json").read_text()


def test_other_data_are_refused_by_name(trained, corpus, tmp_path):
    alone = tmp_path / "datasets.yaml"
    alone.write_text(f"- {{name: mni_rec, layout: slake_rec, root: {corpus / 'mni_slake'}}}")
    with pytest.raises(UserError, match=r"other data \(mni_caption: 12 there, None asked for"):
        train(tiny_settings(), alone, trained, quiet=True)


DIVERGING = ("training.peak_learning_rate=1e30", "training.steps=20")


def test_a_loss_that_is_no_number_stops_with_nothing_left_behind(corpus, tmp_path):
    with pytest.raises(UserError, match=r"The loss is (nan|inf) at step \d+ on mni_"):
        train(tiny_settings(*DIVERGING, "training.warmup_steps=10"), corpus, tmp_path / "run", quiet=True)
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_is_no_number_keeps_the_last_good_checkpoint(corpus, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(UserError, match=r"The loss is (nan|inf) at step \d+ on mni_") as caught:
        train(tiny_settings(*DIVERGING), corpus, run, quiet=True)
    assert "keeps checkpoint-1; the same command goes on from it" in caught.value.__notes__[0]
    assert {path.name for path in run.glob("checkpoint-*")} == {"checkpoint-1"}
    weights = load_file(run / "checkpoint-1" / "model.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())
    state = json.loads((run / "run.json").read_text())
    assert re.fullmatch(r"stopped: The loss is (nan|inf) at step \d+ on mni_.*", state["exit_reason"])


def test_weights_that_are_no_numbers_never_become_a_checkpoint(corpus, tmp_path, monkeypatch):
    end_step = UniMedTrainer.end_step

    def spoil(self):
        end_step(self)
        if self.state.global_step == 2:
            with torch.no_grad():
                self.model.connector.router.layers[0].bias[3] = float("nan")

    monkeypatch.setattr(UniMedTrainer, "end_step", spoil)
    with pytest.raises(UserError, match=r"connector\.router\.layers\.0\.bias holds values .* after step 2"):
        train(tiny_settings("checkpoints.every=2"), corpus, tmp_path / "run", quiet=True)
    assert {path.name for path in (tmp_path / "run").glob("checkpoint-*")} == {"checkpoint-1"}


def test_an_interruption_leaves_nothing_behind(corpus, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(UniMedForConditionalGeneration, "save_pretrained", fail)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_settings(), corpus, tmp_path / "run", quiet=True)
    assert list(tmp_path.iterdir()) == []


FULL = [
    OSError(28, "No space left on device"),
    RuntimeError("[enforce fail at inline_container.cc:858] . PytorchStreamWriter failed writing file data/3"),
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
]


@pytest.mark.parametrize("error", FULL, ids=lambda error: type(error).__name__)
def test_a_full_disk_is_one_sentence_and_keeps_the_last_good_checkpoint(corpus, tmp_path, monkeypatch, error):
    run, save = tmp_path / "run", UniMedForConditionalGeneration.save_pretrained

    def fail(self, folder, **more):
        if "checkpoint-3" in str(folder):
            raise error
        save(self, folder, **more)

    monkeypatch.setattr(UniMedForConditionalGeneration, "save_pretrained", fail)
    with pytest.raises(UserError, match="The checkpoint of step 3 cannot be written to ") as caught:
        train(tiny_settings("checkpoints.every=3"), corpus, run, quiet=True)
    assert "\n" not in str(caught.value)
    assert [path.name for path in run.glob("*checkpoint*")] == ["checkpoint-1"]
    monkeypatch.undo()
    assert train(tiny_settings("checkpoints.every=3"), corpus, run, quiet=True) is Outcome.TRAINED


def test_a_full_disk_is_said_where_torch_does_not_say_it(monkeypatch, tmp_path):
    error = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 1351104 vs 1350996")
    assert "unexpected pos" in str(_not_written(3, tmp_path, error))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=4096))
    said = _not_written(3, tmp_path, error)
    assert "cannot be written" in str(said)
    assert "No space left on device" in str(said)
    assert reason_of(said) == "disk full"


def test_an_error_while_the_final_model_is_written_is_told_by_the_run_file(corpus, tmp_path, monkeypatch):
    run, save = tmp_path / "run", UniMedForConditionalGeneration.save_pretrained

    def fail(self, folder, **more):
        if ".final" in str(folder):
            raise OSError(28, "No space left on device", str(folder))
        save(self, folder, **more)

    monkeypatch.setattr(UniMedForConditionalGeneration, "save_pretrained", fail)
    with pytest.raises(OSError, match="No space left") as caught:
        train(tiny_settings(), corpus, run, quiet=True)
    assert "keeps checkpoint-4; the same command goes on from it" in caught.value.__notes__[0]
    assert json.loads((run / "run.json").read_text())["exit_reason"] == "disk full"
    monkeypatch.undo()
    assert train(tiny_settings(), corpus, run, quiet=True) is Outcome.TRAINED


@pytest.mark.parametrize(
    ("tracker", "said"), [("nonsense", "nonsense is not supported, only "), ("azure_ml", "requires azureml")]
)
def test_a_tracker_that_is_not_there_is_one_sentence(corpus, tmp_path, tracker, said):
    with pytest.raises(UserError, match=f"logging.trackers: .*{said}"):
        train(tiny_settings(f"logging.trackers=[{tracker}]"), corpus, tmp_path / "run", quiet=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_half_precision_without_a_gpu_is_refused(corpus, tmp_path):
    with pytest.raises(UserError, match=r"training\.precision=float16 needs a GPU"):
        train(tiny_settings("training.precision=float16"), corpus, tmp_path / "run", quiet=True)


def test_the_gradient_is_of_the_mean_over_all_answer_tokens_of_accumulated_batches(corpus, tmp_path):
    settings = tiny_settings("training.gradient_accumulation=3", "training.steps=1", "data.batches=mixed")
    train(settings, corpus, tmp_path / "run", quiet=True)
    logged = json.loads((tmp_path / "run" / "training_log.jsonl").read_text())
    datasets = {source.name: open_source(source, "train") for source in discover(corpus)}
    mixture = Mixture(datasets, 2, 3, settings.seed, batches="mixed")
    model, processor = build(settings, _texts(mixture))
    batches = [Collator(processor)([mixture[draw] for draw in batch]) for batch in mixture]
    tokens = [int((batch["labels"] != -100).sum()) for batch in batches]
    assert len(set(tokens)) > 1
    losses = [model.train()(**batch).loss for batch in batches]
    loss = sum(loss * count for loss, count in zip(losses, tokens, strict=True)) / sum(tokens)
    loss.backward()
    norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    assert logged["tokens"] == sum(tokens)
    assert logged["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert logged["grad_norm"] == pytest.approx(norm.item(), rel=1e-4)


def test_datasets_are_chosen_by_name(corpus, tmp_path):
    out = tmp_path / "run"
    train(tiny_settings("data.datasets=[mni_rec]", "training.steps=1"), corpus, out, quiet=True)
    assert list(json.loads((out / "run.json").read_text())["datasets"]) == ["mni_rec"]
    with pytest.raises(UserError, match="offers no dataset 'mni_captoin'; the nearest is 'mni_caption'"):
        train(tiny_settings("data.datasets=[mni_captoin]"), corpus, tmp_path / "other", quiet=True)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_no_run_is_refused_even_when_overwriting(corpus, tmp_path, overwrite):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="exists and is not a run"):
        train(tiny_settings(), corpus, tmp_path, quiet=True, overwrite=overwrite)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_an_empty_folder_is_as_good_as_none(corpus, tmp_path):
    (tmp_path / "run").mkdir()
    assert train(tiny_settings("training.steps=1"), corpus, tmp_path / "run", quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("content", ["{", "[]", '{"settings": 3}'])
def test_a_damaged_run_file_is_one_sentence(corpus, tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(UserError, match=r"run\.json"):
        train(tiny_settings(), corpus, tmp_path, quiet=True)
