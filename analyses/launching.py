"""Many runs, a few at a time: one interface for processes here and for jobs on a cluster (``analyses.cluster``).

A job is a list of commands, one after the other, with one log. What is interrupted is asked to stop with SIGTERM, upon
which ``unimed-train`` keeps its state; the same job, started again, goes on there.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import NoReturn, Protocol

from tugofwar.errors import UserError

POLL = 0.1
"""Seconds between looks at what runs."""
GRACE = 300.0
"""Seconds that an interrupted process may take to keep its state, before it is killed."""

ERROR = re.compile(r"(\w+\.)*\w*(Error|Exception)\b.*")
"""The line that says what was wrong, in our own words or at the end of a traceback."""


@dataclass(frozen=True)
class Job:
    """What is to be run: commands one after the other until one fails, and the log that all of them write to."""

    name: str
    commands: tuple[tuple[str, ...], ...]
    log: Path


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        job: the job.
        status: exit status of its last command; negative for the signal that ended it.
        seconds: how long it took.
        last_line: the error it ended with, or else the last line it wrote; empty when all went well.
    """

    job: Job
    status: int
    seconds: float
    last_line: str = ""

    @property
    def well(self) -> bool:
        """Whether every command succeeded."""
        return self.status == 0


class Engine(Protocol):
    """Where jobs run."""

    def run(self, jobs: Sequence[Job]) -> Generator[Outcome, None, None]:
        """Run all jobs and yield how each ended, in the order in which they end.

        Closing the generator, or an exception in it, ends every job that still runs.
        """


def launch(jobs: Sequence[Job], engine: Engine, quiet: bool = False) -> list[Outcome]:
    """Run jobs and say on stderr how each ended, a line per job.

    Args:
        jobs: what to run.
        engine: where.
        quiet: say nothing.

    Returns:
        The outcomes, in the order in which the jobs ended.

    Raises:
        KeyboardInterrupt: Ctrl-C, SIGTERM or SIGHUP, after every job was ended; its note says how many are done.
    """
    outcomes: list[Outcome] = []
    try:
        with stop_signals_interrupt(), closing(engine.run(jobs)) as ending:
            for outcome in ending:
                outcomes.append(outcome)
                if not quiet:
                    print(f"[{len(outcomes)}/{len(jobs)}] {told(outcome)}", file=sys.stderr, flush=True)
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(f"{len(outcomes)} of {len(jobs)} jobs are done; the same command goes on with the others.")
        raise
    return outcomes


def told(outcome: Outcome) -> str:
    """Return one line about a job's end."""
    duration = f"{outcome.seconds:.0f} s" if outcome.seconds < 120 else f"{outcome.seconds / 60:.1f} min"
    if outcome.well:
        return f"{outcome.job.name}: done in {duration}"
    how = f"exit status {outcome.status}"
    if outcome.status < 0:
        how = f"ended by {signal.Signals(-outcome.status).name}"
    said = f": {outcome.last_line}" if outcome.last_line else ""
    return f"{outcome.job.name}: failed after {duration} ({how}){said} (log: {outcome.job.log})"


@contextmanager
def stop_signals_interrupt() -> Iterator[None]:
    """Inside, SIGTERM and SIGHUP do what Ctrl-C does, so that no child is left behind.

    Outside the main thread Python lets nobody listen, and nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    signals = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Running:
    """A job at work: its commands are started one after the other, in sessions of their own.

    Args:
        job: the job.
        environment: variables set for its commands, beside the present ones.
        inherited: open file descriptors that the commands keep open.
    """

    def __init__(self, job: Job, environment: Mapping[str, str], inherited: Sequence[int] = ()) -> None:
        self.job = job
        self._environment = {**os.environ, **environment, "PYTHONUNBUFFERED": "1"}
        self._inherited = tuple(inherited)
        self._left = list(job.commands)
        self._started = time.monotonic()
        job.log.parent.mkdir(parents=True, exist_ok=True)
        self._log_start = job.log.stat().st_size if job.log.exists() else 0
        self._process = self._next()

    def outcome(self) -> Outcome | None:
        """Return how the job ended; None while it runs. A command that succeeded is followed by the next one."""
        status = self._process.poll()
        if status is None:
            return None
        if status == 0 and self._left:
            self._process = self._next()
            return None
        seconds = time.monotonic() - self._started
        return Outcome(self.job, status, seconds, "" if status == 0 else self._last_line())

    def ask_to_stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal to the command at work; none is started after it."""
        self._left = []
        self._process.send_signal(number)

    def wait_until_stopped(self, seconds: float) -> None:
        """Give the command at work some time to end, then kill it with all its children."""
        deadline = time.monotonic() + seconds
        while not self._ended() and time.monotonic() < deadline:
            time.sleep(POLL)
        self.kill()

    def kill(self) -> None:
        """End the command at work, and all processes of its session, at once."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def reap(self) -> None:
        """Take note of the end of a command that was killed."""
        self._process.wait()

    def _ended(self) -> bool:
        # Looks without reaping: this may run in a signal handler, inside Popen's own wait.
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        try:
            return os.waitid(os.P_PID, self._process.pid, flags) is not None
        except ChildProcessError:
            return True

    def _next(self) -> "subprocess.Popen[bytes]":
        command = self._left.pop(0)
        with self.job.log.open("ab") as log:
            log.write(f"$ {shlex.join(command)}\n".encode())
            log.flush()
            return subprocess.Popen(
                [executable(command[0]), *command[1:]],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
                pass_fds=self._inherited,
            )

    def _last_line(self) -> str:
        with self.job.log.open("rb") as log:
            log.seek(self._log_start)
            lines = log.read().decode(errors="replace").splitlines()
        written = [line.strip() for line in lines if line.strip() and not line.startswith("$ ")]
        errors = [line for line in written if ERROR.match(line)]  # notes may stand below it
        return (errors or written or [""])[-1]


def executable(name: str) -> str:
    """Return the program of a command: the one beside this Python, if there is one.

    Raises:
        UserError: there is no such program.
    """
    found = shutil.which(Path(sys.executable).parent / name) or shutil.which(name)
    if found is None:
        raise UserError(f"There is no program {name}; install this package where {sys.executable} finds it.")
    return found


@dataclass(frozen=True)
class LocalEngine:
    """Processes on this machine.

    Attributes:
        processes: jobs at a time; each has its share of the cores (``OMP_NUM_THREADS``), and one of the GPUs in turn.
        inherited: open file descriptors that the jobs keep open, such as that of a lock.
    """

    processes: int = 1
    inherited: tuple[int, ...] = ()
    grace: float = field(default=GRACE, repr=False)

    def run(self, jobs: Sequence[Job]) -> Generator[Outcome, None, None]:
        """See ``Engine``."""
        waiting = list(jobs)
        slots: dict[int, Running] = {}
        try:
            while waiting or slots:
                for slot in range(self.processes):
                    if waiting and slot not in slots:
                        slots[slot] = Running(waiting.pop(0), share(slot, self.processes), self.inherited)
                ended = {slot: end for slot, running in slots.items() if (end := running.outcome())}
                for slot, outcome in ended.items():
                    del slots[slot]
                    yield outcome
                if not ended:
                    time.sleep(POLL)
        finally:
            self._stop(list(slots.values()))

    def _stop(self, running: Sequence[Running]) -> None:
        try:
            for job in running:
                job.ask_to_stop()
            for job in running:
                job.wait_until_stopped(self.grace)
        finally:  # also of a second Ctrl-C, which waits no longer
            for job in running:
                job.kill()
                job.reap()


def share(slot: int, slots: int) -> dict[str, str]:
    """Return the environment of a job in one of several slots: its threads, and its GPU where there are any."""
    environment = {"OMP_NUM_THREADS": str(max(1, cores() // slots))}
    if found := gpus():
        environment["CUDA_VISIBLE_DEVICES"] = found[slot % len(found)]
    return environment


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gpus() -> list[str]:
    """Return the GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip()]
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    listed = subprocess.run([program, "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True)
    return listed.stdout.split() if listed.returncode == 0 else []
