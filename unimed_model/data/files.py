"""Text files that may be truncated, and file names written by others that must not leave their folder."""

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from unimed_model.errors import UserError


def read_json(path: Path) -> Any:
    """Return the content of a UTF-8 JSON file.

    Raises:
        UserError: missing, truncated or not JSON; names the file.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; complete the download.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not complete, valid JSON ({error}); download it again.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from error


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
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; complete the download.") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield number, _json_object(line, f"{path}, line {number}")


def text_field(record: dict[str, Any], key: str, where: str) -> str:
    """Return a text of a record, without blanks at its ends.

    Raises:
        UserError: the key is missing or its value is not a text; the sentence starts with `where`.
    """
    if key not in record:
        raise UserError(f"{where}: the key {key!r} is missing.")
    if not isinstance(record[key], str):
        raise UserError(f"{where}: {key!r} must be a text, not {record[key]!r}.")
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
        raise UserError(f"{where}: the file name {name!r} leaves the data folder and is refused.")
    return path


def _json_object(line: bytes, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not complete, valid JSON ({error}); download the file again.") from error
    if not isinstance(record, dict):
        raise UserError(f"{where}: a JSON object is needed, not {record!r}.")
    return record
