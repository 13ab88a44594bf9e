"""What stands in a folder that a run is to be trained in: nothing, a run, or something else."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .checkpoints import checkpoints
from .errors import UserError
from .reading import read_object
from .settings import RunSettings

RUN_FILE = "run.json"
FINISHED = "finished"

_PREVIOUS = ".previous"
"""Ends the name of a run that another takes the place of, until that one is finished."""


def standing_run(out: Path) -> dict[str, Any] | None:
    """Return the ``run.json`` of the run that stands in a folder; None where there is no folder or an empty one.

    Raises:
        UserError: something else stands there, or the file is damaged.
    """
    if not out.exists() or (out.is_dir() and all(path.name.startswith(".") for path in out.iterdir())):
        return None
    if not (out / RUN_FILE).is_file():
        raise UserError(f"{out} exists and is not a run; choose another --out or remove it.")
    run = read_object(out / RUN_FILE)
    if not isinstance(run.get("settings"), dict) or not isinstance(run.get("datasets"), dict):
        raise UserError(f"{out / RUN_FILE} does not say how the run was trained; choose another --out or remove it.")
    return run


def is_finished(run: dict[str, Any]) -> bool:
    """Whether a ``run.json`` is that of a finished run."""
    return run.get("exit_reason") == FINISHED


def require_finished(folder: Path) -> None:
    """Raise a UserError if a folder holds a run that was stopped before its end, which has only checkpoints."""
    path = folder / RUN_FILE
    if path.is_file() and not is_finished(read_object(path)):
        found = list(checkpoints(folder).values())
        hint = f", or name a checkpoint such as {found[-1]}" if found else ""
        raise UserError(f"The run in {folder} is not finished; go on with the command that began it{hint}.")


def left_out(run: Path) -> dict[str, dict[str, int]]:
    """Return dataset -> reason -> number of training samples that a run was trained without.

    Raises:
        UserError: a damaged ``run.json``.
    """
    skipped = read_object(run / RUN_FILE).get("skipped", {})
    return dict(skipped)


def differences(run: dict[str, Any], settings: RunSettings, samples: dict[str, int]) -> dict[str, list[str]]:
    """Return what a run's settings and data differ in from those asked for: ``settings`` and ``data`` -> sentences."""
    asked = {
        "settings": (run["settings"], settings.model_dump(mode="json")),
        "data": (run["datasets"], samples),
    }
    found = {what: _differences(before, now) for what, (before, now) in asked.items()}
    return {what: different for what, different in found.items() if different}


def refuse_other_run(out: Path, different: dict[str, list[str]]) -> None:
    """Raise a UserError that names the first kind of differences, if there are any."""
    for what, found in different.items():
        raise UserError(
            f"{out} holds a run with other {what} ({', '.join(found)}); choose another --out or say --overwrite."
        )


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    found: list[str] = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            found += _differences(before, after, f"{prefix}{key}.")
        elif before != after:
            found.append(f"{prefix}{key}: {before} there, {after} asked for")
    return found


@contextmanager
def training_folder(out: Path, *, anew: bool) -> Iterator[None]:
    """Make the folder that a run is trained in.

    On an exception a folder without checkpoint vanishes, and what it took the place of comes back.

    Args:
        out: the run folder.
        anew: put what stands there aside; ``forget_previous`` deletes it.
    """
    target = out.resolve()
    previous = _previous(target)
    created = [parent for parent in target.parents if not parent.exists()]
    if anew:
        _put_aside(target, previous)
    target.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException as error:
        kept = list(checkpoints(target))
        if kept:
            error.add_note(f"{out} keeps checkpoint-{kept[-1]}; the same command goes on from it.")
            raise
        shutil.rmtree(target, ignore_errors=True)
        if previous.exists():
            previous.rename(target)
        for parent in created:
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()
        raise


def _put_aside(target: Path, previous: Path) -> None:
    """Keep the run that stands there, but for an unfinished one that has itself taken the place of another."""
    if not target.exists():
        return
    if previous.exists() and not is_finished(standing_run(target) or {}):
        shutil.rmtree(target)
        return
    shutil.rmtree(previous, ignore_errors=True)
    target.rename(previous)


def forget_previous(out: Path) -> None:
    """Delete the run that a finished one has taken the place of."""
    shutil.rmtree(_previous(out.resolve()), ignore_errors=True)


def _previous(target: Path) -> Path:
    return target.with_name(target.name + _PREVIOUS)
