"""Jobs through submitit, on its executors that need no cluster."""

import os
import sys
import textwrap
import time

import psutil
import pytest

from analyses.cluster import SubmititEngine, Work, resources_of
from analyses.launching import Job, launch
from tugofwar.errors import UserError

pytest.importorskip("submitit")
# submitit leaves its logs open, and does not wait for what it cancels
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def job(folder, name, *scripts):
    return Job(name, tuple((sys.executable, "-c", script) for script in scripts), folder / f"{name}.log")


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))


@pytest.mark.parametrize("cluster", ["local", "debug"])
def test_jobs_run_and_fail_as_they_do_here(tmp_path, cluster):
    engine = SubmititEngine(tmp_path / "submitit", {"timeout_min": 5}, cluster)
    jobs = [
        job(tmp_path, "good", "print('fine')", "import os; print('threads', os.environ['OMP_NUM_THREADS'])"),
        job(tmp_path, "bad", "raise SystemExit('Error: not today.')", "print('never')"),
    ]
    outcomes = {outcome.job.name: outcome for outcome in launch(jobs, engine, quiet=True)}
    assert outcomes["good"].well
    assert "threads " in (tmp_path / "good.log").read_text()
    assert (outcomes["bad"].status, outcomes["bad"].last_line) == (1, "Error: not today.")


SAVES = textwrap.dedent("""
    import pathlib, signal, sys, time
    state = pathlib.Path({state!r})
    if state.exists():
        print("went on")
        raise SystemExit
    def save(*_):
        state.write_text("saved")
        sys.exit(0)
    signal.signal(signal.SIGUSR1, save)
    print("ready", flush=True)
    time.sleep(60)
""")


def until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert condition()


def lines(path):
    return path.read_text().splitlines() if path.exists() else []


def test_a_preempted_job_saves_is_queued_again_and_goes_on(tmp_path):
    import submitit

    executor = submitit.AutoExecutor(tmp_path / "submitit", cluster="local")
    executor.update_parameters(timeout_min=5)
    wanted = job(tmp_path, "a", SAVES.format(state=str(tmp_path / "state")), "print('evaluated')")
    handle = executor.submit(Work(wanted, threads=1))
    log = tmp_path / "a.log"
    until(lambda: "ready" in lines(log))
    task = next(pid for pid in children(handle._process.pid) if "submitit.core._submit" in command_of(pid))
    os.kill(task, handle_signal())
    status, _, _ = handle.result()
    assert status == 0
    assert (tmp_path / "state").read_text() == "saved"
    assert [line for line in lines(log) if line in ("ready", "went on", "evaluated")] == [
        "ready",
        "went on",
        "evaluated",
    ]


def handle_signal():
    from submitit.core.job_environment import JobEnvironment

    return JobEnvironment._usr_sig()


def children(parent):
    return [child.pid for child in psutil.Process(parent).children()]


def command_of(pid):
    return " ".join(psutil.Process(pid).cmdline())


def test_closing_ends_what_runs_on_the_cluster(tmp_path):
    engine = SubmititEngine(tmp_path / "submitit", {"timeout_min": 5}, "local", at_once=2)
    sleeper = "import os, time; print('pid', os.getpid(), flush=True); time.sleep(60)"
    running = engine.run([job(tmp_path, "quick", "pass"), job(tmp_path, "slow", sleeper)])
    assert next(running).job.name == "quick"
    until(lambda: any(line.startswith("pid ") for line in lines(tmp_path / "slow.log")))
    pid = next(int(line.split()[1]) for line in lines(tmp_path / "slow.log") if line.startswith("pid "))
    running.close()

    def gone():
        return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE

    until(gone)


def test_a_resource_that_does_not_exist_is_one_sentence_with_the_closest(tmp_path):
    engine = SubmititEngine(tmp_path, {"partitoin": "gpu"}, "local")
    with pytest.raises(UserError, match="no resource 'partitoin'; the closest names are partition"):
        engine.check()


@pytest.mark.parametrize(
    ("resources", "cluster", "reason"),
    [({"gpus_per_node": "two"}, "local", "gpus_per_node"), ({}, "slrm", "slrm")],
)
def test_what_submitit_refuses_is_one_sentence(tmp_path, resources, cluster, reason):
    engine = SubmititEngine(tmp_path / "submitit", resources, cluster)
    with pytest.raises(UserError, match=rf"submitit: .*{reason}"):
        launch([job(tmp_path, "a", "pass")], engine, quiet=True)


def test_resources_are_read_as_yaml():
    assert resources_of(["gpus_per_node=2", "partition=long", "mem_gb=1.5"]) == {
        "gpus_per_node": 2,
        "partition": "long",
        "mem_gb": 1.5,
    }
    with pytest.raises(UserError, match="takes key=value"):
        resources_of(["gpus"])


def test_without_submitit_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match=r"pip install 'tugofwar\[cluster\]'"):
        SubmititEngine(tmp_path).check()
