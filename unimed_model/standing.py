"""What stands in a folder that a run is to be trained in (nothing, a run, something else), and who may train there."""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .checkpoints import checkpoints
from .errors import UserError
from .locking import take_lock
from .reading import read_object
from .settings import RunSettings

RUN_FILE = "run.json"
FINISHED = "finished"

_LOCK = ".lock"
_NEEDED = {"settings": dict, "datasets": dict, "data": dict, "sessions": list}
"""What ``run.json`` must say for a run to be gone on from or compared with."""


def standing_run(out: Path) -> dict[str, Any] | None:
    """Return the ``run.json`` of the run that stands in a folder; None where there is no folder or an empty one.

    A folder that holds nothing but what a killed process left half-written is as good as empty.

    Raises:
        UserError: something else stands there, or the file is damaged.
    """
    if not out.exists() or (out.is_dir() and all(map(_is_left_over, out.iterdir()))):
        return None
    if not (out / RUN_FILE).is_file():
        raise UserError(f"{out} exists and is not a run; choose another --out or remove it.")
    try:
        run = read_object(out / RUN_FILE)
    except UserError:  # it says to train the run again, which is what is being tried
        run = {}
    if not all(isinstance(run.get(key), kind) for key, kind in _NEEDED.items()):
        raise UserError(
            f"{out / RUN_FILE} is damaged and does not say how the run was trained; choose another --out or remove "
            f"{out}."
        )
    return run


def _is_left_over(path: Path) -> bool:
    return path.name == _LOCK or (path.name.startswith(".") and path.name.endswith(".partial"))


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


def differences(
    run: dict[str, Any], settings: RunSettings, samples: dict[str, int], digests: Mapping[str, Mapping[str, Any]]
) -> dict[str, list[str]]:
    """Return what a run's settings and data differ in from those asked for: ``settings`` and ``data`` -> sentences.

    Args:
        run: its ``run.json``.
        settings: asked for.
        samples: dataset -> number of training samples.
        digests: dataset -> ``data_digests``; of a prepared folder the splits count, not when it was prepared.
    """
    found = {
        "settings": _differences(run["settings"], settings.model_dump(mode="json")),
        "data": _differences(run["datasets"], samples) or _changed(run.get("data", {}), digests),
    }
    return {what: different for what, different in found.items() if different}


def _changed(before: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Sentences on the datasets that are read from other files than before."""
    return [
        f"the files of {name} have changed"
        for name, digests in now.items()
        if any(before.get(name, digests).get(key) != digests.get(key) for key in ("sha256", "splits_sha256"))
    ]


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
    """Make the folder that a run is trained in, and have it for oneself.

    On an exception a folder without checkpoint vanishes, and what it took the place of comes back.

    Args:
        out: the run folder.
        anew: put what stands there aside, under a hidden name; ``forget_previous`` deletes it.

    Raises:
        UserError: another process trains there.
    """
    target = out.resolve()
    previous = _previous(target)
    created = [parent for parent in target.parents if not parent.exists()]
    if anew:
        with _locked(target):
            pass  # nobody trains there
        _put_aside(target, previous)
    target.mkdir(parents=True, exist_ok=True)
    with _locked(target):
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


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        take_lock(descriptor, f"Another process trains into {folder}; wait for it, or choose another --out.")
        try:
            yield
        finally:
            (folder / _LOCK).unlink(missing_ok=True)
    finally:
        os.close(descriptor)


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
    # hidden, so that it is none of the user's
    return target.with_name(f".{target.name}.previous")
