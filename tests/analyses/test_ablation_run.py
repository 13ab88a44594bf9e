"""Running an ablation: which commands, what is run again, what is refused; once with the real commands."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from analyses import ablation_run, launching
from analyses.ablation_runs import Ablation, is_finished, locked
from analyses.ablation_tables import TABLES, table_named
from tugofwar.errors import UserError
from unimed_model.data.corpus import writing
from unimed_model.errors import UserError as SettingsError

# A stand-in for both commands: trains and evaluates in no time, and fails for the arms named in FAIL.
FAKE = """
import json, os, sys
from pathlib import Path
words = sys.argv[1:]
calls = Path(os.environ["CALLS"])
with calls.open("a") as file:
    file.write(json.dumps(words) + "\\n")
if words[0] == "unimed-train":
    run, arm = Path(words[words.index("--out") + 1]), words[words.index("--arm") + 1]
    if arm in os.environ.get("FAIL", "").split(","):
        sys.exit("Error: the loss is nan.")
    run.mkdir(parents=True)
    (run / "run.json").write_text('{"exit_reason": "finished"}')
else:
    folder = Path(words[1]) / "evaluation"
    folder.mkdir()
    for name in ("scores.json", "sample_statistics.parquet"):
        (folder / name).write_text("")
"""


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    """A data root of a few samples: text and pictures, written by the real code."""
    folder = tmp_path_factory.mktemp("small") / "data"
    sizes = {"mni_t1": (32, 16), "mni_yesno": (30, 15)}
    patch = pytest.MonkeyPatch()
    small = (
        (n, write, dict(zip(("train", "test"), sizes[n], strict=True))) for n, write, _ in writing.FOLDERS if n in sizes
    )
    patch.setattr(writing, "FOLDERS", tuple(small))
    writing.write_sample_corpus(folder)
    patch.undo()
    declared = yaml.safe_load((folder / "datasets.yaml").read_text())
    (folder / "datasets.yaml").write_text(yaml.safe_dump([entry for entry in declared if entry["root"] in sizes]))
    return folder


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """Replaces both commands by the stand-in; returns what was called."""
    script, log = tmp_path / "fake.py", tmp_path / "calls.jsonl"
    script.write_text(FAKE)
    monkeypatch.setenv("CALLS", str(log))
    started = subprocess.Popen

    def popen(command, **options):
        return started([sys.executable, str(script), Path(command[0]).name, *command[1:]], **options)

    monkeypatch.setattr(launching.subprocess, "Popen", popen)
    return lambda: [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def asked(root, out, **changes):
    given = {"table": table_named("2a"), "preset": "tiny", "overrides": ("training.steps=2",), "seeds": 2}
    return Ablation(**{**given, "data": root, "out": out, **changes})


def test_every_arm_is_trained_and_evaluated_with_every_seed_by_the_real_commands_lines(root, tmp_path, calls):
    out = tmp_path / "2a"
    ablation = asked(root, out, weights=Path("parts"), feature_cache=Path("cache"))
    assert ablation_run.run(ablation, quiet=True) == []
    assert len(calls()) == 10 * 2 * 2
    run = str(out / "2a-hard" / "seed-1")
    data = ["--data", str(root)]
    assert [
        "unimed-train", "--preset", "tiny", "--arm", "2a-hard", "--set", "training.steps=2", "--set", "seed=1",
        *data, "--out", run, "--weights", "parts", "--feature-cache", "cache", "--quiet",
    ] in calls()  # fmt: skip
    assert ["unimed-eval", run, *data, "--weights", "parts", "--quiet"] in calls()
    record = json.loads((out / "ablation.json").read_text())
    assert (record["table"], record["preset"], record["seeds"]) == ("2a", "tiny", 2)
    assert record["overrides"] == ["training.steps=2"]
    assert record["datasets"] == {"mni_t1": "CLS", "mni_yesno": "QA"}
    assert record["commands"]["2a-hard/seed-1"][0].startswith("unimed-train --preset tiny --arm 2a-hard")


def test_datasets_that_are_not_trained_on_are_not_evaluated(root, tmp_path):
    ablation = asked(root, tmp_path, overrides=("data.datasets=[mni_t1]",))
    _, evaluate = ablation.commands("2a-mlp", 0)
    assert evaluate[evaluate.index("--datasets") + 1] == "mni_t1"
    assert ablation.record()["datasets"] == {"mni_t1": "CLS"}


def test_a_dataset_that_the_data_root_lacks_is_refused_before_anything_runs(root, tmp_path, calls):
    with pytest.raises(SettingsError, match="no dataset 'mni_t2'; the nearest is 'mni_t1'"):
        ablation_run.run(asked(root, tmp_path / "2a", overrides=("data.datasets=[mni_t2]",)), quiet=True)
    assert not (tmp_path / "2a").exists()


def test_what_is_finished_is_not_run_again_and_what_was_trained_only_is_evaluated(root, tmp_path, calls, capsys):
    ablation = asked(root, tmp_path / "2a")
    ablation_run.run(ablation, only="2a-mlp", quiet=True)
    before = len(calls())
    (ablation.folder("2a-mlp", 1) / "evaluation" / "scores.json").unlink()
    (ablation.folder("2a-mlp", 1) / "evaluation" / "sample_statistics.parquet").unlink()
    (ablation.folder("2a-mlp", 1) / "evaluation").rmdir()
    ablation_run.run(ablation, only="2a-mlp")
    assert [words[0] for words in calls()[before:]] == ["unimed-eval"]
    assert "1 of 2 runs are finished already" in capsys.readouterr().err
    ablation_run.run(ablation, only="2a-mlp")
    assert len(calls()) == before + 1


def test_a_run_that_was_being_written_when_it_was_killed_is_not_finished(tmp_path):
    (tmp_path / "run.json").write_text('{"exit_rea')
    assert not is_finished(tmp_path)


def test_a_failed_arm_does_not_stop_the_others_and_is_told_at_the_end(root, tmp_path, calls, monkeypatch, capsys):
    monkeypatch.setenv("FAIL", "2a-linear")
    failed = ablation_run.run(asked(root, tmp_path / "2a", seeds=1), only="2a-linear,2a-mlp,2a-hard")
    assert [outcome.job.name for outcome in failed] == ["2a-linear seed 0"]
    said = capsys.readouterr().err.splitlines()
    assert said[-2] == "1 of 3 runs failed:"
    assert "2a-linear seed 0: failed" in said[-1]
    assert "Error: the loss is nan." in said[-1]
    assert [words[0] for words in calls()].count("unimed-eval") == 2
    monkeypatch.setenv("FAIL", "")
    assert ablation_run.run(asked(root, tmp_path / "2a", seeds=1), only="2a-linear", quiet=True) == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"overrides": ("training.steps=3",)}, "training.steps: 2 there, 3 asked for"),
        ({"table": table_named("2c")}, "table: 2a there, 2c asked for"),
        ({"seeds": 1}, "2 seeds, and 1 are asked for"),
        ({"weights": Path("other")}, r"weights: None there, .*other asked for"),
    ],
)
def test_other_settings_in_the_same_folder_are_refused_by_name(root, tmp_path, calls, changes, reason):
    out = tmp_path / "2a"
    ablation_run.run(asked(root, out), only="2a-mlp", quiet=True)
    before = (out / "ablation.json").read_text(), len(calls())
    with pytest.raises(UserError, match=reason):
        ablation_run.run(asked(root, out, **changes), quiet=True)
    assert ((out / "ablation.json").read_text(), len(calls())) == before


def test_more_seeds_are_added(root, tmp_path, calls):
    ablation_run.run(asked(root, tmp_path / "2a", seeds=1), only="2a-mlp", quiet=True)
    ablation_run.run(asked(root, tmp_path / "2a", seeds=3), only="2a-mlp", quiet=True)
    assert json.loads((tmp_path / "2a" / "ablation.json").read_text())["seeds"] == 3
    assert len(calls()) == 2 * 3


def test_a_folder_that_holds_something_else_is_left_alone(root, tmp_path, calls):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds no ablation\.json"):
        ablation_run.run(asked(root, tmp_path / "notes"), quiet=True)


def test_two_at_a_time_in_one_folder_are_refused(root, tmp_path, calls):
    out = tmp_path / "2a"
    with locked(out), pytest.raises(UserError, match="Another process works in"):
        ablation_run.run(asked(root, out), quiet=True)
    assert ablation_run.run(asked(root, out, seeds=1), only="2a-mlp", quiet=True) == []


def test_an_arm_that_the_preset_cannot_have_is_refused_before_anything_runs(root, tmp_path, calls):
    with pytest.raises(UserError, match="The arm 2d-rank-4-mlp cannot be run so: Preset tiny"):
        ablation_run.run(asked(root, tmp_path / "2d", table=table_named("2d")), quiet=True)
    assert not (tmp_path / "2d").exists()


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("preset", ["tiny", "small", "paper"])
def test_every_arm_of_every_table_can_be_asked_for_at_every_size(root, tmp_path, name, preset):
    frozen = ("llm.trainable=false",) if preset == "tiny" and name in ("2d", "2e") else ()
    table = table_named(name)
    # the paper's preset names the paper's datasets, which the small root does not have
    everything = ("data.datasets=null",)
    asked(root, tmp_path, table=table, preset=preset, overrides=(*frozen, *everything)).check(table.rows)


def command(*words, **options):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "analyses.ablation", *map(str, words)],
        capture_output=True,
        text=True,
        env=environment,
        **options,
    )


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--table", "2f"], "no ablation table '2f'; the nearest is '2"),
        (["--preset", "tinny"], "no preset 'tinny'; the nearest is 'tiny'"),
        (["--only", "2a-hart"], "no arm '2a-hart'; the nearest is '2a-hard'"),
        (["--set", "training.stepps=3"], "the nearest valid key is 'training.steps'"),
        (["--set", "seed=4"], "the seeds of an ablation are"),
        (["--seeds", "0"], "at least 1 run"),
        (["--engine", "slurm"], "no engine 'slurm'"),
        (["--slurm", "gpus_per_node=1"], "are for --engine submitit"),
        (["--data", "no/such/folder"], "no/such/folder"),
    ],
)
def test_mistakes_are_one_sentence_and_status_2(root, tmp_path, words, reason):
    given = {"--table": "2a", "--preset": "tiny", "--data": str(root), "--out": str(tmp_path / "out")}
    done = command("run", *(word for pair in given.items() for word in pair), *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: ")
    assert len(done.stderr.splitlines()) == 1
    assert reason in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("module", ["ablation", "comparison"])
def test_help_is_there_before_anything_heavy_is(module):
    code = (
        f"import sys, runpy; sys.argv = ['x', '--help']\n"
        f"try: runpy.run_module('analyses.{module}', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'transformers', 'pandas', 'pyarrow', 'matplotlib', 'submitit'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "Usage" in done.stdout


def test_tables_need_no_torch(tmp_path):
    code = (
        "import sys, analyses.ablation_table, analyses.comparison_table, analyses.ablation_run, analyses.cluster\n"
        "print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


QUICK = {
    "--table": "2a",
    "--preset": "tiny",
    "--seeds": "2",
    "--only": "2a-mlp,2a-soft-token-task",
}
SETTINGS = ["training.steps=6", "training.warmup_steps=2", "training.batch_size=2", "tokenizer.vocabulary=300"]


@pytest.mark.slow
def test_two_arms_and_two_seeds_with_the_real_commands(root, tmp_path):
    out = tmp_path / "2a"
    words = [word for pair in QUICK.items() for word in pair]
    words += [word for setting in SETTINGS for word in ("--set", setting)]
    words += ["--data", root, "--out", out]
    # interrupted early, then taken up again
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    first = subprocess.Popen(
        [sys.executable, "-m", "analyses.ablation", "run", *map(str, words)],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    deadline = time.monotonic() + 120
    while not (out / "2a-mlp" / "seed-1").exists() and time.monotonic() < deadline:
        assert first.poll() is None
        time.sleep(0.1)
    first.send_signal(signal.SIGINT)
    _, said = first.communicate(timeout=120)
    assert first.returncode == 130
    assert "the same command goes on with the others" in said
    again = command("run", *words, "--jobs", 2)
    assert again.returncode == 0, again.stderr
    assert "2a-soft-token-task seed 1: done in" in again.stderr
    table = command("table", out)
    assert table.returncode == 0, table.stderr
    rows = [line for line in table.stdout.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 10
    done = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows[2:]]
    finished = {row[3]: row for row in done if row[4] == "2"}
    assert set(finished) == {"2a-mlp", "2a-soft-token-task"}
    assert all("±" in row[5] and "[" in row[5] for row in finished.values())
    assert int(finished["2a-mlp"][-1].replace(",", "")) < int(finished["2a-soft-token-task"][-1].replace(",", ""))
    compared = command("compare", out, "2a-soft-token-task", "2a-mlp", "--format", "csv")
    assert compared.returncode == 0, compared.stderr
    assert len(compared.stdout.splitlines()) == 3
    runs = ",".join(str(out / "2a-mlp" / f"seed-{seed}") for seed in range(2))
    words = [sys.executable, "-m", "analyses.comparison", "table", "--layout", "3", f"mlp={runs}"]
    models = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "| CLS  | mni_t1  | Accuracy |" in models.stdout
    nothing = command("run", *words_of(out, root))
    assert nothing.returncode == 0
    assert "4 of 4 runs are finished already" in nothing.stderr
    record = yaml.safe_load((out / "ablation.json").read_text())
    assert record["settings"]["training"]["steps"] == 6


def words_of(out, root):
    words = [word for pair in QUICK.items() for word in pair]
    return [*words, *(word for s in SETTINGS for word in ("--set", s)), "--data", root, "--out", out]
