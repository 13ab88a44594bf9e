"""``run.json``: what a run is and what became of it, whole at every moment.

Keys, from the beginning:

    exit_reason        "running", "finished", or why the last session ended: "preempted: SIGTERM", "interrupted",
                       "disk full", "out of memory", "stopped: <sentence>", "failed: <kind of error>"
    settings, seed     the resolved settings
    command            the command line, as a list
    datasets           dataset -> number of training samples
    skipped            dataset -> reason -> number of training samples left out
    data               dataset -> digests of what was read (``data_digests``)
    parameters         part of the model -> number of parameters
    trained_parameters part of the model -> number of those that are trained
    versions, code     of Python, libraries and this program; revision and ``dirty`` of its checkout, or null
    hardware           see ``environment.hardware``
    sessions           one per process that trained: from_step, to_step (of its last checkpoint or end), seconds,
                       exit_reason ("killed" where it ended without a word)
    resumed_from       the steps that later sessions began with
    seconds            of all sessions together

and when a session has ended by itself:

    realised_mixture   dataset -> samples drawn
    throughput, peak_memory, routing    see ``TrainLog.summary``
    feature_cache      where one was used: its folder for this encoder
"""

import errno
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .environment import code_revision, hardware, versions
from .errors import UserError
from .reading import read_object
from .settings import RunSettings
from .standing import RUN_FILE
from .whole_file import write_whole

RUNNING, KILLED = "running", "killed"


def facts_of(
    settings: RunSettings,
    model: nn.Module,
    *,
    datasets: Mapping[str, int],
    skipped: Mapping[str, Mapping[str, int]],
    data: Mapping[str, Mapping[str, Any]],
    device: torch.device,
    world_size: int = 1,
) -> dict[str, Any]:
    """Return what is known of a run before its first step, as the module's docstring lists it.

    Args:
        settings: the resolved settings.
        model: the model, what is not trained switched off.
        datasets: dataset -> number of training samples.
        skipped: dataset -> reason -> number of training samples left out.
        data: dataset -> digests (``data_digests``).
        device: that the model is trained on.
        world_size: number of processes.
    """
    parts = dict(model.named_children())
    return {
        "settings": settings.model_dump(mode="json"),
        "seed": settings.seed,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "datasets": dict(datasets),
        "skipped": {name: dict(reasons) for name, reasons in skipped.items()},
        "data": {name: dict(digests) for name, digests in data.items()},
        "parameters": {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()},
        "trained_parameters": {
            name: sum(p.numel() for p in part.parameters() if p.requires_grad) for name, part in parts.items()
        },
        "versions": versions(),
        "code": code_revision(),
        "hardware": hardware(device, world_size),
    }


class RunFile:
    """``run.json`` of a run, kept by one process.

    Args:
        folder: the run folder. A ``run.json`` in it is of the sessions that this one goes on from.
        facts: see ``facts_of``.
        step: that training begins with.
        clock: returns seconds.

    Raises:
        UserError: the ``run.json`` that stands there is damaged.
        OSError: it cannot be written.
    """

    def __init__(
        self, folder: Path, facts: Mapping[str, Any], step: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = folder / RUN_FILE
        self._facts = dict(facts)
        self._clock, self._began = clock, clock()
        earlier = read_object(self._path) if self._path.exists() else {}
        self._sessions = [_ended(session, step) for session in earlier.get("sessions", [])]
        self._resumed_from = [*earlier.get("resumed_from", []), *([step] if step else [])]
        self._session = {"from_step": step, "to_step": step, "seconds": 0.0, "exit_reason": RUNNING}
        self._write({})

    def reached(self, step: int) -> None:
        """Note that there is a checkpoint of a step, so that the file tells it if nothing else is ever said."""
        self._session["to_step"] = step
        self._write({})

    def end(self, reason: str, step: int, results: Mapping[str, Any]) -> None:
        """Say how the session ended.

        Args:
            reason: ``standing.FINISHED``, or why not (see `reason_of`).
            step: that training came to.
            results: further keys: ``realised_mixture``, ``TrainLog.summary``'s, ``feature_cache``.
        """
        self._session |= {"to_step": step, "exit_reason": reason}
        self._write(results)

    def _write(self, results: Mapping[str, Any]) -> None:
        self._session["seconds"] = round(self._clock() - self._began, 1)
        sessions = [*self._sessions, self._session]
        run = {
            "exit_reason": self._session["exit_reason"],
            **self._facts,
            "resumed_from": self._resumed_from,
            "sessions": sessions,
            "seconds": round(sum(session["seconds"] for session in sessions), 1),
            **results,
        }
        write_whole(self._path, (json.dumps(_plain(run), indent=2, allow_nan=False) + "\n").encode())


def reason_of(error: BaseException) -> str:
    """Return in a few words why a run ended by an exception; never the text of one that may quote data."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if any(_tells_of_full_disk(link) for link in _chain(error)):
        return "disk full"
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return "out of memory"
    if isinstance(error, UserError):
        return f"stopped: {error}"
    return f"failed: {type(error).__name__}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _tells_of_full_disk(error: BaseException) -> bool:
    # libraries written in Rust have exceptions of their own
    return (isinstance(error, OSError) and error.errno == errno.ENOSPC) or f"os error {errno.ENOSPC}" in str(error)


def _ended(session: Mapping[str, Any], step: int) -> dict[str, Any]:
    """An earlier session; one that never said how it ended was killed, after the checkpoint that is gone on from."""
    if session["exit_reason"] != RUNNING:
        return dict(session)
    return {**session, "to_step": max(session["to_step"], step), "exit_reason": KILLED}


def _plain(value: Any) -> Any:
    """A value that JSON has: null for numbers that are not finite."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
