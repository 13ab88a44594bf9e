"""Interference over training: tables from recordings at steps, made by the callback or from checkpoints."""

import json
import sys

import numpy as np
import pandas as pd
import pytest

import tugofwar as tow
from analyses.dynamics.tables import headlines, measure_step, tables
from tugofwar import cli, history
from tugofwar.recording import Block, Recording, upper_triangle

TASKS = {"a": "VQA", "b": "VQA", "c": "CLS", "text": "QA"}


def build_recording(gradients, datasets, **options):
    block = Block("connector", {"connector.weight": gradients.shape[1]})
    triangle = upper_triangle(gradients @ gradients.T)
    losses = np.arange(float(len(datasets)))
    return Recording((block,), {"connector": triangle}, datasets, losses, **options)


def recorded(seed=0, names="abc", batches=10, **options):
    """Datasets that agree in part."""
    gradients = np.random.default_rng(seed).normal(size=(len(names) * batches, 15)) + 1
    known = {name: TASKS[name] for name in (*names, "text")}
    return build_recording(
        gradients,
        [name for name in names for _ in range(batches)],
        **{"untouched": ("text",), "tasks": known} | options,
    )


def save(run, recordings, headlines_of=None):
    """A run with recordings of the callback; its history knows the steps that it would."""
    for step, recording in recordings.items():
        folder = run / "tugofwar" / f"step-{step:06d}"
        recording.save(folder)
        if headlines_of is None or step in headlines_of:
            history.append(run / "tugofwar", step, {"gd_min": 0.0})
    return run


def call(monkeypatch, capsys, *arguments):
    """Status, stdout and stderr of ``tugofwar dynamics`` in this process."""
    monkeypatch.setattr(sys, "argv", ["tugofwar", "dynamics", *map(str, arguments), "--quiet"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    printed = capsys.readouterr()
    return ended.value.code or 0, printed.out, printed.err


def read(run, name, folder="dynamics"):
    return pd.read_csv(run / folder / f"{name}.csv", keep_default_na=False)


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("level", ["dataset", "task"])
def test_every_cell_of_every_step_is_that_of_interference(level):
    recordings = {10: recorded(1), 20: recorded(2)}
    frames = tables([measure_step(step, recording) for step, recording in recordings.items()])
    for step, recording in recordings.items():
        result = tow.interference(recording, tow.task_groups(recording) if level == "task" else None)
        for measure in ("gd", "gm"):
            frame = frames[f"{measure}_{level}.csv"]
            rows = frame[frame["step"] == step].set_index(["row", "column"])
            assert len(rows) == len(result.gd) ** 2
            for row in result.gd.index:
                for column in result.gd.columns:
                    cell = rows.loc[(row, column)]
                    assert cell["value"] == getattr(result, measure).loc[row, column]
                    assert cell["low"] == result.intervals[measure].low.loc[row, column]
                    assert cell["high"] == result.intervals[measure].high.loc[row, column]
        frame = frames[f"index_{level}.csv"]
        rows = frame[frame["step"] == step].set_index("name")
        assert list(rows.index) == list(result.index.index)
        np.testing.assert_array_equal(rows["batches"], list(result.batches.values()))
        for measure in ("index", "index_normalised"):
            np.testing.assert_array_equal(rows[measure], getattr(result, measure))
            np.testing.assert_array_equal(rows[f"{measure}_low"], result.intervals[measure].low)
            np.testing.assert_array_equal(rows[f"{measure}_high"], result.intervals[measure].high)


def test_the_loss_is_the_mean_over_the_probed_batches():
    frame = tables([measure_step(7, recorded(batches=4))])["loss.csv"]
    assert frame.to_numpy().tolist() == [[7, "a", 1.5], [7, "b", 5.5], [7, "c", 9.5]]


def test_a_dataset_whose_own_progress_may_have_either_sign_is_flagged_and_left_out_of_the_headline():
    noise = np.random.default_rng(0).normal(size=(36, 50))
    noise[:12, 0] += 6
    noise[12:24, :2] += 6
    recording = build_recording(noise, ["a"] * 12 + ["b"] * 12 + ["noise"] * 12)
    measured = measure_step(3, recording)
    frame = tables([measured])["index_dataset.csv"]
    assert list(frame["sign_uncertain"]) == [False, False, True]
    result = tow.interference(recording)
    trusted = [result.gd.loc[row, column] for row in "ab" for column in ("a", "b", "noise") if row != column]
    (line,) = headlines([measured])
    assert line["gd_min"] == min(trusted)
    assert line["gd_mean"] == pytest.approx(np.mean(trusted), rel=1e-12)
    assert (line["index_min"], line["index_max"]) == (result.index[["a", "b"]].min(), result.index[["a", "b"]].max())
    assert line["sign_uncertain"] == ["noise"]
    assert result.gd.loc[line["gd_min_row"], line["gd_min_column"]] == line["gd_min"]


def test_the_normalised_index_has_columns_only_where_it_exists_at_every_step():
    # The same batches with the sign turned share their noise, too, so that GD is under -1.
    one = np.random.default_rng(3).normal(size=(10, 40)) + 1
    never_positive = build_recording(np.concatenate([one, -one]), ["a"] * 10 + ["b"] * 10)
    assert tow.interference(never_positive).index_normalised is None
    steps = [measure_step(1, recorded(names="ab", batches=10)), measure_step(2, never_positive)]
    frame = tables(steps)["index_dataset.csv"]
    assert "index_normalised" not in frame
    assert not frame.isna().any(axis=None)
    assert "index_normalised_high" in tables(steps[:1])["index_dataset.csv"]


def test_steps_of_the_callback_become_the_tables_of_the_contract(tmp_path, monkeypatch, capsys):
    run = save(tmp_path / "run", {100: recorded(1), 20: recorded(2), 3: recorded(3)})
    log = "step,stage,task,expert,weight,images\n50,warmup,VQA,0,0.18277938105165958,40\n"
    (run / "routing_weights.csv").write_text(log)
    status, printed, _ = call(monkeypatch, capsys, run)
    assert status == 0
    assert [line.split()[0] for line in printed.splitlines()[2:5]] == ["3", "20", "100"]
    assert "not touching the selected parameters: text" in printed
    manifest = json.loads((run / "dynamics" / "manifest.json").read_text())
    assert manifest["format"] == "tugofwar-dynamics"
    assert (manifest["source"], manifest["steps"], manifest["batches"]) == ("callback", [3, 20, 100], 10)
    assert (manifest["estimator"], manifest["interval_level"], manifest["resamples"]) == ("ratio_of_means", 0.95, 1000)
    assert manifest["tasks"] == TASKS
    levels = ("dataset", "task")
    expected = {f"{stem}_{level}.csv" for stem in ("index", "gd", "gm") for level in levels}
    assert set(contents(run / "dynamics")) == expected | {"loss.csv", "routing.csv", "manifest.json"}
    assert (run / "dynamics" / "routing.csv").read_text() == log
    spread = ["index_low", "index_high", "index_normalised", "index_normalised_low", "index_normalised_high"]
    assert list(read(run, "index_task").columns) == ["step", "name", "batches", "index", *spread, "sign_uncertain"]
    assert list(read(run, "gm_dataset").columns) == ["step", "row", "column", "value", "low", "high"]
    assert list(read(run, "gd_dataset")["step"].unique()) == [3, 20, 100]


def test_equal_calls_write_equal_bytes_and_replace_what_the_last_one_wrote(tmp_path, monkeypatch, capsys):
    run = save(tmp_path / "run", {1: recorded(1), 2: recorded(2)})
    assert call(monkeypatch, capsys, run)[0] == 0
    first = contents(run / "dynamics")
    (run / "dynamics" / "of_another_version.csv").write_text("")
    assert call(monkeypatch, capsys, run)[0] == 0
    assert contents(run / "dynamics") == first
    assert call(monkeypatch, capsys, run, "--seed", 1)[0] == 0
    assert contents(run / "dynamics")["gd_dataset.csv"] != first["gd_dataset.csv"]
    assert {path.name for path in run.iterdir()} == {"tugofwar", "dynamics"}


def test_a_step_at_which_the_measures_do_not_exist_is_named_and_has_no_rows(tmp_path, monkeypatch, capsys):
    rows = np.eye(30)
    no_direction = build_recording(rows, ["a"] * 10 + ["b"] * 10 + ["c"] * 10, tasks=TASKS)
    run = save(tmp_path / "run", {1: recorded(1), 2: no_direction, 3: recorded(3)}, headlines_of=[1, 3])
    status, printed, _ = call(monkeypatch, capsys, run)
    assert status == 0
    assert "step 2 (dataset level) has no measures: GD of 'a' does not exist" in printed
    manifest = json.loads((run / "dynamics" / "manifest.json").read_text())
    assert [(entry["step"], entry["level"]) for entry in manifest["undefined"]] == [(2, "dataset"), (2, "task")]
    assert list(read(run, "gd_dataset")["step"].unique()) == [1, 3]
    assert list(read(run, "loss")["step"].unique()) == [1, 2, 3]
    assert not any(read(run, name).eq("").any(axis=None) for name in ("gd_dataset", "index_dataset", "loss"))


def test_a_recording_that_lacks_a_dataset_is_said(tmp_path, monkeypatch, capsys):
    run = save(tmp_path / "run", {1: recorded(1), 2: recorded(2, names="ac")})
    status, printed, _ = call(monkeypatch, capsys, run)
    assert status == 0
    assert "b is not in the recordings of step 2" in printed
    index = read(run, "index_dataset")
    assert list(index.loc[index["step"] == 2, "name"]) == ["a", "c"]
    assert json.loads((run / "dynamics" / "manifest.json").read_text())["missing"] == {"b": [2]}


def test_recordings_that_an_earlier_training_left_in_the_folder_are_left_out(tmp_path, monkeypatch, capsys):
    run = save(tmp_path / "run", {1: recorded(1), 2: recorded(2), 900: recorded(3)}, headlines_of=[1, 2])
    status, printed, _ = call(monkeypatch, capsys, run)
    assert status == 0
    assert "left out, of an earlier training in this folder: step 900" in printed
    assert list(read(run, "gd_dataset")["step"].unique()) == [1, 2]


def test_without_tasks_there_is_no_task_level(tmp_path, monkeypatch, capsys):
    run = save(tmp_path / "run", {1: recorded(1, tasks={})})
    assert call(monkeypatch, capsys, run)[0] == 0
    assert not list((run / "dynamics").glob("*_task.csv"))
    assert not (run / "dynamics" / "routing.csv").exists()


def test_some_of_the_datasets_can_be_looked_at(tmp_path, monkeypatch, capsys):
    run = save(tmp_path / "run", {1: recorded(1)})
    assert call(monkeypatch, capsys, run, "--datasets", "a,c")[0] == 0
    assert set(read(run, "gd_dataset")["row"]) == set(read(run, "loss")["dataset"]) == {"a", "c"}
    status, _, error = call(monkeypatch, capsys, run, "--datasets", "a,tezt")
    assert status == 2
    assert "--datasets names 'tezt', which no recording has" in error
    assert "text" in error


def test_the_callbacks_own_folder_can_be_named(tmp_path, monkeypatch, capsys):
    run = save(tmp_path / "run", {1: recorded(1)})
    assert call(monkeypatch, capsys, run / "tugofwar", "--out", tmp_path / "out")[0] == 0
    assert (tmp_path / "out" / "gd_dataset.csv").is_file()


def test_json_says_what_the_table_says(tmp_path, monkeypatch, capsys):
    run = save(tmp_path / "run", {1: recorded(1), 2: recorded(2)})
    status, printed, _ = call(monkeypatch, capsys, run, "--json")
    content = json.loads(printed)
    assert status == 0
    assert [line["step"] for line in content["headline"]] == content["steps"] == [1, 2]
    gd = read(run, "gd_dataset")
    first = gd[(gd["step"] == 1) & (gd["row"] != gd["column"])]["value"]
    assert content["headline"][0]["gd_min"] == pytest.approx(first.min(), abs=1e-15)
    assert content["headline"][0]["gd_mean"] == pytest.approx(first.mean(), rel=1e-12)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "There is no folder nowhere"),
        (["empty"], "empty holds neither recordings"),
        (["empty", "--data", "empty"], "empty holds no checkpoints"),
        (["bare"], "Nothing was recorded while bare was trained; give --data ROOT"),
        (["run", "--batches", "5"], "--batches is for measuring checkpoints, which needs --data"),
        (["run", "--params", "x"], "--params is for measuring checkpoints"),
        (["run", "--out", "empty/file"], "The output empty/file is a file"),
        (["run", "--out", "bare"], "The output folder bare holds something other than earlier dynamics"),
        (["foreign", "--data", "empty"], "run.json does not say at which step training ended"),
        (["damaged"], "recording.safetensors"),
        (["no_log"], "routing_weights.csv has the columns step, weight"),
        (["no_history"], "history.csv is damaged"),
        (["orthogonal"], "No recording has measures of interference; of step 1: GD of 'a' does not exist"),
    ],
)
def test_what_a_user_can_get_wrong_is_one_sentence(tmp_path, monkeypatch, capsys, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "file").write_text("")
    (tmp_path / "bare" / "checkpoint-10").mkdir(parents=True)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "run.json").write_text('{"exit_reason": "finished", "sessions": 3}')
    for name in ("run", "damaged", "no_log", "no_history"):
        save(tmp_path / name, {1: recorded(1)})
    tensors = tmp_path / "damaged" / "tugofwar" / "step-000001" / "recording.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-10])
    (tmp_path / "no_log" / "routing_weights.csv").write_text("step,weight\n1,2\n")
    (tmp_path / "no_history" / "tugofwar" / "history.csv").write_text("when,name\nlong ago,x\n")
    save(tmp_path / "orthogonal", {1: build_recording(np.eye(4), ["a", "a", "b", "b"])}, headlines_of=[])
    status, printed, error = call(monkeypatch, capsys, *arguments)
    assert (status, printed) == (2, "")
    assert sentence in error
    assert len(error.splitlines()) == 1
    assert not list(tmp_path.glob("*/dynamics"))
