"""What a folder of weights was made from, and whether it is still what was made.

``PROVENANCE.json`` stands in every folder that this package makes: its source, licence and remarks, and the SHA-256
of every other file. It is written last, so a folder that has one is finished. It holds neither times nor paths.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unimed_model.errors import UserError

RECORD = "PROVENANCE.json"
_BLOCK = 1 << 22


@dataclass(frozen=True, slots=True)
class Obtained:
    """A folder that holds weights, and whether it had to be made."""

    folder: Path
    made: bool


def seal(folder: Path, origin: Mapping[str, Any], *, quiet: bool = False) -> None:
    """Write the record of a folder whose files are complete.

    Args:
        folder: holds everything but the record.
        origin: where the files come from, in plain values; `stands` compares with it.
        quiet: no progress bar.
    """
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    digests = _digests(folder, files, quiet)
    content = {**origin, "files": {path.as_posix(): digest for path, digest in zip(files, digests, strict=True)}}
    (folder / RECORD).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def stands(folder: Path, origin: Mapping[str, Any], *, quiet: bool = False) -> bool:
    """Say whether a finished folder of that origin is there, every file as it was written.

    Args:
        folder: may not exist.
        origin: what the record must hold, among other things.
        quiet: no progress bar.

    Raises:
        UserError: something else is there: it is not this package's to replace.
    """
    if not folder.exists():
        return False
    record = _record(folder)
    for key, value in origin.items():
        if record.get(key) != value:
            raise UserError(
                f"{folder} was made from another source ({key} {record.get(key)!r}, not {value!r}); move it away, or "
                "choose another folder."
            )
    expected = {Path(name): digest for name, digest in record["files"].items()}
    gone = [path for path in expected if not (folder / path).is_file()]
    if gone:
        raise UserError(f"{folder} has lost its file {gone[0]}; remove the folder and run this again.")
    for (path, digest), found in zip(expected.items(), _digests(folder, list(expected), quiet), strict=True):
        if digest != found:
            raise UserError(f"{folder / path} is not as it was written; remove the folder and run this again.")
    return True


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _record(folder: Path) -> dict[str, Any]:
    path = folder / RECORD
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder} is there already and holds no readable {RECORD}, so it was not made by this command; move it "
            "away, or choose another folder."
        ) from error
    if not isinstance(record, dict) or not isinstance(record.get("files"), dict):
        raise UserError(f"{path} lists no files; remove the folder {folder} and run this again.")
    return record


def _digests(folder: Path, files: Iterable[Path], quiet: bool) -> list[str]:
    from tqdm import tqdm

    paths = [folder / name for name in files]
    total = sum(path.stat().st_size for path in paths)
    digests = []
    with tqdm(
        total=total, unit="B", unit_scale=True, desc=f"{folder.name}: SHA-256", disable=quiet, leave=False
    ) as bar:
        for path in paths:
            state = hashlib.sha256()
            with path.open("rb") as stream:
                while block := stream.read(_BLOCK):
                    state.update(block)
                    bar.update(len(block))
            digests.append(state.hexdigest())
    return digests
