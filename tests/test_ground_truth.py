"""On a model whose tasks conflict by design (``conflict_study.py``), each analysis shows exactly that conflict."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from tugofwar import cli
from tugofwar.callback import TugOfWarCallback

from . import conflict_study
from .conflict_study import BATCHES, NOISE, TARGETS

STUDY = Path(conflict_study.__file__)
NAMES = list(TARGETS)
SIGNS = np.array([1, 1, -1, 1, 0])
SIZES = np.abs(list(TARGETS.values()))
# Which way each dataset pulls the others: those on the same coordinate by the product of their signs.
GD = np.outer(SIGNS, SIGNS) + np.diag([0, 0, 0, 0, 1])
GM = 2 * np.outer(SIZES, SIZES) / np.add.outer(SIZES**2, SIZES**2)
EXACT = {"rtol": 0, "atol": 1e-12}


def tugofwar(*arguments, folder=None, status=0):
    """What the real command prints; it has to end with ``status``."""
    command = [sys.executable, "-m", "tugofwar.cli", *map(str, arguments)]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout if status == 0 else done.stderr


def gradients_of(name, out):
    """The options of ``tugofwar gradients`` on a setup of the study."""
    setup = f"{STUDY}:{name}"
    return [
        "gradients",
        "--setup",
        setup,
        "--params",
        "shared.*",
        "--batches",
        str(BATCHES),
        "--out",
        str(out),
        "--quiet",
    ]


def here(monkeypatch, *arguments):
    """The same command in this process, which takes a tenth of the time; its status."""
    monkeypatch.setattr(sys, "argv", ["tugofwar", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code or 0


def tables_in(folder):
    return {path.stem: pd.read_csv(path, keep_default_na=False) for path in folder.glob("*.csv")}


def square(table):
    return table.iloc[:, 1:].to_numpy(dtype=float)


@pytest.fixture(scope="module")
def noise_free(tmp_path_factory):
    """Tables by the real command."""
    out = tmp_path_factory.mktemp("noise_free") / "gradients"
    printed = tugofwar(*gradients_of("noise_free", out))
    assert "estimator ratio_of_means" in printed
    return tables_in(out)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    out = tmp_path_factory.mktemp("noisy") / "gradients"
    with pytest.MonkeyPatch.context() as patch:
        assert here(patch, *gradients_of("noisy", out)) == 0
    return tables_in(out)


@pytest.mark.parametrize("estimator", ["", "_plugin", "_leave_one_out"])
def test_a_negated_task_has_direction_minus_one_and_a_copied_one_plus_one(noise_free, estimator):
    table = noise_free[f"gd_dataset{estimator}"]
    assert list(table.columns[1:]) == list(table["dataset"]) == NAMES
    np.testing.assert_allclose(square(table), GD, **EXACT)


def test_a_scaled_task_has_the_closed_form_of_magnitude_and_a_copied_one_has_one(noise_free):
    found = square(noise_free["gm_dataset"])
    np.testing.assert_allclose(found, GM, **EXACT)
    assert found[NAMES.index("base"), NAMES.index("scaled")] == pytest.approx(2 * 3 / (1 + 3**2), abs=1e-12)


def test_the_tug_of_war_index_is_the_sum_of_what_was_planted(noise_free):
    table = noise_free["index_dataset"].set_index("dataset")
    between = 2 * 3 / (1 + 3**2)
    expected = {
        "base": 1 + between,
        "copy": 1 + between,
        "negated": -1 - between,
        "scaled": 1 + between,
        "elsewhere": 1,
    }
    for name, value in expected.items():
        assert table.loc[name, "index"] == pytest.approx(value, abs=1e-12)
        assert table.loc[name, "index_normalised"] == pytest.approx(value / (1 + between), abs=1e-12)


def test_without_noise_every_interval_is_a_point(noise_free):
    for measure in ("gd", "gm"):
        table = noise_free[f"{measure}_dataset_intervals"]
        np.testing.assert_allclose(table["low"], table["value"], **EXACT)
        np.testing.assert_allclose(table["high"], table["value"], **EXACT)


def test_tasks_pool_their_datasets(noise_free):
    table = noise_free["gd_task"].set_index("task")
    assert list(table.index) == ["up", "down", "strongly up", "apart"]
    np.testing.assert_allclose(
        table.to_numpy(), np.outer([1, -1, 1, 0], [1, -1, 1, 0]) + np.diag([0, 0, 0, 1]), **EXACT
    )
    sizes = np.array([1, 1, 3, 1])
    expected = 2 * np.outer(sizes, sizes) / np.add.outer(sizes**2, sizes**2)
    np.testing.assert_allclose(square(noise_free["gm_task"]), expected, **EXACT)


@pytest.mark.parametrize("estimator", ["", "_leave_one_out"])
def test_orthogonal_noise_leaves_the_default_estimator_exact(noisy, estimator):
    """The noise of two batches never meets, so that leaving a batch out of its own direction takes all of it away."""
    np.testing.assert_allclose(square(noisy[f"gd_dataset{estimator}"]), GD, **EXACT)
    np.testing.assert_allclose(square(noisy["gm_dataset"]), GM, **EXACT)


def test_the_plugin_falls_short_by_the_noise_of_its_own_diagonal(noisy):
    shrunk = 1 / (1 + NOISE**2 / BATCHES)
    np.testing.assert_allclose(square(noisy["gd_dataset_plugin"]), GD * shrunk + np.eye(5) * (1 - shrunk), **EXACT)


def test_the_noise_is_measured_as_it_was_planted(noisy):
    table = noisy["noise_dataset"].set_index("dataset")
    length = sum(weight**2 for weight in conflict_study.HEAD)
    for name, target in TARGETS.items():
        assert table.loc[name, "squared_norm"] == pytest.approx(target**2 * length, rel=1e-12)
        assert table.loc[name, "variance"] == pytest.approx(target**2 * length * NOISE**2, rel=1e-12)


def test_the_cosines_of_mean_gradients_are_those_of_the_tasks_without_their_noise(noisy):
    table = noisy["diagnostics_dataset"]
    cosines = table[table["measure"] == "cosine"]
    for row, column, value in zip(cosines["row"], cosines["column"], cosines["value"], strict=True):
        assert value == pytest.approx(GD[NAMES.index(row), NAMES.index(column)], abs=1e-12)


@pytest.mark.parametrize(("name", "place"), [("torn", 0), ("agreeing", 9)])
def test_all_parameters_are_torn_or_none_is(tmp_path, monkeypatch, name, place):
    assert here(monkeypatch, *gradients_of(name, tmp_path / "gradients")) == 0
    tables = tables_in(tmp_path / "gradients")
    scores = tables["scores_dataset"]
    expected = np.zeros(10)
    expected[place] = 1
    np.testing.assert_array_equal(scores["share"], expected)
    # Had nothing conflicted, every score would be 1; had signs been drawn, half of the pairs would agree.
    np.testing.assert_array_equal(scores["null_no_conflict"], np.eye(10)[9])
    assert scores["null_signs"].iloc[[0, 9]].sum() == 1
    # 3 parameters per draw of 20, each of which agrees with probability 1/2: four standard errors.
    assert abs(scores["null_signs"].iloc[9] - 0.5) <= 4 * np.sqrt(0.25 / (3 * 20))
    undefined = tables["scores_dataset_parameters"]
    assert undefined["undefined"].sum() == 3 * (conflict_study.COORDINATES - 1 + 2 * BATCHES)


def test_scores_of_all_tasks_together_are_the_closed_form(noise_free):
    """On the common coordinate ``|1 + 1 - 1 + 3| / (1 + 1 + 1 + 3)``; on the other one dataset pulls alone."""
    expected = np.zeros(10)
    expected[int(10 * 4 / 6)] = expected[9] = 0.5
    np.testing.assert_array_equal(noise_free["scores_dataset"]["share"], expected)


PLANTED = 6


class Plant(TrainerCallback):
    """From the sixth step on, the targets of ``copy`` are negated."""

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        if state.global_step + 1 == PLANTED:
            model.signs[NAMES.index("copy")] = -1


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of 10 steps that change no weight, recorded at every second one and before the first."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    study = conflict_study.noisy()
    made = conflict_study.samples(TARGETS, NOISE)
    callback = TugOfWarCallback(
        study["datasets"], "shared.*", every=2, batches=BATCHES, tasks=study["tasks"], at_start=True
    )
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=10,
        learning_rate=0.0,
        per_device_train_batch_size=2,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    everything = [sample for each in made.values() for sample in each]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    Trainer(study["model"], arguments, train_dataset=everything, callbacks=[Plant(), callback]).train()
    torch.set_num_threads(threads)
    return folder


def test_over_training_the_conflict_appears_at_the_step_at_which_it_was_planted(trained):
    printed = tugofwar("dynamics", trained, "--quiet")
    assert "recorded during training" in printed
    found = tables_in(trained / "dynamics")
    assert set(found) == {f"{stem}_{level}" for stem in ("index", "gd", "gm") for level in ("dataset", "task")} | {
        "loss"
    }
    steps = [0, 2, 4, 6, 8, 10]
    gd = found["gd_dataset"].set_index(["row", "column", "step"])["value"].sort_index()
    for row, column in (("base", "copy"), ("copy", "base"), ("scaled", "copy")):
        np.testing.assert_allclose(gd[row, column].loc[steps], [1, 1, 1, -1, -1, -1], **EXACT)
    np.testing.assert_allclose(gd["negated", "copy"].loc[steps], [-1, -1, -1, 1, 1, 1], **EXACT)
    for row in ("base", "negated", "scaled", "elsewhere"):
        for column in set(NAMES) - {"copy", row}:
            planted = GD[NAMES.index(row), NAMES.index(column)]
            np.testing.assert_allclose(gd[row, column].loc[steps], [planted] * 6, **EXACT)
    gm = found["gm_dataset"].pivot(index=["row", "column"], columns="step", values="value")
    np.testing.assert_allclose(gm.to_numpy(), np.repeat(gm[[0]].to_numpy(), 6, axis=1), **EXACT)
    between = 2 * 3 / (1 + 3**2)
    index = found["index_dataset"].set_index(["name", "step"])["index"].sort_index()
    np.testing.assert_allclose(index["base"].loc[steps], [1 + between] * 3 + [-1 + between] * 3, **EXACT)
    np.testing.assert_allclose(index["copy"].loc[steps], [1 + between] * 3 + [1 - between] * 3, **EXACT)


def test_over_training_the_loss_is_that_of_the_untouched_weights(trained, tmp_path):
    tugofwar("dynamics", trained, "--quiet", "--out", tmp_path / "out")
    loss = pd.read_csv(tmp_path / "out" / "loss.csv")
    for name, step, value in zip(loss["dataset"], loss["step"], loss["loss"], strict=True):
        assert value == pytest.approx(TARGETS[name] ** 2 / 2), step


# What turning the copy changes of GD: two, in each cell between it and another of its coordinate.
CHANGE = np.outer(SIGNS, SIGNS) * -2.0
for name in NAMES:
    if name != "copy":
        CHANGE[NAMES.index(name), [NAMES.index(other) for other in NAMES if other != "copy"]] = 0
CHANGE[NAMES.index("copy"), NAMES.index("copy")] = 0


def compared(monkeypatch, folder, a, b):
    """The tables of ``tugofwar compare`` between two setups of the study."""
    for name in {a, b}:
        assert here(monkeypatch, *gradients_of(name, folder / name / "gradients")) == 0
    assert here(monkeypatch, "compare", folder / a, folder / b, "--paired", "--quiet", "--out", folder / "out") == 0
    return tables_in(folder / "out")


def in_a_square(table, column):
    return table.pivot(index="row", columns="column", values=column).loc[NAMES, NAMES].to_numpy()


@pytest.mark.parametrize(
    ("a", "b", "tolerance"), [("without_tasks", "turned", 1e-12), ("gaussian", "gaussian_turned", 0.3)]
)
def test_compare_finds_the_planted_difference_and_none_elsewhere(tmp_path, monkeypatch, a, b, tolerance):
    found = compared(monkeypatch, tmp_path, a, b)
    gd = found["gd_dataset"]
    np.testing.assert_allclose(in_a_square(gd, "difference"), CHANGE, rtol=0, atol=tolerance)
    words = np.array(["lower", "not sure", "higher"])[np.sign(CHANGE).astype(int) + 1]
    np.testing.assert_array_equal(in_a_square(gd, "verdict"), words)
    gm = found["gm_dataset"]
    np.testing.assert_allclose(gm["difference"], 0, atol=1e-12)
    assert set(gm["verdict"]) == {"not sure"}
    index = found["index_dataset"].set_index(["measure", "name"]).loc["index"]
    np.testing.assert_allclose(index.loc[NAMES, "difference"], (CHANGE * GM).sum(axis=1), rtol=0, atol=3 * tolerance)
    assert index.loc["elsewhere", "verdict"] == "not sure"


def test_compare_finds_nothing_where_only_the_names_of_runs_differ(tmp_path, monkeypatch):
    assert here(monkeypatch, *gradients_of("gaussian", tmp_path / "gaussian" / "gradients")) == 0
    shutil.copytree(tmp_path / "gaussian", tmp_path / "again")
    command = ["compare", tmp_path / "gaussian", tmp_path / "again", "--paired", "--quiet", "--out", tmp_path / "out"]
    assert here(monkeypatch, *command) == 0
    found = tables_in(tmp_path / "out")
    for table in ("gd_dataset", "gm_dataset", "index_dataset", "gd_task", "gm_task", "index_task"):
        assert set(found[table]["verdict"]) == {"not sure"}
