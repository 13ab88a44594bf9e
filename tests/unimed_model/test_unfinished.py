"""An evaluation that is interrupted: what is kept, for whom, and how it goes on."""

import errno
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from unimed_model import evaluation, unfinished
from unimed_model.errors import UserError
from unimed_model.generation import Answerer

from .report_roots import PLANTED, trained, write_root

NAMES = ("mni_vqa", "mni_reg")
KEYS = [("d", str(i)) for i in range(6)]
PLAN = {"run": {"weights": "a"}, "settings": {"split": "test"}, "datasets": {"d": {"samples": 6, "sha256": "b"}}}

ROOT = Path(__file__).parents[2]


def record(i):
    return {"dataset": "d", "id": str(i), "prediction": f"answer {i}"}


def left_after(out, count, plan=PLAN):
    """Leave a journal of so many answers, as an interrupt would."""
    with pytest.raises(KeyboardInterrupt):
        interrupt_after(out, count, plan)
    return out.parent / f".{out.name}.partial"


def interrupt_after(out, count, plan):
    with unfinished.unfinished(out, plan, KEYS, print) as journal:
        journal.append(record(i) for i in range(len(journal.predictions), count))
        raise KeyboardInterrupt


def found_in(out, plan=PLAN, keys=KEYS):
    said = []
    with unfinished.unfinished(out, plan, keys, said.append) as journal:
        return list(journal.predictions), said


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "new" / "evaluation"


def test_it_goes_on_from_there_and_vanishes_at_the_end(out):
    folder = left_after(out, 2)
    assert folder == out.parent / ".evaluation.partial"
    left_after(out, 5)
    predictions, said = found_in(out)
    assert predictions == [f"answer {i}" for i in range(5)]
    assert said == [f"Going on after 5 of 6 answers, kept in {folder}."]
    assert list(out.parent.iterdir()) == []


def test_it_is_its_owner_s_alone(out):
    previous = os.umask(0)
    try:
        folder = left_after(out, 2)
    finally:
        os.umask(previous)
    assert mode(folder) == 0o700
    assert {path.name: mode(path) for path in folder.iterdir()} == dict.fromkeys(
        ("lock", "plan.json", "predictions.jsonl"), 0o600
    )


def test_without_an_answer_nothing_is_left(tmp_path, out):
    left_after(out, 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cut", range(1, 30))
def test_only_a_torn_last_line_is_answered_again(out, cut):
    folder = left_after(out, 4)
    path = folder / "predictions.jsonl"
    content = path.read_bytes()
    last = len(content.splitlines()[-1]) + 1
    path.write_bytes(content[: -min(cut, last)])
    assert found_in(out)[0] == [f"answer {i}" for i in range(3)]


def test_blocks_that_never_reached_the_disk_are_answered_again(out):
    path = left_after(out, 2) / "predictions.jsonl"
    whole = path.read_bytes()
    for tail in (b"\0" * 100, b"\0" * 100 + b"\n", b"{\n"):
        path.write_bytes(whole + tail)
        left_after(out, 3)
        assert len(path.read_bytes().splitlines()) == 3
        assert path.read_bytes().startswith(whole)


@pytest.mark.parametrize(
    ("line", "becomes"),
    [(1, "{"), (1, ""), (1, json.dumps(record(3))), (1, '{"dataset": "d", "id": "1"}'), (3, json.dumps(record(4)))],
)
def test_damage_elsewhere_names_file_and_line(out, line, becomes):
    path = left_after(out, 4) / "predictions.jsonl"
    lines = path.read_text().splitlines()
    lines[line] = becomes
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=re.escape(f"{path}, line {line + 1}")):
        found_in(out)
    assert path.is_file()


def test_answers_of_other_weights_are_thrown_away(out):
    left_after(out, 4)
    predictions, said = found_in(out, {**PLAN, "run": {"weights": "other"}})
    assert predictions == []
    assert "of other weights; the evaluation starts anew" in said[0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"settings": {"split": "val"}}, "the split 'test', not 'val'"),
        ({"datasets": {"e": {"samples": 6, "sha256": "b"}}}, "the datasets d, not e"),
        ({"datasets": {"d": {"samples": 5, "sha256": "b"}}}, "6 samples of d, not 5"),
        ({"datasets": {"d": {"samples": 6, "sha256": "c"}}}, "other samples, prompts or references of d"),
    ],
)
def test_answers_to_other_samples_are_kept_and_said_to_be_in_the_way(out, change, says):
    folder = left_after(out, 4)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(UserError, match=re.escape(f"{folder} holds an unfinished evaluation with {says}")):
        found_in(out, PLAN | change)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("content", "says"), [("{", "is damaged"), ("[]", "another version"), ("{}", "another version")]
)
def test_a_plan_that_cannot_be_read_is_one_sentence(out, content, says):
    folder = left_after(out, 4)
    (folder / "plan.json").write_text(content)
    with pytest.raises(UserError, match=f"{says}.*; remove .*partial to start the evaluation anew"):
        found_in(out)


HOLDING = """
import sys
from pathlib import Path
from unimed_model.unfinished import unfinished

with unfinished(Path(sys.argv[1]), {}, (), print):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the lock is POSIX's")
def test_two_at_once_are_refused(out):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", HOLDING, str(out)], text=True, **pipes) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="Another process is evaluating into"):
            found_in(out)
        other.communicate("go on\n")
    assert other.returncode == 0
    left_after(out, 1)


def test_a_full_disk_keeps_what_was_answered(out, monkeypatch):
    write = os.write

    def full(file, data):
        monkeypatch.setattr(os, "write", nothing_left)
        return write(file, bytes(data)[:10])

    def nothing_left(file, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    def disk_fills():
        with unfinished.unfinished(out, PLAN, KEYS, print) as journal:
            journal.append([record(0), record(1)])
            monkeypatch.setattr(os, "write", full)
            journal.append([record(2), record(3)])

    folder = out.parent / ".evaluation.partial"
    with pytest.raises(OSError, match="No space left") as raised:
        disk_fills()
    assert raised.value.filename == str(folder / "predictions.jsonl")
    assert raised.value.__notes__ == [f"2 answers are kept in {folder}; the same command goes on from there."]
    monkeypatch.setattr(os, "write", write)
    assert found_in(out)[0] == ["answer 0", "answer 1"]


# ------------------------------------------------------------------------------------ the whole evaluation


@contextmanager
def interrupted(after):
    """Inside, Ctrl-C comes when so many batches were answered."""
    answers = Answerer._answered
    done = []

    def answered(self, samples):
        if len(done) == after:
            raise KeyboardInterrupt
        done.append(1)
        return answers(self, samples)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Answerer, "_answered", answered)
        with pytest.raises(KeyboardInterrupt) as raised:
            yield raised


def evaluated(run, root, out, **options):
    return evaluation.evaluate(run, root, out, names=NAMES, limit=7, batch_size=3, quiet=True, **options)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_failure_before_the_first_answer_leaves_nothing_behind(trained, corpus, tmp_path):
    with interrupted(after=0):
        evaluated(trained, corpus, tmp_path / "deep" / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_evaluation_ends_as_one_that_was_not(trained, corpus, tmp_path, capfd):
    evaluated(trained, corpus, tmp_path / "whole")
    for after in (1, 2):
        with interrupted(after=after) as raised:
            evaluated(trained, corpus, tmp_path / "parts")
        assert "the same command goes on from there" in raised.value.__notes__[0]
    assert capfd.readouterr().err == f"Going on after 3 of 14 answers, kept in {tmp_path / '.parts.partial'}.\n"
    evaluated(trained, corpus, tmp_path / "parts")
    assert "Going on after 7 of 14 answers" in capfd.readouterr().err
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    assert {path.name for path in tmp_path.iterdir()} == {"whole", "parts"}


def test_an_earlier_evaluation_stands_until_the_new_one_is_whole(trained, corpus, tmp_path):
    out = tmp_path / "out"
    evaluated(trained, corpus, out)
    before = contents(out)
    with interrupted(after=1):
        evaluated(trained, corpus, out)
    assert contents(out) == before


def test_a_run_that_was_trained_again_is_evaluated_anew(trained, corpus, tmp_path, capfd):
    run = shutil.copytree(trained, tmp_path / "run")
    with interrupted(after=2):
        evaluated(run, corpus, tmp_path / "out")
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config, indent=5))
    evaluated(run, corpus, tmp_path / "out")
    assert "starts anew" in capfd.readouterr().err


def test_restricted_text_is_in_the_private_folder_only(tmp_path, monkeypatch):
    root = write_root(tmp_path / "root")
    assert trained(root, tmp_path / "run", "--quiet") == 0
    out = tmp_path / "out"
    monkeypatch.setattr("unimed_model.scoring.java.missing", lambda: "needs Java")
    with interrupted(after=1):
        evaluation.evaluate(tmp_path / "run", root, out, batch_size=4, quiet=True)
    assert PLANTED in (tmp_path / ".out.partial" / "predictions.jsonl").read_text()
    assert PLANTED not in (tmp_path / ".out.partial" / "plan.json").read_text()
    assert mode(tmp_path / ".out.partial") == 0o700
    evaluation.evaluate(tmp_path / "run", root, out, batch_size=4, quiet=True)
    assert not (tmp_path / ".out.partial").exists()
    assert not any(PLANTED.encode() in content for content in contents(out).values())


# --------------------------------------------------------------------------------------------- real processes


def counting(path):
    """Answer as ever, and note the size of each batch that is begun."""
    answers = Answerer._answered

    def answered(self, samples):
        with path.open("a") as file:
            file.write(f"{len(samples)}\n")
        return answers(self, samples)

    return answered


def main():
    """The real command; the first argument is where batches are noted."""
    from unimed_model.cli_eval import eval_main

    Answerer._answered = counting(Path(sys.argv.pop(1)))
    eval_main()


def command(run, root, out, counts):
    options = ["--datasets", ",".join(NAMES), "--batch-size", "2", "--quiet"]
    code = "from tests.unimed_model.test_unfinished import main; main()"
    return [sys.executable, "-c", code, str(counts), str(run), "--data", str(root), "--out", str(out), *options]


def lines_in(path):
    return path.read_bytes().count(b"\n") if path.is_file() else 0


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX's")
def test_a_killed_evaluation_loses_one_batch_at_most(trained, corpus, tmp_path, monkeypatch, capfd):
    out, counts = tmp_path / "out", tmp_path / "counts"
    journal = tmp_path / ".out.partial" / "predictions.jsonl"
    for wanted in (3, 9):
        process = subprocess.Popen(command(trained, corpus, out, counts), cwd=ROOT, stderr=subprocess.DEVNULL)
        while process.poll() is None and lines_in(journal) < wanted:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    kept = lines_in(journal)
    with monkeypatch.context() as patch:
        patch.setattr(Answerer, "_answered", counting(counts))
        evaluation.evaluate(trained, corpus, out, names=NAMES, batch_size=2, quiet=True)
    assert f"Going on after {kept} of " in capfd.readouterr().err
    assert not journal.parent.exists()
    evaluation.evaluate(trained, corpus, tmp_path / "whole", names=NAMES, batch_size=2, quiet=True)
    assert contents(out) == contents(tmp_path / "whole")
    answers = lines_in(out / "predictions.jsonl")
    asked = sum(map(int, counts.read_text().split()))
    assert answers <= asked <= answers + 2 * 2


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is sent as a POSIX signal")
def test_ctrl_c_says_how_to_go_on(trained, corpus, tmp_path):
    out, journal = tmp_path / "out", tmp_path / ".out.partial" / "predictions.jsonl"
    process = subprocess.Popen(
        command(trained, corpus, out, tmp_path / "counts"),
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    while lines_in(journal) < 4:
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.startswith("Interrupted. ")
    assert f"answers are kept in {journal.parent}; the same command goes on from there." in stderr
    assert "Traceback" not in stderr
    assert lines_in(journal) >= 4


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are POSIX's")
def test_a_disk_that_takes_no_more_is_one_sentence(trained, corpus, tmp_path, capfd):
    import resource

    out, folder = tmp_path / "out", tmp_path / ".out.partial"
    # files may not grow beyond 3,000 bytes: the journal runs into it, as into the end of a disk
    limited = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (3000, 3000))
    started = command(trained, corpus, out, tmp_path / "counts")
    done = subprocess.run(started, cwd=ROOT, capture_output=True, text=True, check=False, preexec_fn=limited)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: File too large")
    assert f"answers are kept in {folder}; the same command goes on from there." in done.stderr
    assert "Traceback" not in done.stderr
    assert not out.exists()
    evaluation.evaluate(trained, corpus, out, names=NAMES, batch_size=2, quiet=True)
    assert "Going on after" in capfd.readouterr().err
