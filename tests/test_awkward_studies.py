"""One dataset, forty datasets with names of sixty characters, and unknown tasks: every command runs through on them."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import Trainer, TrainingArguments

from tugofwar import cli
from tugofwar.callback import TugOfWarCallback

from . import conflict_study
from .conflict_study import BATCHES

STUDY = Path(conflict_study.__file__)
SETUPS = {"alone": 1, "forty": 40, "without_tasks": 5}


def call(*arguments):
    """Status of a command in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["tugofwar", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    return ended.value.code or 0


def measure(name, run):
    probing = ["--setup", f"{STUDY}:{name}", "--quiet"]
    assert call("gradients", *probing, "--params", "shared.*", "--batches", BATCHES, "--out", run / "gradients") == 0


def train(name, run):
    """Two steps with a recording at each, as any Trainer with the callback leaves them."""
    study = getattr(conflict_study, name)()
    batches = [batch for each in study["datasets"].values() for batch in each]
    samples = [{"x": batch["x"][0], "y": batch["y"][0], "head": int(batch["head"])} for batch in batches]
    callback = TugOfWarCallback(study["datasets"], "shared.*", every=1, batches=BATCHES, tasks=study["tasks"])
    quiet = {"save_strategy": "no", "report_to": "none", "disable_tqdm": True, "dataloader_pin_memory": False}
    arguments = TrainingArguments(output_dir=str(run), max_steps=2, learning_rate=0.0, use_cpu=True, **quiet)
    Trainer(study["model"], arguments, train_dataset=samples, callbacks=[callback]).train()


@pytest.fixture(scope="module", params=["alone", "without_tasks", pytest.param("forty", marks=pytest.mark.slow)])
def name(request):
    return request.param


@pytest.fixture(scope="module")
def run(name, tmp_path_factory):
    """A folder with gradients, recordings during training, routing, features, dynamics and a difference from itself."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp(name) / "run"
    train(name, folder)
    measure(name, folder)
    probing = ["--setup", f"{STUDY}:{name}", "--quiet"]
    assert call("dynamics", folder, "--quiet") == 0
    assert call("routing", *probing, "--router", "router", "--batches", BATCHES, "--out", folder / "routing") == 0
    assert call("features", *probing, "--module", "passed", "--samples", BATCHES, "--out", folder / "features") == 0
    other = folder.parent / "other"
    measure(name, other)
    assert call("compare", other, folder, "--paired", "--quiet") == 0
    torch.set_num_threads(threads)
    return folder


def tables_of(folder):
    return {path: pd.read_csv(path, keep_default_na=False) for path in folder.rglob("*.csv")}


def test_every_command_leaves_tables_without_holes(run):
    assert {"gradients", "dynamics", "routing", "features", "difference"} <= {path.name for path in run.iterdir()}
    for path, table in tables_of(run).items():
        assert not table.map(lambda cell: cell in ("", "nan", "inf")).any(axis=None), path
        assert np.isfinite(table.select_dtypes("number").to_numpy()).all(), path


def test_there_is_a_task_level_exactly_where_tasks_are_known(run, name):
    for question in ("gradients", "dynamics", "difference"):
        found = [path.name for path in (run / question).rglob("gd_task.csv")]
        assert bool(found) == (name != "without_tasks"), question


def test_every_dataset_is_there_by_its_whole_name(run, name):
    names = list(getattr(conflict_study, name)()["datasets"])
    assert len(names) == SETUPS[name]
    assert list(pd.read_csv(run / "gradients" / "gd_dataset.csv")["dataset"]) == names
    index = pd.read_csv(run / "dynamics" / "index_dataset.csv")
    assert list(index.loc[index["step"] == 2, "name"]) == names


def test_the_directions_are_those_that_were_planted(run, name):
    study = getattr(conflict_study, name)()
    signs = {each: np.sign(float(batches[0]["y"][0])) for each, batches in study["datasets"].items()}
    gd = pd.read_csv(run / "dynamics" / "gd_dataset.csv")
    for row, column, value in zip(gd["row"], gd["column"], gd["value"], strict=True):
        apart = row != column and "elsewhere" in (row, column)
        assert value == pytest.approx(0 if apart else signs[row] * signs[column], abs=1e-12)


def test_a_router_of_equal_weights_is_evenly_used_and_can_do_without_any_expert(run):
    weights = pd.read_csv(run / "routing" / "weights.csv")
    np.testing.assert_allclose(weights["weight"], 1 / 3, atol=1e-12)
    measures = pd.read_csv(run / "routing" / "measures.csv")
    np.testing.assert_allclose(measures["value"], 1, atol=1e-12)


def test_a_module_that_passes_features_on_leaves_them_as_they_are(run, name):
    alignment = pd.read_csv(run / "features" / "alignment.csv")
    separation = pd.read_csv(run / "features" / "separation.csv")
    if name == "alone":  # ten samples, as far from each other as any two, and nothing to tell apart
        assert len(alignment) == len(separation) == 0
        return
    if name == "forty":  # as far from each other as any two, too
        assert len(alignment) == 0
    else:
        np.testing.assert_allclose(alignment["value"], 1, atol=1e-6)
    found = separation.set_index(["label", "name", "measure", "stage"])["value"].unstack("stage")
    assert len(found)
    np.testing.assert_array_equal(found["before"], found["after"])


@pytest.mark.slow
@pytest.mark.parametrize("command", ["figures", "report"])
def test_pictures_and_report_are_made(run, tmp_path, command):
    out = tmp_path / ("figures" if command == "figures" else "report.html")
    assert call(command, run, "--out", out) == 0
    assert out.exists()


def test_a_recording_is_inspected(run, capsys):
    assert call("inspect", run, "--json") == 0
    assert json.loads(capsys.readouterr().out)["datasets"]
