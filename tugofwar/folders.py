"""An output folder that appears complete or not at all."""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tugofwar.errors import UserError
from tugofwar.storage import holds

_WRITTEN = {".csv", ".json", ".safetensors"}
_WRITTEN_FOLDERS = {"adam", "factors", "images", "recordings"}


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
    """Raise a UserError unless ``folder`` can be made, is empty, or holds a result of this kind and nothing else."""
    if not folder.exists():
        _check_parent(folder.resolve())
        return
    if not folder.is_dir():
        raise UserError(f"The output {folder} is a file; name a folder.")
    earlier = f"earlier {kind}" if kind.endswith("s") else f"an earlier {kind}"
    if any(folder.iterdir()) and not holds(folder, kind):
        raise UserError(
            f"The output folder {folder} holds something other than {earlier} and is not replaced; "
            "name another folder with --out."
        )
    for path in sorted(folder.iterdir()):
        if not _is_written(path):
            raise UserError(
                f"The output folder {folder} holds {path.name} besides {earlier} and is not replaced; move "
                f"{path.name} elsewhere, or name another folder with --out."
            )


def _check_parent(target: Path) -> None:
    """What would fail after long measuring is said before it."""
    parent = next(parent for parent in target.parents if parent.exists())
    if not parent.is_dir():
        raise UserError(f"The output folder {target} cannot be made, because {parent} is a file; name another folder.")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UserError(f"The output folder {target} cannot be made, because {parent} is read-only.")


def _is_written(path: Path) -> bool:
    """Whether a command could have put this into its output, or (a hidden file) a file manager."""
    if path.is_dir():
        return path.name in _WRITTEN_FOLDERS
    return path.suffix in _WRITTEN or path.name.startswith(".")


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
    try:
        target.rename(previous)
        temporary.rename(target)
    finally:
        if previous.exists() and not target.exists():
            previous.rename(target)
    shutil.rmtree(previous, ignore_errors=True)
