"""An output folder that appears complete or not at all."""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tugofwar.errors import UserError
from tugofwar.storage import holds


@contextmanager
def replacing(folder: Path, kind: str = "recording") -> Iterator[Path]:
    """Yield an empty folder beside ``folder`` that takes its place at the end, or vanishes on an exception.

    Only the output of an earlier run (or an empty folder) is replaced, so that a mistyped path cannot
    delete a checkpoint.

    Args:
        folder: the output.
        kind: of result, as ``storage.format_of`` takes it; its manifest shows an earlier run's output.

    Raises:
        UserError: ``folder`` is a file, or holds something other than an earlier result of this kind.
    """
    target = folder.resolve()
    check_replaceable(target, kind)
    created = missing_parents(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.mkdir()
    try:
        yield temporary
        _swap(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        remove_empty(created)
        raise


def check_replaceable(folder: Path, kind: str = "recording") -> None:
    """Raise a UserError unless ``folder`` is absent, empty, or holds a result of this kind."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"The output {folder} is a file; name a folder.")
    if any(folder.iterdir()) and not holds(folder, kind):
        raise UserError(
            f"The output folder {folder} holds something other than an earlier {kind} and is not replaced; "
            "name another folder with --out."
        )


def missing_parents(target: Path) -> list[Path]:
    """Parents that have to be made, the deepest first."""
    return [parent for parent in target.parents if not parent.exists()]


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove those of the folders, the deepest first, that hold nothing."""
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _swap(temporary: Path, target: Path) -> None:
    if not target.exists():
        temporary.rename(target)
        return
    # Two renames, so that there is no moment in which the old output is half gone.
    previous = target.with_name(f"{temporary.name}.previous")
    target.rename(previous)
    temporary.rename(target)
    shutil.rmtree(previous)
