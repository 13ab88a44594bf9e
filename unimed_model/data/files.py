"""Text files that may be truncated, and file names written by others that must not leave their folder.

What a reader read can be asked for (`noting`), so that an index of a dataset knows when it is out of date: readers
call `note` for each annotation file they read by other means, and for each folder whose listing they depend on.
"""

from __future__ import annotations

import hashlib
import json
import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from unimed_model.errors import UserError

_LONGEST_NAME = 255  # bytes
_LONGEST_PATH = 512  # characters
_quoting = reprlib.Repr()
_quoting.maxstring = _quoting.maxother = 100

_noted: ContextVar[set[Path] | None] = ContextVar("_noted", default=None)


@dataclass(frozen=True, slots=True)
class State:
    """What tells that a file is still the one that was read.

    Attributes:
        size: in bytes.
        changed: time of the last change, in nanoseconds.
        sha256: of its bytes; empty where no digest was asked for.
    """

    size: int
    changed: int
    sha256: str = ""

    @classmethod
    def of(cls, path: Path, digest: bool = False) -> State | None:
        """Return the state of a file or folder; None where there is none."""
        try:
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        # The size of a folder is that of its list of names, which differs between file systems.
        size = found.st_size if path.is_file() else 0
        return cls(size, found.st_mtime_ns, _sha256(path) if digest and path.is_file() else "")

    def same(self, other: State | None) -> bool:
        """Say whether two states are of one content: by the bytes where both know them, else by size and time."""
        if other is None:
            return False
        if self.sha256 and other.sha256:
            return self.sha256 == other.sha256
        return not other.sha256 and (self.size, self.changed) == (other.size, other.changed)


def note(path: Path) -> None:
    """Remember a file that was read or a folder that was listed, if anybody asked (`noting`)."""
    noted = _noted.get()
    if noted is not None:
        noted.add(path)


def note_absent(path: Path) -> None:
    """Remember that a file is missing, by the nearest folder there is: it changes when the file appears."""
    if _noted.get() is not None:
        note(next(folder for folder in path.parents if folder.is_dir()))


@contextmanager
def noting() -> Iterator[set[Path]]:
    """Inside, the set that is yielded gets every file that is read and every folder that is listed."""
    noted: set[Path] = set()
    token = _noted.set(noted)
    try:
        yield noted
    finally:
        _noted.reset(token)


def read_json(path: Path) -> Any:
    """Return the content of a UTF-8 JSON file.

    Raises:
        UserError: missing, truncated or not JSON; names the file.
    """
    note(path)
    try:
        return _parsed(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; complete the download.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not complete, valid JSON ({error}); download it again.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from error


def _parsed(content: bytes) -> Any:
    """Return the JSON value of UTF-8 text; raise ValueError where it is none, or where its texts cannot be written."""
    value = json.loads(content)
    if b"\\ud" in content or b"\\uD" in content:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError("it escapes half of a character") from error
    return value


def read_json_records(path: Path) -> list[dict[str, Any]]:
    """Return the content of a JSON file that is a list of objects.

    Raises:
        UserError: unreadable, or something else than a list of objects; names the file.
    """
    records = read_json(path)
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise UserError(f"{path} must hold a JSON list of objects.")
    return records


def read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number from 1, object) of a JSON-lines file; blank lines are passed over.

    Raises:
        UserError: missing, or a line that is not a JSON object; names the file and the line.
    """
    note(path)
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, _json_object(line, f"{path}, line {number}")
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; complete the download.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from error


def text_field(record: dict[str, Any], key: str, where: str) -> str:
    """Return a text of a record, without blanks at its ends.

    Raises:
        UserError: the key is missing or its value is not a text; the sentence starts with `where`.
    """
    if key not in record:
        raise UserError(f"{where}: the key {key!r} is missing.")
    if not isinstance(record[key], str):
        raise UserError(f"{where}: {key!r} must be a text, not {type(record[key]).__name__}.")
    return record[key].strip()


def relative_name(name: str, where: str) -> PurePosixPath:
    """Return a file name found in the data as a relative path.

    The check is on the name alone, so that a user may link image folders to another disk.

    Raises:
        UserError: the name is empty, absolute, or climbs out of its folder; the sentence starts with `where`.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    drive = len(name) > 1 and name[1] == ":"
    if not path.parts or path.is_absolute() or drive or ".." in path.parts or "\0" in name:
        raise UserError(f"{where}: the file name {shown(name)} leaves the data folder and is refused.")
    # A path of short names may still be too long.
    if len(name) > _LONGEST_PATH or any(len(part.encode()) > _LONGEST_NAME for part in path.parts):
        raise UserError(f"{where}: the file name {shown(name)} is longer than any file can have.")
    return path


def shown(value: Any) -> str:
    """Return a value as `repr` writes it, its middle left out where it is long, so that a sentence can quote it."""
    return _quoting.repr(value)


def _json_object(line: bytes, where: str) -> dict[str, Any]:
    try:
        record = _parsed(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not complete, valid JSON ({error}); download the file again.") from error
    if not isinstance(record, dict):
        raise UserError(f"{where}: a JSON object is needed, not {type(record).__name__}.")
    return record


def unpacked(root: Path, marker: str, *levels: str) -> Path | None:
    """Return the folder that holds ``marker``: the root, one of ``levels`` below it, or a folder directly in it.

    Archives unpack into a folder of their own, sometimes twice.

    Args:
        root: where the download was put.
        marker: relative path of a file or folder; it may hold wildcards in its last part.
        levels: further relative folders to look into.
    """
    for folder in (root, *(root / level for level in levels)):
        if any(folder.glob(marker)):
            return folder
    deeper = sorted(path for path in root.glob(f"*/{marker}"))
    return deeper[0].parents[len(PurePosixPath(marker).parts) - 1] if deeper else None


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
