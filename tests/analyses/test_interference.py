import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import tugofwar as tow
from analyses.interference import batches_for_width, sketch_errors, summary, write_tables
from tugofwar.diagnostics import diagnose
from tugofwar.errors import UserError
from tugofwar.recording import Block, Recording, upper_triangle
from tugofwar.report_text import measurement_text


def build_recording(gradients, datasets, **options):
    block = Block("connector", {"connector.weight": gradients.shape[1]})
    triangle = upper_triangle(gradients @ gradients.T)
    return Recording((block,), {"connector": triangle}, datasets, np.ones(len(datasets)), **options)


@pytest.fixture
def recording():
    gradients = np.random.default_rng(0).normal(size=(30, 15)) + 1
    tasks = {"a": "VQA", "b": "VQA", "c": "CLS", "text": "QA"}
    return build_recording(gradients, ["a"] * 10 + ["b"] * 10 + ["c"] * 10, untouched=("text",), tasks=tasks)


@pytest.mark.parametrize("level", ["dataset", "task"])
def test_tables_read_back_as_the_measures(recording, tmp_path, level):
    write_tables(recording, tmp_path, resamples=50)
    groups = None if level == "dataset" else tow.task_groups(recording)
    gd, gm, index = (pd.read_csv(tmp_path / f"{name}_{level}.csv", index_col=0) for name in ("gd", "gm", "index"))
    assert gd.index.name == level
    assert list(gd.index) == list(gd.columns)
    assert abs(np.diagonal(gd) - 1).max() == 0
    assert (gm.to_numpy() == gm.to_numpy().T).all()
    assert ((gm > 0) & (gm <= 1)).all(axis=None)
    np.testing.assert_allclose(index["index"], (gd * gm).sum(axis=1), rtol=1e-9)
    assert index["index_normalised"].max() == 1
    np.testing.assert_allclose(gd, tow.interference(recording, groups, resamples=0).gd, rtol=1e-12)
    for estimator in ("plugin", "leave_one_out"):
        other = pd.read_csv(tmp_path / f"gd_{level}_{estimator}.csv", index_col=0)
        expected = tow.interference(recording, groups, estimator, resamples=0).gd
        np.testing.assert_allclose(other, expected, rtol=1e-12)
        assert abs(other - gd).max(axis=None) > 1e-6


def test_intervals_are_long_and_named_by_estimator(recording, tmp_path):
    write_tables(recording, tmp_path, resamples=50)
    long = pd.read_csv(tmp_path / "gd_dataset_intervals.csv")
    uncertainty = ["low", "high", "simultaneous_low", "simultaneous_high", "p_value"]
    assert list(long.columns) == ["estimator", "row", "column", "value", *uncertainty]
    assert set(long["estimator"]) == {"leave_one_out", "ratio_of_means"}
    assert len(long) == 2 * 9
    gd = pd.read_csv(tmp_path / "gd_dataset.csv", index_col=0)
    cell = long[(long.estimator == "ratio_of_means") & (long.row == "a") & (long.column == "c")].iloc[0]
    assert cell["value"] == pytest.approx(gd.loc["a", "c"], rel=1e-12)
    assert cell["low"] < cell["high"]
    result = tow.interference(recording, resamples=50)
    for column in ("low", "high"):
        table = getattr(result.simultaneous["gd"], column)
        assert cell[f"simultaneous_{column}"] == pytest.approx(table.loc["a", "c"], rel=1e-12)
    assert cell["p_value"] == pytest.approx(result.p_values["gd"].loc["a", "c"], rel=1e-12)
    index = pd.read_csv(tmp_path / "index_dataset.csv", index_col=0)
    np.testing.assert_allclose(index["index_p_value"], result.p_values["index"], rtol=1e-12)
    np.testing.assert_allclose(index["index_simultaneous_low"], result.simultaneous["index"].low, rtol=1e-12)


def test_no_cell_of_any_table_is_empty_and_json_is_strict(recording, tmp_path):
    write_tables(recording, tmp_path, resamples=50)
    tables = sorted(tmp_path.glob("*.csv"))
    assert len(tables) == 2 * (11 + 3) + 1
    for path in tables:
        assert not pd.read_csv(path).isna().any(axis=None), path.name

    def refuse(constant):
        raise AssertionError(constant)

    content = json.loads((tmp_path / "interference.json").read_text(), parse_constant=refuse)
    assert content["untouched"] == ["text"]
    assert content["default_estimator"] == "ratio_of_means"
    assert set(content["levels"]["dataset"]["estimators"]) == {"plugin", "leave_one_out", "ratio_of_means"}
    assert set(content["levels"]["dataset"]["estimators"]["plugin"]["gd"]) == {"value"}
    level = content["levels"]["dataset"]
    assert set(level["diagnostics"]) == {"undefined", "diagnostics", "noise"}
    assert level["scores"] == {}
    assert level["unstable"] == list(tow.interference(recording, estimator="leave_one_out", resamples=0).unstable)
    pairs = pd.read_csv(tmp_path / "diagnostics_dataset.csv")
    assert level["diagnostics"]["diagnostics"]["value"] == pytest.approx(pairs["value"].tolist(), rel=1e-12)


@pytest.mark.parametrize(("batch_size", "resamples"), [(1, 30), (4, 30), (None, 0)])
def test_diagnostics_are_long_and_whole(recording, tmp_path, batch_size, resamples):
    sized = replace(recording, metadata={} if batch_size is None else {"batch_size": batch_size})
    write_tables(sized, tmp_path, resamples=resamples or 5)
    found = diagnose(sized, resamples=resamples or 5)
    pairs = pd.read_csv(tmp_path / "diagnostics_dataset.csv")
    assert list(pairs.columns) == ["measure", "row", "column", "value", "low", "high"]
    for measure, table in (("cosine", found.cosine), ("conflict", found.conflict)):
        written = pairs[pairs["measure"] == measure].pivot(index="row", columns="column", values="value")
        np.testing.assert_allclose(written, table, rtol=1e-12)
    noise = pd.read_csv(tmp_path / "noise_dataset.csv", index_col=0)
    np.testing.assert_allclose(noise, found.noise, rtol=1e-12)
    assert ("noise_scale_samples" in noise) == (batch_size is not None)
    assert (tmp_path / "fisher_dataset.csv").exists() == (batch_size == 1)
    if batch_size == 1:
        fisher = pd.read_csv(tmp_path / "fisher_dataset.csv", index_col=0)
        assert list(fisher.index) == ["a", "b", "c", "overall"]
        np.testing.assert_allclose(fisher, found.spectra, rtol=1e-12)


def test_scores_stand_in_tables_and_json(tmp_path):
    torch.manual_seed(0)
    recording = tow.record(
        torch.nn.Linear(6, 4),
        {name: list(torch.randn(5, 3, 6)) for name in ("a", "b")},
        "*",
        5,
        loss=lambda model, batch: model(batch).square().mean(),
        progress=False,
        tasks={"a": "VQA", "b": "CLS"},
    )
    measurement = write_tables(recording, tmp_path, resamples=20)
    table = pd.read_csv(tmp_path / "scores_dataset.csv")
    expected = recording.statistics.table("dataset")
    np.testing.assert_allclose(table, expected, rtol=1e-12)
    content = json.loads((tmp_path / "interference.json").read_text())
    assert content["levels"]["task"]["scores"]["all"]["count"] == expected["count"].tolist()
    assert set(content["levels"]["dataset"]["scores"]) == {"all", "blocks", "parameters"}
    assert summary(measurement)["scores"]["dataset"]["share"] == pytest.approx(expected["share"].iloc[-1])


def test_a_sketch_error_is_a_share_of_the_denominator():
    gradients = np.random.default_rng(5).normal(size=(20, 8)) + 2
    recording = build_recording(
        gradients, ["a"] * 10 + ["b"] * 10, metadata={"sketch": {"dimension": 64, "expected_error": 0.125}}
    )
    unit = gradients[:10] / np.linalg.norm(gradients[:10], axis=1, keepdims=True)
    cosines = [unit[i] @ unit[j] for i in range(10) for j in range(10) if i != j]
    errors = sketch_errors(recording)
    assert errors["share_of_denominator"]["a"] == pytest.approx(0.125 / np.mean(cosines))
    assert errors["dimension"] == 64
    opposed = build_recording(
        gradients * np.tile([1, -1], 10)[:, None],
        ["a"] * 10 + ["b"] * 10,
        metadata={"sketch": {"dimension": 64, "expected_error": 0.125}},
    )
    assert sketch_errors(opposed)["share_of_denominator"] == {}


def test_a_forecast_that_cannot_be_made_says_why(recording, tmp_path):
    measurement = write_tables(recording, tmp_path, resamples=20)
    assert "batches" in batches_for_width(measurement, 0.1)
    alone = write_tables(build_recording(np.ones((6, 3)), ["a"] * 3 + ["b"] * 3), tmp_path / "equal", resamples=20)
    assert "no interval of 'gd' has a width" in batches_for_width(alone, 0.1)["reason"]


def test_without_tasks_there_is_no_task_level(tmp_path):
    gradients = np.random.default_rng(1).normal(size=(10, 5)) + 1
    write_tables(build_recording(gradients, ["a"] * 5 + ["b"] * 5), tmp_path, resamples=20)
    assert not list(tmp_path.glob("*task*"))


def test_an_index_without_a_maximum_has_no_column(tmp_path):
    gradients = np.random.default_rng(2).normal(size=(8, 5)) * 0.1 + 1
    opposed = np.concatenate([gradients, -1.001 * gradients])
    write_tables(build_recording(opposed, ["a"] * 8 + ["b"] * 8), tmp_path, resamples=20)
    content = json.loads((tmp_path / "interference.json").read_text())
    estimate = content["levels"]["dataset"]["estimators"]["ratio_of_means"]
    assert max(estimate["index"]["value"]) <= 0
    assert estimate["index_normalised"] is None
    assert "index_normalised" not in pd.read_csv(tmp_path / "index_dataset.csv")


def test_an_undefined_measure_is_refused_before_anything_is_written(tmp_path):
    orthogonal = build_recording(np.eye(4), ["a", "a", "b", "b"])
    with pytest.raises(UserError, match="does not exist"):
        write_tables(orthogonal, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_task_of_opposed_datasets_has_no_level_and_says_why(tmp_path):
    """Two datasets whose gradients cancel leave their task without a direction; the datasets' own measures stand."""
    one = np.tile([1.0, 2.0, 0.0], (4, 1))
    gradients = np.concatenate([one, -one, np.tile([0.0, 1.0, 1.0], (4, 1))])
    tasks = {"up": "both", "down": "both", "other": "VQA"}
    recording = build_recording(gradients, ["up"] * 4 + ["down"] * 4 + ["other"] * 4, tasks=tasks)
    measurement = write_tables(recording, tmp_path, resamples=50)
    assert list(measurement.levels) == ["dataset"]
    gd = pd.read_csv(tmp_path / "gd_dataset.csv", index_col=0)
    assert gd.loc["up", "down"] == pytest.approx(-1)
    assert not (tmp_path / "gd_task.csv").exists()
    assert "'both'" in json.loads((tmp_path / "interference.json").read_text())["left_out"]["task"]
    text = measurement_text(summary(measurement), "*", "here")
    assert "no measures between tasks" in text


def test_equal_recordings_give_equal_bytes(recording, tmp_path):
    for name in ("one", "two"):
        write_tables(recording, tmp_path / name, resamples=30)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
