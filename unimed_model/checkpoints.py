"""Checkpoints of a run: each appears whole or not at all; which are kept, and which one training goes on from."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .errors import UserError
from .folders import open_to_readers

SEAL = "checkpoint.json"
"""Written last: sizes and digests of the other files, and what training needs beside them."""

_STAGING = ".checkpoint.partial"
_NAME = re.compile(r"checkpoint-(\d+)")


def checkpoint_folder(run: Path, step: int) -> Path:
    """Return where the checkpoint after so many steps of a run is."""
    return run / f"checkpoint-{step}"


def staging_folder(run: Path) -> Path:
    """Return where a checkpoint is written before it takes its place."""
    return run / _STAGING


def commit(written: Path, place: Path, state: dict[str, Any]) -> None:
    """Seal what was written, make it durable and rename it to its place.

    Args:
        written: folder with all files but the seal.
        place: where the checkpoint belongs.
        state: what stands in the seal beside the files' sizes.
    """
    open_to_readers(written)
    named = {str(path.relative_to(written)): path for path in sorted(_files(written))}
    files = {name: path.stat().st_size for name, path in named.items()}
    digests = {name: _sha256(path) for name, path in named.items()}
    seal = json.dumps({**state, "files": files, "sha256": digests}, indent=2)
    (written / SEAL).write_text(seal + "\n", encoding="utf-8")
    for path in [*_files(written), written]:
        _sync(path)
    shutil.rmtree(place, ignore_errors=True)
    written.rename(place)
    _sync(place.parent)


def sealed_state(checkpoint: Path) -> dict[str, Any]:
    """Return what the seal of a checkpoint says.

    Raises:
        UserError: there is no seal, it is damaged, or a file is missing or of another size; names it.
    """
    path = checkpoint / SEAL
    try:
        seal = json.loads(path.read_text(encoding="utf-8"))
        files = dict(seal["files"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{path} is missing or damaged.") from None
    for name, size in files.items():
        file = checkpoint / name
        found = file.stat().st_size if file.is_file() else None
        if found != size:
            raise UserError(
                f"{file} is missing." if found is None else f"{file} has {found} bytes instead of the {size} written."
            )
    return dict(seal)


def checkpoints(run: Path) -> dict[int, Path]:
    """Return step -> checkpoint, by step, whole or damaged."""
    if not run.is_dir():
        return {}
    found = ((_NAME.fullmatch(path.name), path) for path in run.iterdir() if path.is_dir())
    return dict(sorted((int(match[1]), path) for match, path in found if match))


def newest(run: Path) -> tuple[Path | None, list[str]]:
    """Return the newest whole checkpoint of a run, if there is one, and what is wrong with newer ones.

    Of whole ones every file is read, and compared with what was written.
    """
    problems: list[str] = []
    for path in reversed(checkpoints(run).values()):
        try:
            _require_content(path, sealed_state(path).get("sha256", {}))
        except UserError as error:
            problems.append(str(error))
        else:
            return path, problems
    return None, problems


def prune(run: Path, keep: int, protected: Iterable[int], step: int) -> None:
    """Delete all checkpoints but the newest ``keep`` and the protected ones.

    Args:
        run: the run folder.
        keep: number of the newest.
        protected: steps of the others that stay.
        step: that the run has come to; a checkpoint beyond it is one that could not be gone on from.
    """
    steps = list(checkpoints(run))
    kept = {*[reached for reached in steps if reached <= step][-keep:], *protected}
    for step in steps:
        if step not in kept:
            shutil.rmtree(checkpoint_folder(run, step))


def _require_content(checkpoint: Path, digests: dict[str, str]) -> None:
    for name, digest in digests.items():
        if _sha256(checkpoint / name) != digest:
            raise UserError(f"{checkpoint / name} is damaged: it is not what was written.")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
