import json
import math
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unimed_model.data.sample import IMAGE_TASKS
from unimed_model.train_log import LOG_FILE, PERFORMANCE_FILE, TrainLog, WeightedMean

TASKS = {"slake": "VQA", "path": "VQA", "medqa": "QA", "boxes": "REC"}
FILES = (LOG_FILE, "routing_weights.csv")


class Clock:
    """Seconds that pass when told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def new_log(folder, clock=None, every=4, steps=20, warmup_steps=6):
    log = TrainLog(folder, every, TASKS, steps=steps, warmup_steps=warmup_steps, clock=clock or Clock())
    log.rewind(0)
    return log


def take_step(log, step, seed=0):
    """One step of two batches that depends on seed and step alone."""
    rng = np.random.default_rng((seed, step))
    for name in rng.choice(list(TASKS), 2):
        log.batch(Counter({str(name): 3}), float(rng.random()), int(rng.integers(1, 50)))
        if TASKS[name] != "QA":
            ids = torch.full((3,), IMAGE_TASKS.index(TASKS[name]))
            log.routing(ids, torch.from_numpy(rng.dirichlet(np.ones(4), (3, 5))).float())
    return log.step(step, 1e-4 / step, float(rng.random()))


def entries(folder, name=LOG_FILE):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_a_line_says_what_the_step_was(tmp_path):
    log = new_log(tmp_path)
    log.batch(Counter(slake=4), 0.1, 3)
    log.step(1, 0.001, 2.5)
    log.batch(Counter(slake=1, boxes=3), 2.0, 10)
    log.step(2, 0.002, 3.5)
    log.batch(Counter(slake=4), 1.0, 10)
    log.batch(Counter(slake=4), 4.0, 30)
    log.step(3, 0.003, 4.5)
    log.batch(Counter(slake=4), 1.0, 10)
    log.batch(Counter(boxes=4), 4.0, 30)
    log.step(4, 0.004, 4.5)
    log.close()
    # 0.1 stays 0.1: a mean of one batch is its loss to the last bit
    assert (tmp_path / LOG_FILE).read_text().splitlines()[:2] == [
        '{"step": 1, "dataset": "slake", "loss": 0.1, "learning_rate": 0.001, "grad_norm": 2.5, "tokens": 3}',
        '{"step": 2, "dataset": "mixed", "samples": {"boxes": 3, "slake": 1}, "loss": 2.0, "learning_rate": 0.002, '
        '"grad_norm": 3.5, "tokens": 10}',
    ]
    third, fourth = entries(tmp_path)[2:]
    assert (third["dataset"], third["loss"], third["tokens"], "samples" in third) == ("slake", 3.25, 40, False)
    assert (fourth["dataset"], fourth["samples"], fourth["loss"]) == ("mixed", {"boxes": 4, "slake": 4}, 3.25)


def test_equal_runs_give_equal_bytes(tmp_path):
    for name, pace in (("a", 0.5), ("b", 0.7)):
        clock = Clock()
        (tmp_path / name).mkdir()
        log = new_log(tmp_path / name, clock)
        for step in range(1, 21):
            clock.now += pace
            take_step(log, step)
        log.close()
    for file in FILES:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert (tmp_path / "a" / PERFORMANCE_FILE).read_bytes() != (tmp_path / "b" / PERFORMANCE_FILE).read_bytes()


@given(saved=st.integers(0, 20), beyond=st.integers(0, 5), torn=st.integers(0, 300), seed=st.integers(0, 3))
def test_a_run_that_was_killed_and_goes_on_leaves_the_log_of_one_that_was_not(
    tmp_path_factory, saved, beyond, torn, seed
):
    whole, killed = (tmp_path_factory.mktemp(name) for name in ("whole", "killed"))
    log = new_log(whole)
    expected = {step: take_step(log, step, seed) for step in range(1, 21)}
    log.close()

    log = new_log(killed)
    for step in range(1, saved + 1):
        take_step(log, step, seed)
    state = json.loads(json.dumps(log.state_dict()))
    on_disk = {name: (killed / name).stat().st_size for name in FILES if (killed / name).exists()}
    for step in range(saved + 1, min(saved + beyond, 20) + 1):
        take_step(log, step, seed)
    log.close()
    for name in FILES:  # what was written last never reached the disk as a whole
        path = killed / name
        if path.exists():
            path.write_bytes(path.read_bytes()[: max(on_disk.get(name, 0), path.stat().st_size - torn)])

    log = TrainLog(killed, 4, TASKS, steps=20, warmup_steps=6)
    log.rewind(saved, state)
    for step in range(saved + 1, 21):
        numbers, reference = take_step(log, step, seed), expected[step]
        assert (numbers is None) == (reference is None)
        if numbers is not None:
            assert without_times(numbers) == without_times(reference)
    log.close()
    for name in FILES:
        assert (killed / name).read_bytes() == (whole / name).read_bytes()


def without_times(numbers):
    return {name: value for name, value in numbers.items() if not name.startswith(("throughput/", "memory/"))}


def test_numbers_are_means_over_the_tokens_of_the_interval(tmp_path):
    log = new_log(tmp_path, every=3)
    told = [("slake", 1.0, 10), ("path", 2.0, 30), ("boxes", 5.0, 20)]
    for step, (name, loss, tokens) in enumerate(told, start=1):
        log.batch(Counter({name: 4}), loss, tokens)
        numbers = log.step(step, 0.1 * step, float(step))
        assert (numbers is None) == (step < 3)
    losses, tokens = np.array([row[1] for row in told]), np.array([row[2] for row in told])
    assert without_times(numbers) == pytest.approx(
        {
            "loss/mean": np.average(losses, weights=tokens),
            "loss/task/VQA": np.average(losses[:2], weights=tokens[:2]),
            "loss/task/REC": 5.0,
            "loss/dataset/slake": 1.0,
            "loss/dataset/path": 2.0,
            "loss/dataset/boxes": 5.0,
            "learning_rate": 0.3,
            "gradient/norm_mean": 2.0,
            "gradient/norm_max": 3.0,
        }
    )
    log.batch(Counter(medqa=4), 7.0, 5)
    assert log.step(4, 0.1, 1.0) is None
    for step in (5, 6):
        log.batch(Counter(medqa=2, slake=2), 9.0, 5)
        numbers = log.step(step, 0.1, 1.0)
    assert {name for name in numbers if name.startswith("loss/")} == {
        "loss/mean",
        "loss/task/QA",
        "loss/task/mixed",
        "loss/dataset/medqa",
        "loss/dataset/mixed",
    }
    assert numbers["loss/task/mixed"] == 9.0
    log.close()


def test_datasets_of_one_task_are_that_task_even_when_mixed(tmp_path):
    log = new_log(tmp_path, every=1)
    log.batch(Counter(slake=2, path=2), 3.0, 8)
    numbers = log.step(1, 0.1, 1.0)
    assert (numbers["loss/task/VQA"], numbers["loss/dataset/mixed"]) == (3.0, 3.0)
    log.close()


def test_rates_are_those_of_the_clock_without_its_pauses(tmp_path):
    clock = Clock()
    log = new_log(tmp_path, clock, every=2, steps=5)
    told = []
    for step in range(1, 6):
        clock.now += 0.25 if step > 1 else 7.0  # the first step sets things up
        log.batch(Counter(slake=4), 1.0, 10)
        told.append(log.step(step, 0.1, 1.0))
        with log.paused():
            clock.now += 3.0  # a checkpoint is written
    assert [numbers is not None for numbers in told] == [False, True, False, True, True]
    for numbers in filter(None, told):
        assert numbers["throughput/samples_per_second"] == pytest.approx(16.0)
        assert numbers["throughput/tokens_per_second"] == pytest.approx(40.0)
    rows = entries(tmp_path, PERFORMANCE_FILE)
    assert [(row["step"], row["steps"], row["samples"], row["tokens"]) for row in rows] == [
        (2, 1, 4, 10),
        (4, 2, 8, 20),
        (5, 1, 4, 10),
    ]
    assert [row["seconds"] for row in rows] == pytest.approx([0.25, 0.5, 0.25])
    assert log.summary()["throughput"] == pytest.approx({"samples_per_second": 16.0, "tokens_per_second": 40.0})
    assert log.samples == 20
    log.close()


def test_a_run_of_one_step_has_no_rate(tmp_path):
    log = new_log(tmp_path, every=1, steps=1)
    numbers = take_step(log, 1)
    assert not any(name.startswith("throughput/") for name in numbers)
    assert "throughput" not in log.summary()
    log.close()


def test_a_session_that_goes_on_does_not_count_the_time_between(tmp_path):
    clock = Clock()
    log = new_log(tmp_path, clock, every=4, steps=8)
    clock.now += 1.0
    take_step(log, 1)
    state = log.state_dict()
    log.close()
    clock.now += 1e6
    log = TrainLog(tmp_path, 4, TASKS, steps=8, warmup_steps=6, clock=clock)
    log.rewind(1, state)
    for step in range(2, 5):
        clock.now += 1.0
        take_step(log, step)
    assert [(row["step"], row["steps"], row["seconds"]) for row in entries(tmp_path, PERFORMANCE_FILE)] == [(4, 2, 2.0)]
    log.close()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_never_become_invalid_json(tmp_path, bad):
    log = new_log(tmp_path, every=2)
    log.batch(Counter(slake=4), bad, 10)
    log.step(1, 0.1, bad)
    log.batch(Counter(boxes=4), 1.0, 10)
    numbers = log.step(2, 0.1, 3.0)
    log.close()

    def refuse(constant):
        raise AssertionError(constant)

    for name in (LOG_FILE, PERFORMANCE_FILE):
        for line in (tmp_path / name).read_text().splitlines():
            json.loads(line, parse_constant=refuse)
    first = entries(tmp_path)[0]
    assert (first["loss"], first["grad_norm"]) == (None, None)
    assert all(math.isfinite(value) for value in numbers.values())
    assert "loss/mean" not in numbers
    assert (numbers["loss/task/REC"], numbers["gradient/norm_mean"], numbers["gradient/norm_max"]) == (1.0, 3.0, 3.0)


def test_a_batch_without_answer_tokens_weighs_nothing(tmp_path):
    log = new_log(tmp_path, every=2)
    log.batch(Counter(slake=4), math.nan, 0)
    log.batch(Counter(slake=4), 2.0, 5)
    log.step(1, 0.1, 1.0)
    log.batch(Counter(slake=4), math.nan, 0)
    assert log.step(2, 0.1, 1.0)["loss/mean"] == 2.0
    assert [entry["loss"] for entry in entries(tmp_path)] == [2.0, None]
    log.close()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell the peak")
def test_memory_is_the_same_for_trackers_and_for_the_file(tmp_path):
    log = new_log(tmp_path, every=1)
    log.batch(Counter(slake=1), 1.0, 1)
    numbers = log.step(1, 0.1, 1.0)
    assert entries(tmp_path, PERFORMANCE_FILE)[0]["memory"]["resident"] == numbers["memory/peak_resident_bytes"]
    assert log.summary()["peak_memory"]["resident"] == numbers["memory/peak_resident_bytes"]
    log.close()


def test_trackers_take_the_numbers(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter
    from transformers import TrainerControl, TrainerState, TrainingArguments
    from transformers.integrations import TensorBoardCallback

    log = new_log(tmp_path, every=1)
    numbers = take_step(log, 1)
    log.close()
    arguments = TrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True)
    callback = TensorBoardCallback(SummaryWriter(tmp_path / "events"))
    callback.on_log(arguments, TrainerState(global_step=1), TrainerControl(), logs=numbers)
    callback.tb_writer.close()
    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    written = {name: events.Scalars(name)[0].value for name in events.Tags()["scalars"]}
    assert written == pytest.approx({f"train/{name}": value for name, value in numbers.items()}, rel=1e-6)


@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.integers(1, 100)), min_size=1, max_size=30))
def test_a_growing_mean_is_the_weighted_mean(told):
    mean = WeightedMean()
    for value, weight in told:
        mean.add(value, weight)
    values, weights = np.array(told).T
    assert mean.value == pytest.approx(np.average(values, weights=weights), abs=1e-9)
    assert mean.weight == weights.sum()
