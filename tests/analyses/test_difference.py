"""`tugofwar compare` on recordings written to disk: tables, refusals, and the command itself."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import tugofwar as tow
from analyses.difference import find_recordings, summary, write_difference
from tugofwar.differences.text import difference_text
from tugofwar.errors import UserError
from tugofwar.recording import Recording

COLUMNS = ["a", "b", "difference", "low", "high", "simultaneous_low", "simultaneous_high", "p_value", "verdict"]
TASKS = {"x": "VQA", "y": "VQA", "z": "CLS"}


def record_run(seed, names=("x", "y", "z"), batches=30, metadata=None, targets=(1.0, 1.0, 1.0), preconditioner=None):
    """A linear model on batches that are equal for all seeds; ``targets`` decide which way each dataset pulls."""
    generator = torch.Generator().manual_seed(1)
    data = {name: [torch.randn(4, 8, generator=generator) for _ in range(batches)] for name in TASKS}
    torch.manual_seed(seed)
    model = torch.nn.Linear(8, 3)
    signs = dict(zip(TASKS, targets, strict=True))
    return tow.record(
        model,
        {name: [(signs[name], batch) for batch in data[name]] for name in names},
        "*",
        batches,
        loss=lambda model, batch: ((model(batch[1]) - batch[0] * batch[1].sum(1, keepdim=True)) ** 2).mean(),
        tasks={name: TASKS[name] for name in names},
        progress=False,
        metadata={"batch_size": 4} if metadata is None else metadata,
        preconditioner=preconditioner,
    )


@pytest.fixture
def runs(tmp_path):
    a, b = tmp_path / "first", tmp_path / "second"
    record_run(0).save(a / "gradients")
    record_run(1, targets=(1.0, -1.0, 1.0)).save(b / "gradients")
    return a, b


def call(*arguments):
    command = [sys.executable, "-m", "tugofwar.cli", "compare", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_writes_whole_tables_and_says_what_changed(runs):
    a, b = runs
    done = call(a, b, "--paired")
    assert done.returncode == 0, done.stderr
    folder = b / "difference" / "first"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["a"]["name"], manifest["b"]["name"], manifest["paired"]) == ("first", "second", True)
    assert manifest["batch_size"] == 4
    assert set(manifest["batches"].values()) == {30}
    for level, count in (("dataset", 3), ("task", 2)):
        groups = None if level == "dataset" else tow.task_groups(Recording.load(a / "gradients"))
        expected = tow.difference(*(Recording.load(run / "gradients") for run in runs), groups, paired=True)
        for measure in ("gd", "gm"):
            table = pd.read_csv(folder / f"{measure}_{level}.csv")
            assert list(table.columns) == ["row", "column", *COLUMNS]
            assert len(table) == count**2
            change = getattr(expected, measure)
            np.testing.assert_allclose(table["difference"], change.difference.to_numpy().ravel(), atol=1e-12)
            np.testing.assert_allclose(table["p_value"], change.p_values.to_numpy().ravel(), atol=1e-12)
            own = table[table["row"] == table["column"]]
            assert (own[["difference", "low", "high"]] == 0).all(axis=None)
            assert (own["verdict"] == "not sure").all()
        index = pd.read_csv(folder / f"index_{level}.csv")
        assert list(index.columns) == ["measure", "name", *COLUMNS]
        scores = pd.read_csv(folder / f"scores_{level}.csv")
        assert list(scores.columns) == ["interval_low", "interval_high", "a", "b", "difference", "low", "high"]
        np.testing.assert_allclose(scores["b"], Recording.load(b / "gradients").statistics.table(level)["share"])
    gd = pd.read_csv(folder / "gd_dataset.csv").set_index(["row", "column"])
    assert gd.loc[("x", "y"), "verdict"] == "lower"
    assert "changed surely" in done.stdout
    assert str(folder) in done.stdout
    for path in folder.glob("*.csv"):
        assert not pd.read_csv(path).isna().any(axis=None)
    again = call(a, b, "--paired", "--json", "--quiet", "--out", b.parent / "again")
    assert again.stderr == ""
    assert json.loads(again.stdout)["levels"]["dataset"]["gd"]["compared"] == 6
    for path in folder.iterdir():
        assert path.read_bytes() == (b.parent / "again" / path.name).read_bytes()


def test_what_cannot_be_compared_is_one_sentence_and_writes_nothing(runs, tmp_path):
    a, b = runs
    record_run(2, batches=29).save(tmp_path / "fewer" / "gradients")
    for other, sentence in ((tmp_path / "fewer", "numbers of batches"), (tmp_path / "none", "no recording in")):
        done = call(a, other)
        assert done.returncode == 2
        assert sentence in done.stderr
        assert "Traceback" not in done.stderr
        assert not (other / "difference").exists()
    for change, sentence in (
        ({"tasks": {**TASKS, "z": "REC"}}, "tasks of dataset 'z'"),
        ({"metadata": {}}, "batch size"),
    ):
        replace(Recording.load(b / "gradients"), **change).save(tmp_path / "changed" / "gradients")
        with pytest.raises(UserError, match=sentence):
            write_difference(a, tmp_path / "changed")
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="other than an earlier difference"):
        write_difference(a, b, tmp_path / "precious")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [('{"format": ', "is truncated or not JSON"), ("[1]", "is not the manifest of a recording")],
)
def test_a_damaged_recording_is_said_to_be_there(runs, content, sentence):
    a, b = runs
    (a / "gradients" / "manifest.json").write_text(content)
    with pytest.raises(UserError, match=sentence):
        find_recordings(a, b)


def test_a_dataset_that_one_run_lacks_is_said_and_left_out(runs, tmp_path):
    a, _ = runs
    record_run(1, names=("x", "z")).save(tmp_path / "lacks" / "gradients")
    found = write_difference(a, tmp_path / "lacks", resamples=50)
    assert set(pd.read_csv(found.folder / "gd_dataset.csv")["row"]) == {"x", "z"}
    content = summary(found)
    assert content["left_out"] == ["y"]
    text = difference_text(content)
    assert "only first has a gradient there: y" in text
    assert "between different datasets" in text
    assert not list(found.folder.glob("scores_*"))


def test_runs_without_tasks_or_scores_are_compared_between_datasets(runs, tmp_path):
    for run in runs:
        recording = Recording.load(run / "gradients")
        replace(recording, tasks={}, statistics=None).save(tmp_path / "bare" / run.name)
    found = write_difference(tmp_path / "bare" / "first", tmp_path / "bare" / "second", resamples=50)
    assert found.folder == tmp_path / "bare" / "second" / "difference" / "first"
    assert sorted(path.name for path in found.folder.glob("*.csv")) == [
        "gd_dataset.csv",
        "gm_dataset.csv",
        "index_dataset.csv",
    ]
    assert "not counted in both" in difference_text(summary(found))


def test_the_geometry_of_adam_is_compared_with_its_like(tmp_path):
    for seed, name in enumerate(("a", "b")):
        scale = {"weight": torch.linspace(1, 5, 24).reshape(3, 8), "bias": torch.ones(3)}
        recording = record_run(seed)
        scaled = record_run(seed, preconditioner=scale)
        assert list(scaled.geometries) == ["adam"]
        replace(recording, geometries=scaled.geometries).save(tmp_path / name / "gradients")
    found = write_difference(tmp_path / "a/gradients/adam", tmp_path / "b/gradients/adam", resamples=50)
    assert found.folder == (tmp_path / "b").resolve() / "difference" / "a_adam"
    expected = tow.difference(
        *(Recording.load(tmp_path / name / "gradients").in_geometry("adam") for name in "ab"), resamples=50
    )
    np.testing.assert_allclose(found.levels["dataset"].gd.difference, expected.gd.difference)
    assert json.loads((found.folder / "manifest.json").read_text())["geometry"] == "adam"
    with pytest.raises(UserError, match="name both alike"):
        write_difference(tmp_path / "a/gradients/adam", tmp_path / "b")


def test_runs_of_one_name_are_told_apart_by_their_parents(tmp_path):
    for seed, arm in enumerate(("mlp", "cmoe")):
        record_run(seed).save(tmp_path / arm / "seed-0" / "gradients")
    found = write_difference(tmp_path / "mlp" / "seed-0", tmp_path / "cmoe" / "seed-0", resamples=50)
    assert (found.a.name, found.b.name) == ("mlp_seed-0", "cmoe_seed-0")
    assert found.folder.name == "mlp_seed-0"


def test_a_run_and_itself_share_every_score(runs, tmp_path):
    a, b = runs
    found = write_difference(a, a, tmp_path / "self", paired=True, resamples=50)
    for table in found.scores.values():
        assert (table[["difference", "low", "high"]] == 0).all(axis=None)
    apart = write_difference(a, b, tmp_path / "apart", paired=False, resamples=50).scores["dataset"]
    assert (apart["low"] <= apart["difference"]).all()
    assert (apart["low"] < apart["high"]).any()
    assert apart["difference"].sum() == pytest.approx(0, abs=1e-12)
