"""``tugofwar dynamics RUN --data ROOT``: a trained run's checkpoints, measured once."""

import json
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import unimed_model.probing
from tugofwar import cli, recorder
from tugofwar.errors import UserError
from tugofwar.workspace import working
from unimed_model.presets import resolve
from unimed_model.training import train

from .test_dynamics import call, contents, read


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Three small datasets in the generic layout, one of them without images."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for name, task in (("flags", "CLS"), ("shades", "VQA"), ("words", "QA")):
        lines = []
        for number in range(24):
            picture = root / f"{name}-{number}.png"
            Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(picture)
            line = {"dataset": name, "task": task, "image": picture.name}
            line |= {"question": f"What is {number % 5}?", "answer": "yes" if number % 2 else "no"}
            lines.append({key: value for key, value in line.items() if name != "words" or key != "image"})
        (root / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    """A run of 4 steps with checkpoints after 1, 2 and 4, without recordings."""
    run = tmp_path_factory.mktemp("runs") / "run"
    steps = ["training.steps=4", "training.warmup_steps=1", "training.batch_size=2", "checkpoints.every=2"]
    train(resolve("tiny", steps), corpus, run, quiet=True)
    return run


@pytest.fixture(name="run")
def copied_run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


@pytest.fixture
def recordings_made(monkeypatch):
    """What ``record`` is called for, a digest of the weights each."""
    made = []
    real = recorder.record

    def counted(*arguments, **options):
        made.append(options["metadata"]["weights_sha256"])
        return real(*arguments, **options)

    monkeypatch.setattr(recorder, "record", counted)
    return made


def probing(corpus, *more):
    return ["--data", corpus, "--batches", 3, "--batch-size", 2, *more]


def test_checkpoints_are_measured_as_tugofwar_gradients_measures_them(run, corpus, monkeypatch, capsys):
    status, printed, _ = call(monkeypatch, capsys, run, *probing(corpus))
    assert status == 0
    assert "measured at checkpoints" in printed
    assert "not touching the selected parameters: words" in printed
    manifest = json.loads((run / "dynamics" / "manifest.json").read_text())
    assert (manifest["source"], manifest["steps"]) == ("checkpoints", [1, 2, 4])
    assert (manifest["batches"], manifest["batch_size"]) == (3, 2)
    routing = (run / "dynamics" / "routing.csv").read_text()
    assert routing == (run / "routing_weights.csv").read_text()
    for step in (1, 4):
        out = run / f"gradients-{step}"
        command = ["gradients", "--ckpt", run / f"checkpoint-{step}", *probing(corpus, "--out", out, "--quiet")]
        monkeypatch.setattr(sys, "argv", ["tugofwar", *map(str, command)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert not ended.value.code
        for measure in ("gd", "gm"):
            found = read(run, f"{measure}_dataset")
            expected = pd.read_csv(out / f"{measure}_dataset_intervals.csv")
            if "estimator" in expected:
                expected = expected[expected["estimator"] == "ratio_of_means"]
            rows = found[found["step"] == step]
            # Without statistics scores the sums in float32 come in another order.
            for column in ("value", "low", "high"):
                np.testing.assert_allclose(rows[column], expected[column], rtol=1e-4, atol=1e-5)


def test_data_are_opened_once_for_all_checkpoints(run, corpus, monkeypatch, capsys):
    opened = []
    real = unimed_model.probing.open_source
    monkeypatch.setattr(
        unimed_model.probing, "open_source", lambda source, split: opened.append(source.name) or real(source, split)
    )
    assert call(monkeypatch, capsys, run, *probing(corpus))[0] == 0
    assert sorted(opened) == ["flags", "shades", "words"]


def test_a_second_call_measures_nothing_again_and_other_settings_all(run, corpus, monkeypatch, capsys, recordings_made):
    assert call(monkeypatch, capsys, run, *probing(corpus))[0] == 0
    assert len(recordings_made) == len(set(recordings_made)) == 3
    first = contents(run / "dynamics")
    assert call(monkeypatch, capsys, run, *probing(corpus))[0] == 0
    assert len(recordings_made) == 3
    assert contents(run / "dynamics") == first
    assert call(monkeypatch, capsys, run, *probing(corpus, "--seed", 1))[0] == 0
    assert len(recordings_made) == 6
    assert call(monkeypatch, capsys, run, *probing(corpus, "--seed", 1, "--datasets", "flags,words"))[0] == 0
    assert len(recordings_made) == 9


def test_other_data_under_the_same_names_are_measured_anew(run, corpus, tmp_path, monkeypatch, capsys, recordings_made):
    assert call(monkeypatch, capsys, run, *probing(corpus))[0] == 0
    other = shutil.copytree(corpus, tmp_path / "other")
    flags = other / "flags.jsonl"
    flags.write_text(flags.read_text().replace("What is", "Why is"))
    assert call(monkeypatch, capsys, run, *probing(other))[0] == 0
    assert len(recordings_made) == 6


def test_a_recording_of_gradients_is_used_only_when_its_settings_are_the_same(
    run, corpus, monkeypatch, capsys, recordings_made
):
    for batches, more in ((3, 2), (4, 3)):
        command = ["gradients", "--ckpt", run, "--data", corpus, "--batches", batches, "--batch-size", 2, "--quiet"]
        monkeypatch.setattr(sys, "argv", ["tugofwar", *map(str, command)])
        with pytest.raises(SystemExit):
            cli.main()
        recordings_made.clear()
        shutil.rmtree(run / "dynamics", ignore_errors=True)
        assert call(monkeypatch, capsys, run, *probing(corpus))[0] == 0
        # The final model is that of the last checkpoint.
        assert len(recordings_made) == more


def test_a_call_that_was_interrupted_goes_on(run, corpus, monkeypatch, capsys, recordings_made):
    counted = recorder.record

    def interrupted(*arguments, **options):
        if len(recordings_made) == 2:
            raise KeyboardInterrupt
        return counted(*arguments, **options)

    monkeypatch.setattr(recorder, "record", interrupted)
    assert call(monkeypatch, capsys, run, *probing(corpus))[0] == 130
    assert not (run / "dynamics" / "manifest.json").exists()
    monkeypatch.setattr(recorder, "record", counted)
    assert call(monkeypatch, capsys, run, *probing(corpus))[0] == 0
    assert len(recordings_made) == len(set(recordings_made)) == 3
    whole = contents(run / "dynamics")
    shutil.rmtree(run / "dynamics")
    assert call(monkeypatch, capsys, run, *probing(corpus))[0] == 0
    assert contents(run / "dynamics") == whole
    assert not [path for path in run.rglob("*") if path.name.endswith(".partial")]


def test_a_damaged_recording_of_a_step_is_made_again(run, corpus, monkeypatch, capsys, recordings_made):
    assert call(monkeypatch, capsys, run, *probing(corpus))[0] == 0
    whole = contents(run / "dynamics")
    tensors = run / "dynamics" / "recordings" / "step-000002" / "recording.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-10])
    assert call(monkeypatch, capsys, run, *probing(corpus))[0] == 0
    assert len(recordings_made) == 4
    assert contents(run / "dynamics") == whole


def test_two_calls_at_once_do_not_share_an_output(run, corpus, monkeypatch, capsys):
    place = run / "dynamics" / "recordings" / "step-000002"
    place.parent.mkdir(parents=True)
    with working(place):
        status, _, error = call(monkeypatch, capsys, run, *probing(corpus))
    assert status == 2
    assert "Another process is measuring into" in error
    assert not (run / "dynamics" / "manifest.json").exists()


def test_a_checkpoint_that_cannot_be_measured_is_named_and_the_others_are(run, corpus, monkeypatch, capsys):
    weights = run / "checkpoint-2" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    real = recorder.record
    steps = iter((1, 4))

    def diverged(*arguments, **options):
        if next(steps) == 4:
            raise UserError("The loss of flags is not finite.")
        return real(*arguments, **options)

    monkeypatch.setattr(recorder, "record", diverged)
    status, printed, _ = call(monkeypatch, capsys, run, *probing(corpus))
    assert status == 0
    assert "step 2 has no measures: The run in" in printed
    assert "step 4 has no measures: The loss of flags is not finite." in printed
    assert list(read(run, "loss")["step"].unique()) == [1]


def test_the_final_model_is_a_step_where_no_checkpoint_is_of_the_end(run, corpus, monkeypatch, capsys):
    for step in (2, 4):
        shutil.rmtree(run / f"checkpoint-{step}")
    assert call(monkeypatch, capsys, run, *probing(corpus))[0] == 0
    assert list(read(run, "gd_task")["step"].unique()) == [1, 4]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--batches", 1], "--batches is 1"),
        (["--batches", 3, "--batch-size", 0], "--batch-size is 0"),
        (["--batches", 3, "--params", " ,"], "--params is empty"),
        (["--batches", 3, "--params", "conector.*"], "conector"),
        (["--batches", 3, "--datasets", "flegs"], "flags"),
        (["--batches", 100], "ask for fewer with --batches or allow repeats"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(run, corpus, monkeypatch, capsys, arguments, sentence):
    status, printed, error = call(monkeypatch, capsys, run, "--data", corpus, *arguments)
    assert (status, printed) == (2, "")
    assert sentence in error
    assert len(error.splitlines()) == 1
    assert not (run / "dynamics").exists()


def test_probing_during_training_and_its_table(corpus, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    steps = ["training.steps=4", "training.warmup_steps=1", "training.batch_size=2"]
    train(resolve("tiny", steps), corpus, run, quiet=True, probe_every=2)
    assert call(monkeypatch, capsys, run)[0] == 0
    manifest = json.loads((run / "dynamics" / "manifest.json").read_text())
    assert (manifest["source"], manifest["steps"], manifest["batch_size"]) == ("callback", [2, 4], 2)
    assert manifest["untouched"] == ["words"]
    # With data the checkpoints are asked for.
    assert call(monkeypatch, capsys, run, *probing(corpus))[0] == 0
    assert json.loads((run / "dynamics" / "manifest.json").read_text())["steps"] == [1, 4]
