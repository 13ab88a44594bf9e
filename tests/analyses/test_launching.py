import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from analyses.launching import Job, LocalEngine, cores, gpus, launch, share, told
from tugofwar.errors import UserError


def job(folder, name, *scripts):
    return Job(name, tuple((sys.executable, "-c", script) for script in scripts), folder / f"{name}.log")


def test_commands_of_a_job_run_one_after_the_other_into_one_log(tmp_path):
    (outcome,) = launch([job(tmp_path, "a", "print('one')", "print('two')")], LocalEngine(), quiet=True)
    assert outcome.well
    lines = (tmp_path / "a.log").read_text().splitlines()
    assert [line for line in lines if not line.startswith("$ ")] == ["one", "two"]


def test_a_failed_job_says_its_error_runs_nothing_further_and_stops_no_other(tmp_path, capsys):
    says = "import sys; print('Error: no such arm.', file=sys.stderr); print('a note', file=sys.stderr); sys.exit(2)"
    outcomes = launch([job(tmp_path, "bad", says, "print('never')"), job(tmp_path, "good", "print()")], LocalEngine())
    assert {outcome.job.name: (outcome.status, outcome.last_line) for outcome in outcomes} == {
        "bad": (2, "Error: no such arm."),
        "good": (0, ""),
    }
    assert "never" not in (tmp_path / "bad.log").read_text().replace(repr("never"), "")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("[1/2] bad: failed after")
    assert "(exit status 2): Error: no such arm." in lines[0]
    assert lines[1].startswith("[2/2] good: done in")


def test_of_a_traceback_with_a_note_below_it_the_error_is_told(tmp_path):
    fails = "error = ValueError('no such thing'); error.add_note('all is kept'); raise error"
    (outcome,) = launch([job(tmp_path, "a", fails)], LocalEngine(), quiet=True)
    assert outcome.last_line == "ValueError: no such thing"


def test_the_last_line_is_of_this_attempt_not_of_an_earlier_one(tmp_path):
    (tmp_path / "a.log").write_text("Error: of yesterday\n")
    (outcome,) = launch([job(tmp_path, "a", "raise SystemExit(3)")], LocalEngine(), quiet=True)
    assert (outcome.status, outcome.last_line) == (3, "")


def test_a_job_that_a_signal_ended_says_which(tmp_path):
    (outcome,) = launch([job(tmp_path, "a", "import os; os.kill(os.getpid(), 9)")], LocalEngine(), quiet=True)
    assert "ended by SIGKILL" in told(outcome)


def test_a_program_that_does_not_exist_ends_everything_with_one_sentence(tmp_path):
    missing = Job("a", (("no-such-program-at-all",),), tmp_path / "a.log")
    with pytest.raises(UserError, match="There is no program no-such-program-at-all"):
        launch([missing], LocalEngine(), quiet=True)


def test_as_many_jobs_run_at_a_time_as_asked_for(tmp_path):
    script = textwrap.dedent(f"""
        import pathlib, time
        folder = pathlib.Path({str(tmp_path)!r})
        mine = folder / f"{{time.monotonic_ns()}}.running"
        mine.touch()
        time.sleep(0.4)
        print("at once:", len(list(folder.glob("*.running"))))
        mine.unlink()
    """)
    launch([job(tmp_path, str(number), script) for number in range(4)], LocalEngine(2), quiet=True)
    most = [int(path.read_text().rsplit("at once:", 1)[1]) for path in tmp_path.glob("*.log")]
    assert max(most) == 2


def test_threads_and_gpus_are_shared_out(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert gpus() == ["4", "7"]
    assert [share(slot, 3)["CUDA_VISIBLE_DEVICES"] for slot in range(3)] == ["4", "7", "4"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert share(0, 1) == {"OMP_NUM_THREADS": str(cores())}
    assert share(0, 10**6) == {"OMP_NUM_THREADS": "1"}
    launch(
        [job(tmp_path, "a", "import os; print('threads', os.environ['OMP_NUM_THREADS'])")], LocalEngine(), quiet=True
    )
    assert (tmp_path / "a.log").read_text().rstrip().endswith(f"threads {cores()}")


CHILD = """
import os, pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path(sys.argv[1]).write_text("saved"), sys.exit(0)))
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print("pid", os.getpid(), grandchild.pid, flush=True)
time.sleep(60)
"""
PARENT = """
import sys
from pathlib import Path
from analyses.launching import Job, LocalEngine, launch
from tugofwar import terminal
folder = Path(sys.argv[1])
jobs = [Job(n, ((sys.executable, "-c", sys.argv[2], str(folder / f"{n}.saved")), ("false",)), folder / f"{n}.log")
        for n in "abc"]
terminal.run(lambda: launch(jobs, LocalEngine(2)), ())
"""


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_lets_children_save_and_leaves_none_behind(tmp_path, number):
    command = [sys.executable, "-c", PARENT, str(tmp_path), CHILD]
    parent = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    pids, deadline = [], time.monotonic() + 20
    while len(pids) < 4 and time.monotonic() < deadline:
        time.sleep(0.1)
        lines = [line for path in tmp_path.glob("*.log") for line in path.read_text().splitlines()]
        pids = [
            int(pid) for line in lines if line.startswith("pid ") and len(line.split()) == 3 for pid in line.split()[1:]
        ]
    assert len(pids) == 4
    parent.send_signal(number)
    _, said = parent.communicate(timeout=20)
    assert parent.returncode == 130
    assert "0 of 3 jobs are done; the same command goes on with the others." in said
    assert (tmp_path / "a.saved").read_text() == (tmp_path / "b.saved").read_text() == "saved"
    assert not (tmp_path / "c.log").exists()
    deadline = time.monotonic() + 5
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, pids))


def test_a_child_that_does_not_stop_is_killed_after_its_grace(tmp_path):
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    engine = LocalEngine(2, grace=0.3)
    running = engine.run([job(tmp_path, "quick", "pass"), job(tmp_path, "deaf", deaf)])
    assert next(running).job.name == "quick"
    deadline = time.monotonic() + 10
    while "up" not in (tmp_path / "deaf.log").read_text().splitlines() and time.monotonic() < deadline:
        time.sleep(0.05)
    started = time.monotonic()
    running.close()
    assert time.monotonic() - started < 5
