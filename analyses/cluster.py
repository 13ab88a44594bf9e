"""Jobs on a cluster, through submitit: Slurm where it is found, or processes of submitit's own (``local``, ``debug``).

A job that is preempted, or out of time, is asked to keep its state (SIGUSR1) and queued again; it goes on there.
"""

import signal
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from analyses.launching import POLL, Job, Outcome, Running, cores
from tugofwar.errors import UserError
from tugofwar.naming import closest

if TYPE_CHECKING:
    from submitit import AutoExecutor
    from submitit.helpers import DelayedSubmission

LONGEST_MINUTES = 24 * 60
"""Time limit of a job that ``timeout_min`` gives none: submitit's own is five minutes."""
REQUEUES = 1000
"""How often a job may run out of time; each time it goes on where it was."""
SAVING = 60.0
"""Seconds that a preempted job may take to keep its state."""
NOT_HERE = 75
"""Status of a job of which the cluster brought no result, such as one that was cancelled."""


class Work:
    """A job as submitit calls it, on whatever machine: returns its exit status, seconds and last line.

    Args:
        job: the job.
        threads: for ``OMP_NUM_THREADS``; None: as many as there are cores where it runs.
    """

    def __init__(self, job: Job, threads: int | None) -> None:
        self.job = job
        self.threads = threads
        self._running: Running | None = None

    def __call__(self) -> tuple[int, float, str]:
        """Run the commands; what ends this process ends them too."""
        self._running = Running(self.job, {"OMP_NUM_THREADS": str(self.threads or cores())})
        try:
            while (outcome := self._running.outcome()) is None:
                time.sleep(POLL)
        except BaseException:
            self._running.ask_to_stop()
            raise
        return outcome.status, outcome.seconds, outcome.last_line

    def checkpoint(self) -> "DelayedSubmission":
        """Have the command at work keep its state, and return what is queued again; submitit calls this."""
        from submitit.helpers import DelayedSubmission

        if self._running is not None:
            self._running.ask_to_stop(signal.SIGUSR1)
            self._running.wait_until_stopped(SAVING)
        return DelayedSubmission(Work(self.job, self.threads))


@dataclass(frozen=True)
class SubmititEngine:
    """submitit's ``AutoExecutor``.

    Attributes:
        folder: where submitit keeps its files.
        resources: of each job, such as ``gpus_per_node``, ``cpus_per_task``, ``mem_gb``, ``timeout_min``, or any of
            Slurm's own, such as ``partition``.
        cluster: ``slurm``, ``local`` or ``debug``; None lets submitit choose.
        at_once: most jobs that are queued or run at a time; None: all, the cluster decides (one for ``local`` and
            ``debug``, which are on this machine).
    """

    folder: Path
    resources: Mapping[str, Any] = field(default_factory=dict)
    cluster: str | None = None
    at_once: int | None = None

    def run(self, jobs: Sequence[Job]) -> Generator[Outcome, None, None]:
        """See ``launching.Engine``.

        Raises:
            UserError: submitit is not installed, or does not know a resource or the cluster.
        """
        executor = self._executor()
        here = executor.cluster != "slurm"
        most = self.at_once or (1 if here else len(jobs))
        threads = self.resources.get("cpus_per_task") or (max(1, cores() // most) if here else None)
        waiting = list(jobs)
        submitted: dict[str, tuple[Job, Any]] = {}
        try:
            while waiting or submitted:
                while waiting and len(submitted) < most:
                    job = waiting.pop(0)
                    submitted[job.name] = (job, executor.submit(Work(job, threads)))
                ended = [name for name, (_, handle) in submitted.items() if handle.done()]
                for name in ended:
                    yield _outcome(*submitted.pop(name))
                if not ended:
                    time.sleep(POLL)
        finally:
            for _, handle in submitted.values():
                handle.cancel(check=False)

    def check(self) -> None:
        """Raise a UserError if submitit is not installed, or does not know a resource."""
        shared, slurm = _known_resources()
        for name in self.resources:
            if name not in shared and name not in slurm:
                raise UserError(f"--slurm: there is no resource {name!r}; {closest(name, [*shared, *slurm])}.")

    def _executor(self) -> "AutoExecutor":
        self.check()
        import submitit

        shared, _ = _known_resources()
        resources = {name if name in shared else f"slurm_{name}": value for name, value in self.resources.items()}
        try:
            executor = submitit.AutoExecutor(self.folder, cluster=self.cluster, slurm_max_num_timeout=REQUEUES)
            executor.update_parameters(**{"timeout_min": LONGEST_MINUTES, **resources})
        except (ValueError, NameError, AssertionError, RuntimeError) as error:
            raise UserError(f"submitit: {str(error).splitlines()[0]}") from error
        return executor


def _known_resources() -> tuple[list[str], list[str]]:
    """Resources that submitit knows on every cluster, and Slurm's own."""
    try:
        import submitit
    except ImportError:
        raise UserError(
            "--engine submitit needs submitit, which is not installed; pip install 'tugofwar[cluster]'."
        ) from None
    # submitit tells them nowhere else
    return sorted(submitit.AutoExecutor._valid_parameters()), sorted(submitit.SlurmExecutor._valid_parameters())


def _outcome(job: Job, handle: Any) -> Outcome:
    error = handle.exception()
    if error is not None:
        lines = [line for line in str(error).splitlines() if line.strip()]
        return Outcome(job, NOT_HERE, 0.0, lines[-1].strip() if lines else type(error).__name__)
    status, seconds, last_line = handle.result()
    return Outcome(job, status, seconds, last_line)


def resources_of(assignments: Sequence[str]) -> dict[str, Any]:
    """Return ``key=value`` assignments as a mapping, values read as YAML.

    Raises:
        UserError: an assignment without a key or value.
    """
    resources = {}
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        if not separator or not key or not text:
            raise UserError(f"--slurm takes key=value, such as gpus_per_node=1, not {assignment!r}.")
        try:
            resources[key] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise UserError(f"--slurm {assignment}: the value is not valid YAML.") from None
    return resources
