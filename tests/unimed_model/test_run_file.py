import errno
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from unimed_model.errors import UserError
from unimed_model.run_file import RunFile, facts_of, reason_of
from unimed_model.whole_file import write_whole

from .conftest import tiny_settings

FACTS = {"settings": {"seed": 3}, "datasets": {"slake": 12}}


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def read(folder):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads((folder / "run.json").read_text(), parse_constant=refuse)


def test_a_run_is_running_until_it_says_how_it_ended(tmp_path):
    clock = Clock()
    run = RunFile(tmp_path, FACTS, clock=clock)
    assert read(tmp_path) == {
        "exit_reason": "running",
        **FACTS,
        "resumed_from": [],
        "sessions": [{"from_step": 0, "to_step": 0, "seconds": 0.0, "exit_reason": "running"}],
        "seconds": 0.0,
    }
    clock.now = 12.34
    run.reached(5)
    assert read(tmp_path)["sessions"] == [{"from_step": 0, "to_step": 5, "seconds": 12.3, "exit_reason": "running"}]
    clock.now = 20.0
    run.end("finished", 8, {"realised_mixture": {"slake": 32}, "throughput": {"samples_per_second": 1.6}})
    found = read(tmp_path)
    assert (found["exit_reason"], found["seconds"], found["realised_mixture"]) == ("finished", 20.0, {"slake": 32})
    assert found["sessions"] == [{"from_step": 0, "to_step": 8, "seconds": 20.0, "exit_reason": "finished"}]
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_sessions_of_a_run_that_was_stopped_and_killed_add_up(tmp_path):
    clock = Clock()
    first = RunFile(tmp_path, FACTS, clock=clock)
    clock.now += 10
    first.end("preempted: SIGTERM", 7, {"realised_mixture": {"slake": 28}})
    clock.now += 1e5
    second = RunFile(tmp_path, FACTS, step=7, clock=clock)
    assert "realised_mixture" not in read(tmp_path)
    clock.now += 4
    second.reached(9)  # and is killed
    clock.now += 1e5
    third = RunFile(tmp_path, FACTS, step=9, clock=clock)
    clock.now += 6
    third.end("finished", 20, {})
    found = read(tmp_path)
    assert found["resumed_from"] == [7, 9]
    assert found["seconds"] == 20.0
    assert [tuple(session.values()) for session in found["sessions"]] == [
        (0, 7, 10.0, "preempted: SIGTERM"),
        (7, 9, 4.0, "killed"),
        (9, 20, 6.0, "finished"),
    ]


def test_numbers_that_are_not_finite_are_null(tmp_path):
    RunFile(tmp_path, FACTS).end("finished", 1, {"routing": {"final": {"VQA": [math.nan, 0.5, -math.inf]}}})
    assert read(tmp_path)["routing"]["final"]["VQA"] == [None, 0.5, None]


def test_a_damaged_earlier_file_is_one_sentence(tmp_path):
    (tmp_path / "run.json").write_text('{"settings": {')
    with pytest.raises(UserError, match=r"run\.json"):
        RunFile(tmp_path, FACTS)


@pytest.mark.parametrize("at", ["fsync", "replace"])
@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError(errno.ENOSPC, "No space left on device")])
def test_what_fails_while_it_is_written_leaves_what_stood_there(tmp_path, monkeypatch, at, stop):
    path = tmp_path / "run.json"
    write_whole(path, b"old")

    def fail(*_):
        raise stop

    monkeypatch.setattr(*((os, "fsync") if at == "fsync" else (Path, "replace")), fail)
    with pytest.raises((KeyboardInterrupt, OSError)):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
def test_a_kill_at_any_moment_leaves_a_whole_file(tmp_path):
    write_whole(tmp_path / "run.json", b"0" * 100_000)
    program = (
        "import importlib.util, sys, pathlib, itertools\n"
        "spec = importlib.util.spec_from_file_location('whole_file', sys.argv[1])\n"
        "module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module)\n"
        "print('ready', flush=True)\n"
        "for number in itertools.cycle('123456789'):\n"
        "    module.write_whole(pathlib.Path(sys.argv[2]), number.encode() * 100_000)\n"
    )
    source = sys.modules[write_whole.__module__].__file__
    rng, seen = random.Random(0), set()
    for _ in range(12):
        command = [sys.executable, "-c", program, source, str(tmp_path / "run.json")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "ready\n"
            time.sleep(rng.uniform(0.001, 0.03))
            process.send_signal(signal.SIGKILL)
        content = (tmp_path / "run.json").read_bytes()
        assert len(content) == 100_000
        assert len(set(content)) == 1
        seen.add(content[:1])
    assert len(seen) > 1
    write_whole(tmp_path / "run.json", b"new")  # takes the place of whatever the killed ones left
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def chained(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (KeyboardInterrupt(), "interrupted"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk full"),
        (RuntimeError("SafetensorError: I/O error: No space left on device (os error 28)"), "disk full"),
        (chained(UserError("The checkpoint cannot be written."), OSError(errno.ENOSPC, "full")), "disk full"),
        (MemoryError(), "out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out of memory"),
        (UserError("The loss is nan at step 3 on slake."), "stopped: The loss is nan at step 3 on slake."),
        (ValueError("the report of patient 7"), "failed: ValueError"),
    ],
)
def test_the_reason_is_said_in_a_few_words_that_quote_no_data(error, reason):
    assert reason_of(error) == reason


def test_facts_tell_the_run_from_others(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/unimed-train", "--preset", "tiny"])
    model = torch.nn.ModuleDict({"encoder": torch.nn.Linear(3, 4), "connector": torch.nn.Linear(4, 5)})
    model["encoder"].requires_grad_(False)
    settings = tiny_settings("seed=5")
    facts = facts_of(
        settings,
        model,
        datasets={"slake": 12},
        skipped={"slake": {"missing image": 2}},
        data={"slake": {"sha256": "ab"}},
        device=torch.device("cpu"),
        world_size=2,
    )
    assert json.loads(json.dumps(facts)) == facts
    assert (facts["seed"], facts["settings"]["training"]["steps"]) == (5, 4)
    assert facts["command"] == ["unimed-train", "--preset", "tiny"]
    assert facts["parameters"] == {"encoder": 16, "connector": 25}
    assert facts["trained_parameters"] == {"encoder": 0, "connector": 25}
    assert facts["hardware"]["world_size"] == 2
    assert facts["versions"]["torch"] == torch.__version__
