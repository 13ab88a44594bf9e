"""`tugofwar gradients` with its further options, on a small study of one's own in float64."""

import json
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

import tugofwar as tow
from analyses import measuring
from tugofwar.engine.passes import Passes
from tugofwar.errors import UserError

from .gradients_study import (
    COMMAND,
    PARAMETERS,
    call,
    files_of,
    hidden,
    study_folder,  # noqa: F401 - the fixture `here`
)


def test_what_is_kept_stands_in_the_output(here, monkeypatch):
    kept = ("--keep-factors", "--keep-scores", "--keep-means")
    assert call(monkeypatch, *PARAMETERS, "--batches", 4, "--out", "out", *kept) == 0
    assert call(monkeypatch, *PARAMETERS, "--batches", 4, "--out", "plain") == 0
    assert files_of("out", "factors", "scores.safetensors", "means.safetensors") == files_of("plain")
    means = load_file("out/means.safetensors")
    gradients = means["sum/0.weight"]
    scores = load_file("out/scores.safetensors")["dataset/0.weight"]
    total = sum(means[f"{name}/0.weight"] for name in ("sum", "first", "last"))
    spread = sum(abs(means[f"{name}/0.weight"]) for name in ("sum", "first", "last"))
    np.testing.assert_allclose(scores, abs(total) / spread, atol=1e-3)
    assert gradients.shape == (20, 30)
    assert hidden() == []


def test_extending_equals_recording_all_batches_at_once(here, monkeypatch, capsys):
    assert call(monkeypatch, *PARAMETERS, "--batches", 4, "--out", "out", "--keep-factors") == 0
    assert call(monkeypatch, *PARAMETERS, "--extend", 3, "--out", "out") == 0
    assert call(monkeypatch, *PARAMETERS, "--extend", 2, "--out", "out") == 0
    assert call(monkeypatch, *PARAMETERS, "--batches", 9, "--out", "whole") == 0
    assert files_of("out", "factors") == files_of("whole")
    assert tow.Recording.load("out").metadata["batches"] == 9
    assert hidden() == []


def test_only_missing_batches_are_passed_when_extending(here, monkeypatch):
    assert call(monkeypatch, *PARAMETERS, "--batches", 4, "--out", "out", "--keep-factors") == 0
    passed = []
    genuine = Passes._pass
    monkeypatch.setattr(Passes, "_pass", lambda self, *rest: passed.append(1) or genuine(self, *rest))
    assert call(monkeypatch, *PARAMETERS, "--extend", 3, "--out", "out") == 0
    assert len(passed) == 3 * 3


def change_study(old, new):
    Path("my_study.py").write_text(Path("my_study.py").read_text().replace(old, new))


CANNOT_EXTEND = [
    (["--params", "2.*"], None, "parameters was '0.*' and is '2.*' now"),
    ([*PARAMETERS, "--seed", "3"], None, "seed was 0 and is 3 now"),
    ([*PARAMETERS, "--factor-dtype", "bfloat16"], None, "factor_dtype was not given and is 'bfloat16' now"),
    ([*PARAMETERS, "--sketch", "9"], None, "sketch was not given and is 9 now"),
    ([*PARAMETERS, "--datasets", "sum,last"], None, "its datasets are sum, first, last, not sum, last"),
    (PARAMETERS, ("manual_seed(0)", "manual_seed(1)"), "setup_sha256 was"),
    ([*PARAMETERS, "--batches", "9"], None, "leave --batches out"),
    ([*PARAMETERS, "--no-resume"], None, "give only one of them"),
    ([*PARAMETERS, "--extend", "11"], None, "Dataset 'sum' has 14 batches but 15 are asked for"),
    ([*PARAMETERS, "--extend", "0"], None, "--extend is 0; it adds at least 1 batch"),
]


@pytest.mark.parametrize(("options", "change", "sentence"), CANNOT_EXTEND)
def test_what_is_not_as_it_was_cannot_be_extended(here, monkeypatch, capsys, options, change, sentence):
    assert call(monkeypatch, *PARAMETERS, "--batches", 4, "--out", "out", "--keep-factors") == 0
    before = files_of("out")
    if change:
        change_study(*change)
    capsys.readouterr()
    assert call(monkeypatch, "--extend", 2, *options, "--out", "out") == 2
    assert sentence in capsys.readouterr().err
    assert files_of("out") == before


def test_another_model_cannot_be_extended(here, monkeypatch, capsys):
    change_study("torch.manual_seed(0)", "torch.manual_seed(int(Path('seed').read_text()))")
    Path("seed").write_text("0")
    assert call(monkeypatch, *PARAMETERS, "--batches", 4, "--out", "out", "--keep-factors") == 0
    Path("seed").write_text("1")
    assert call(monkeypatch, *PARAMETERS, "--extend", 2, "--out", "out") == 2
    assert "out cannot be extended: the model has changed since" in capsys.readouterr().err


def test_without_factors_there_is_nothing_to_extend(here, monkeypatch, capsys):
    assert call(monkeypatch, *PARAMETERS, "--extend", 2, "--out", "out") == 2
    assert "There is no recording in out" in capsys.readouterr().err
    assert call(monkeypatch, *PARAMETERS, "--batches", 4, "--out", "out") == 0
    assert call(monkeypatch, *PARAMETERS, "--extend", 2, "--out", "out") == 2
    assert "out holds no factors to add to; record it once more with --keep-factors" in capsys.readouterr().err


def start_and_halt(*options):
    """A measurement that waits in the middle of its last dataset."""
    Path("halt").touch()
    running = subprocess.Popen([*COMMAND, *PARAMETERS, *options], stderr=subprocess.PIPE, text=True)
    for _ in range(600):
        if Path("halted").exists():
            break
        assert running.poll() is None, running.stderr.read()
        time.sleep(0.05)
    return running


def let_go():
    Path("halt").unlink()
    Path("halted").unlink()


def test_a_killed_run_resumes_with_the_same_bytes(here, monkeypatch, capsys):
    options = ("--batches", 6, "--keep-means", "--out")
    running = start_and_halt(*map(str, options), "out/gradients")
    assert call(monkeypatch, *PARAMETERS, *options, "out/gradients") == 2
    assert "Another process is measuring into out/gradients" in capsys.readouterr().err
    running.send_signal(signal.SIGKILL)
    running.communicate()
    assert hidden("out") == [".gradients.partial"]
    let_go()
    passed = []
    genuine = Passes._pass
    monkeypatch.setattr(Passes, "_pass", lambda self, *rest: passed.append(1) or genuine(self, *rest))
    assert call(monkeypatch, *PARAMETERS, *options, "out/gradients") == 0
    assert len(passed) == 6, "two of three datasets were finished"
    assert hidden("out") == []
    assert call(monkeypatch, *PARAMETERS, *options, "whole") == 0
    assert files_of("out/gradients") == files_of("whole")


def test_an_interrupted_extension_leaves_the_recording_and_resumes(here, monkeypatch):
    assert call(monkeypatch, *PARAMETERS, "--batches", 2, "--out", "out", "--keep-factors") == 0
    before = files_of("out")
    running = start_and_halt("--extend", "3", "--out", "out")
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130
    assert said.startswith(
        "Interrupted. 3 finished datasets are kept in .out.partial beside the output: the same command"
    )
    assert said.count("\n") == 1
    assert files_of("out") == before
    let_go()
    assert call(monkeypatch, *PARAMETERS, "--extend", 3, "--out", "out") == 0
    assert call(monkeypatch, *PARAMETERS, "--batches", 5, "--out", "whole") == 0
    assert files_of("out", "factors") == files_of("whole")


def test_what_a_mistake_leaves_is_used_or_cleared(here, monkeypatch, capsys):
    change_study("(b, b[:, 4] - b[:, 0])", "(b / (0 if Path('broken').exists() else 1), b[:, 4] - b[:, 0])")
    Path("broken").touch()
    assert call(monkeypatch, *PARAMETERS, "--batches", 3, "--out", "out") == 2
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("Error: The loss of batch 1 of dataset 'last' is")
    assert said[1].startswith("2 finished datasets are kept in .out.partial")
    Path("broken").unlink()
    assert call(monkeypatch, *PARAMETERS, "--batches", 3, "--out", "out") == 0
    assert hidden() == []
    Path("broken").touch()
    assert call(monkeypatch, *PARAMETERS, "--batches", 3, "--out", "other", "--no-resume") == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert hidden() == []


def test_a_run_cut_short_at_its_tables_passes_nothing_again(here, monkeypatch, capsys):
    genuine_write, genuine_pass, passed = measuring.write_tables, Passes._pass, []

    def fail(*_, **__):
        raise UserError("gd_dataset.csv would have undefined cells.")

    monkeypatch.setattr(measuring, "write_tables", fail)
    options = (*PARAMETERS, "--batches", 3, "--keep-means", "--out")
    assert call(monkeypatch, *options, "out") == 2
    assert "3 finished datasets are kept" in capsys.readouterr().err
    monkeypatch.setattr(measuring, "write_tables", genuine_write)
    monkeypatch.setattr(Passes, "_pass", lambda self, *rest: passed.append(1) or genuine_pass(self, *rest))
    assert call(monkeypatch, *options, "out") == 0
    assert not passed
    assert call(monkeypatch, *options, "whole") == 0
    assert files_of("out") == files_of("whole")


def test_memory_only_and_bounded_runs_give_the_same_tables(here, monkeypatch):
    for name, options in {
        "plain": [],
        "memory": ["--no-resume"],
        "bounded": ["--no-resume", "--memory", "300MB"],
    }.items():
        assert call(monkeypatch, *PARAMETERS, "--batches", 4, "--out", name, *options) == 0
    assert files_of("plain") == files_of("memory") == files_of("bounded")


def test_a_plan_writes_nothing(here, monkeypatch, capsys):
    assert call(monkeypatch, *PARAMETERS, "--batches", 4, "--out", "deep/out", "--plan") == 0
    printed = capsys.readouterr().out
    assert "12 batches, 620 parameters" in printed
    assert printed.endswith("fits\n")
    assert call(monkeypatch, *PARAMETERS, "--out", "out", "--plan", "--json", "--memory", "100B") == 0
    assert json.loads(capsys.readouterr().out)["advice"]
    assert call(monkeypatch, "--params", "nothing.*", "--out", "out", "--plan") == 2
    assert {path.name for path in Path().iterdir()} - {"__pycache__"} == {"my_study.py"}


def test_the_geometry_of_adam_has_tables_of_its_own(here, monkeypatch):
    options = ("--batches", 4, "--preconditioner", "adam", "--out", "out")
    assert call(monkeypatch, *PARAMETERS, *options, setup="my_study.py:with_adam") == 0
    plain = {name for name in files_of("out") if "/" not in name and name.endswith((".csv", "interference.json"))}
    assert {path.name for path in Path("out/adam").iterdir()} == {n for n in plain if not n.startswith("scores")}
    recording = tow.Recording.load("out")
    assert recording.metadata["preconditioner"] == "adam"
    scaled = pd.read_csv("out/adam/gd_dataset.csv", index_col=0)
    expected = tow.interference(recording.in_geometry("adam"), resamples=0).gd
    np.testing.assert_allclose(scaled, expected, rtol=1e-12)
    assert abs(scaled - pd.read_csv("out/gd_dataset.csv", index_col=0)).max(axis=None) > 1e-3


def test_a_sketch_states_its_error(here, monkeypatch, capsys):
    assert call(monkeypatch, *PARAMETERS, "--batches", 4, "--sketch", 64, "--out", "out") == 0
    printed = capsys.readouterr().out
    assert (
        "sketched to 64 numbers per part: expected error of an inner product 0.12 of the product of the norms"
        in printed
    )
    assert "as a share of GD's denominator: sum" in printed
    assert "statistics score" not in printed
    assert not list(Path("out").glob("scores*"))


def test_settings_that_change_numbers_stand_in_the_manifest(here, monkeypatch):
    options = ("--factor-dtype", "float16", "--group-blocks", "0,2", "--no-statistics", "--memory", "1GB")
    assert call(monkeypatch, "--batches", 3, *options, "--out", "out") == 0
    metadata = tow.Recording.load("out").metadata
    assert metadata["factor_dtype"] == "float16"
    assert metadata["group_blocks"] == ["0", "2"]
    assert not metadata.keys() & {"memory", "resume", "keep_factors", "preconditioner", "sketch"}
    assert metadata["command"] == (
        "tugofwar gradients --setup my_study.py:setup --params '*' --batches 3 --seed 0 --factor-dtype float16 "
        "--group-blocks 0,2 --no-statistics"
    )
    assert tow.Recording.load("out").statistics is None


def test_the_result_forecasts_batches_and_counts_scores(here, monkeypatch, capsys):
    assert call(monkeypatch, *PARAMETERS, "--batches", 5, "--target-width", 0.5, "--out", "out", "--json") == 0
    content = json.loads(capsys.readouterr().out)
    found = content["target_width"]
    intervals = pd.read_csv("out/gd_dataset_intervals.csv").query("estimator == 'ratio_of_means'")
    trusted = intervals[~intervals["row"].isin(content["sign_uncertain"]["dataset"])]
    widest = (trusted["high"] - trusted["low"]).max()
    assert found["widest_width"] == pytest.approx(widest)
    assert found["batches"] == max(2, int(np.ceil(5 * (widest / 0.5) ** 2)))
    table = pd.read_csv("out/scores_dataset.csv")
    assert content["scores"]["dataset"]["share"] == pytest.approx(table["share"].iloc[-1])
    assert content["scores"]["dataset"]["null_signs"] == pytest.approx(table["null_signs"].iloc[-1])
    assert call(monkeypatch, *PARAMETERS, "--batches", 5, "--target-width", 0.5, "--out", "out") == 0
    text = capsys.readouterr().out
    assert f"no wider than 0.5 need about {found['batches']} batches per dataset" in text
    assert "statistics score over 0.9 between datasets:" in text


def test_a_weight_that_falls_back_is_one_plain_line(here, monkeypatch, capsys):
    change_study("(b, b.sum(1)) for b in x", "(b, b.sum(1), number > 0) for number, b in enumerate(x)")
    change_study(
        "    return torch.nn.functional.mse_loss(model(batch[0])[:, 0], batch[1])",
        "    penalty = (model[0].weight ** 2).sum() if batch[-1] is True else 0\n"
        "    return torch.nn.functional.mse_loss(model(batch[0])[:, 0], batch[1]) + penalty",
    )
    assert call(monkeypatch, *PARAMETERS, "--batches", 3, "--out", "out") == 0
    said = capsys.readouterr().err
    assert said.startswith("Warning: 0.weight: the factors captured at its layer do not reproduce")
    assert said.count("\n") == 1
    assert call(monkeypatch, *PARAMETERS, "--batches", 3, "--out", "out", "--no-resume") == 0
    assert capsys.readouterr().err == said


MISTAKES = [
    (["--preconditioner", "sgd"], "--preconditioner is 'sgd'; the only one is adam"),
    (["--preconditioner", "adam"], "--preconditioner needs second moments, but my_study.py:setup returns none"),
    (["--factor-dtype", "int8"], "--factor-dtype is 'int8'; choose from bfloat16, float16, float32"),
    (["--sketch", "0"], "A sketch has a positive number of dimensions"),
    (["--sketch", "8", "--keep-means"], "--keep-means and --sketch exclude each other"),
    (["--sketch", "8", "--preconditioner", "adam"], "--preconditioner and --sketch exclude each other"),
    (["--no-statistics", "--keep-scores"], "leave --no-statistics out"),
    (["--memory", "lots"], "'lots' is not a size in bytes"),
    (["--target-width", "0"], "--target-width is 0.0; an interval's width is a number over 0"),
    (["--target-width", "nan"], "--target-width is nan"),
    (["--group-blocks", ","], "--group-blocks is empty"),
    (["--group-blocks", "encoder.*"], "encoder.*"),
]


@pytest.mark.parametrize(("options", "sentence"), MISTAKES)
def test_a_mistake_is_one_sentence_and_leaves_nothing(here, monkeypatch, capsys, options, sentence):
    assert call(monkeypatch, *PARAMETERS, "--batches", 3, "--out", "deep/out", *options) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert sentence in printed.err
    assert printed.err.count("\n") == 1
    assert not Path("deep").exists()


@pytest.mark.parametrize(("level", "names", "tasks"), [("dataset", "dataset", "many"), ("task", "first", "task")])
def test_a_name_that_heads_a_column_is_refused_before_anything_is_measured(
    here, monkeypatch, capsys, level, names, tasks
):
    lines = [
        "from my_study import datasets, loss, model",
        f"def named(): return {{'model': model, 'datasets': {{{names!r}: datasets['sum']}}, 'loss': loss,",
        f"                      'tasks': {{{names!r}: {tasks!r}}}}}",
    ]
    Path("named.py").write_text("\n".join(lines))
    assert call(monkeypatch, "--out", "out", "--batches", 3, setup="named.py:named") == 2
    assert f"A {level} is called {level!r}" in capsys.readouterr().err
    assert not Path("out").exists()
