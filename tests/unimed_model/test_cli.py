"""The real commands, most of them in a subprocess: what they print, where, and how they end."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tugofwar.cli import main as tugofwar_main
from unimed_model.cli import train_main
from unimed_model.data import discover

from .report_roots import command as call

BIN = Path(sys.executable).parent
SHORT = ["--set", "training.steps=2", "--set", "training.warmup_steps=1", "--set", "training.batch_size=2"]


def run(*command, **kwargs):
    return subprocess.run(
        [BIN / command[0], *map(str, command[1:])], capture_output=True, text=True, check=False, **kwargs
    )


def run_here(capfd, main, *command):
    """The same command in this process, which has torch already: mistakes are many, and it takes seconds to import."""
    status = call(main, *command)
    printed = capfd.readouterr()
    return subprocess.CompletedProcess(command, status, printed.out, printed.err)


def refused(done, says):
    """One sentence on stderr, status 2, no traceback, nothing on stdout."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert says in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert sum(line.startswith("Error: ") for line in lines) == 1
    assert done.stdout == ""


@pytest.mark.parametrize("command", ["tugofwar", "unimed-train", "unimed-eval", "unimed-data"])
def test_help_and_version_are_printed(command):
    """That they are quick follows from what is not imported (tests/test_rooms.py)."""
    assert run(command, "--help").returncode == 0
    assert run(command, "--version").stdout.split()[-1][0].isdigit()


def test_print_config_shows_the_resolved_whole():
    import yaml

    from unimed_model.presets import resolve

    done = run("unimed-train", "--preset", "tiny", "--set", "connector.kind=mlp", "--print-config")
    assert yaml.safe_load(done.stdout) == resolve("tiny", ["connector.kind=mlp"]).model_dump(mode="json")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--preset", "tinny"], "There is no preset 'tinny'; the nearest is 'tiny'"),
        (["--set", "connector.knd=mlp"], "unknown key 'connector.knd'; the nearest valid key is 'connector.kind'"),
        (["--set", "training.steps=many"], "'training.steps'"),
        ([], "--data ROOT and --out RUN"),
        (["--data", "/nowhere/at/all", "--out", "x"], "/nowhere/at/all does not exist"),
    ],
)
def test_mistakes_in_training_end_with_one_sentence(arguments, says, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    more = [] if arguments else ["--set", "seed=0"]
    refused(run_here(capfd, train_main, "--quiet", *arguments, *more), says)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_from_raw_files_to_scores(corpus, tmp_path):
    """Train, evaluate, measure and draw, each by its command, on a corpus with a text-only dataset beside it."""
    root = shutil.copytree(corpus, tmp_path / "data")
    _write_pubmedqa(root / "pubmedqa")
    out = tmp_path / "run"
    done = run("unimed-train", "--preset", "tiny", *SHORT, "--data", root, "--out", out, "--quiet")
    assert (done.returncode, done.stdout) == (0, f"{out}: trained\n"), done.stderr
    again = run("unimed-train", "--preset", "tiny", *SHORT, "--data", root, "--out", out)
    assert "already trained" in again.stdout
    # METEOR's program takes seconds to start, for every dataset of reports and each of its baselines
    no_java = {**os.environ, "PATH": str(tmp_path)}
    evaluated = run("unimed-eval", out, "--data", root, "--limit", 3, "--json", "--quiet", env=no_java)
    assert evaluated.returncode == 0, evaluated.stderr
    scores = json.loads(evaluated.stdout)
    assert set(scores["mni_rec"]["baselines"]) == {
        "mean box",
        "mean box of the object",
        "mean box of object and plane",
    }
    assert set(scores["mni_t1"]["baselines"]) == {"majority class", "thumbnail neighbour"}
    measured = run("tugofwar", "gradients", "--ckpt", out, "--data", root, "--batches", 3, "--batch-size", 2, "--quiet")
    assert measured.returncode == 0, measured.stderr
    text_alone = {source.name for source in discover(root) if source.task == "QA"}
    assert "pubmedqa" in text_alone
    (line,) = (line for line in measured.stdout.splitlines() if line.startswith("not touching connector.*: "))
    assert set(line.partition(": ")[2].split(", ")) == text_alone
    for path in (out / "gradients").glob("*.csv"):
        text = path.read_text()
        assert "nan" not in text.lower()
        assert ",," not in text
        assert "pubmedqa" not in text
    assert set(json.loads((out / "gradients" / "manifest.json").read_text())["untouched"]) == text_alone
    drawn = run("tugofwar", "figures", out, "--out", tmp_path / "figures")
    assert drawn.returncode == 0, drawn.stderr
    assert {p.suffix for p in (tmp_path / "figures").iterdir()} >= {".png", ".pdf"}


def _write_pubmedqa(folder):
    folder.mkdir()
    record = {
        "QUESTION": "Does it help?",
        "CONTEXTS": ["a"],
        "LABELS": ["A"],
        "MESHES": [],
        "YEAR": None,
        "reasoning_required_pred": "yes",
        "reasoning_free_pred": "yes",
        "final_decision": "yes",
        "LONG_ANSWER": "b",
    }
    (folder / "ori_pqal.json").write_text(json.dumps({str(90000000 + i): record for i in range(30)}))
    (folder / "test_ground_truth.json").write_text(json.dumps({str(90000000 + i): "yes" for i in range(10)}))


def test_equal_seeds_give_equal_bytes(trained, corpus, tmp_path):
    for name in ("a", "b"):
        done = run(
            "tugofwar",
            "gradients",
            "--ckpt",
            trained,
            "--data",
            corpus,
            "--out",
            tmp_path / name,
            "--batches",
            3,
            "--batch-size",
            2,
            "--quiet",
        )
        assert done.returncode == 0, done.stderr
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "b").iterdir())
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (["--batches", "500"], "training samples, enough for"),
        (["--datasets", "mni_tq"], "offers no dataset 'mni_tq'; the nearest is 'mni_t1'"),
        (["--params", "conector.*"], "conector.*"),
        (["--data", "/nowhere/at/all"], "/nowhere/at/all does not exist"),
        (["--ckpt", "/nowhere/at/all"], "/nowhere/at/all"),
    ],
)
def test_mistakes_in_measuring_end_with_one_sentence(trained, corpus, tmp_path, change, says, capfd):
    arguments = {"--ckpt": trained, "--data": corpus, "--out": tmp_path / "out", "--batches": 2, "--batch-size": 2}
    arguments[change[0]] = change[1]
    flat = [part for pair in arguments.items() for part in pair]
    refused(run_here(capfd, tugofwar_main, "gradients", "--quiet", *flat), says)
    assert list(tmp_path.iterdir()) == []


def test_with_replacement_only_when_asked(trained, corpus, tmp_path):
    base = [
        "tugofwar",
        "gradients",
        "--ckpt",
        trained,
        "--data",
        corpus,
        "--out",
        tmp_path / "out",
        "--quiet",
        "--datasets",
        "mni_caption,mni_t1",
        "--batches",
        10,
    ]
    refused(run(*base), "mni_caption has 12 training samples, enough for 3 batches of 4, but 10 were asked for")
    done = run(*base, "--with-replacement")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("cut", [0.5, 0.95])
def test_a_truncated_image_is_named(trained, corpus, tmp_path, cut, capfd):
    root = shutil.copytree(corpus, tmp_path / "data")
    for path in (root / "mni_slake").rglob("source.jpg"):
        path.write_bytes(path.read_bytes()[: int(cut * path.stat().st_size)])
    places = ("--data", root, "--out", tmp_path / "out", "--quiet")
    training = run_here(capfd, train_main, *SHORT, *places, "--set", "data.datasets=[mni_rec]")
    refused(training, "source.jpg")
    probing = ("--ckpt", trained, *places, "--datasets", "mni_rec", "--batches", 2)
    refused(run_here(capfd, tugofwar_main, "gradients", *probing), "source.jpg")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full to stand for a full disk")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_is_one_sentence(unbuffered):
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    command = [BIN / "unimed-train", "--print-config"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=environment)
    assert done.returncode == 2
    assert "disk is full" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="a closed pipe is told by POSIX")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_leaves_early_is_no_error(unbuffered):
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    process = subprocess.Popen(
        [BIN / "unimed-train", "--arms"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    process.stdout.close()
    assert process.stderr.read() == ""
    process.wait(timeout=60)
    process.stderr.close()
