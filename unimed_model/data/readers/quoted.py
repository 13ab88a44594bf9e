"""Texts that data files hold, in bounds: file names that a file can have, and values that errors quote."""

import reprlib
from pathlib import PurePosixPath
from typing import Any

from unimed_model.data.files import relative_name
from unimed_model.errors import UserError

_LONGEST_PATH = 512

_quoting = reprlib.Repr()
_quoting.maxstring = _quoting.maxother = 200


def shown(value: Any) -> str:
    """Return a value as `repr` writes it, its middle left out where it is long, so that a sentence can quote it."""
    return _quoting.repr(value)


def file_name(name: str, where: str) -> PurePosixPath:
    """Return a file name found in the data as a relative path that the file system can be asked for.

    Raises:
        UserError: the name is empty, absolute, climbs out of its folder, or is too long for a file; the sentence
            starts with `where`.
    """
    # A path of short names may still be too long.
    if len(name) > _LONGEST_PATH:
        raise UserError(f"{where}: the file name {shown(name)} is longer than any file can have.")
    return relative_name(name, where)
