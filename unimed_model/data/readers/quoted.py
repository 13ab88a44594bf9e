"""Texts that data files hold, in bounds: file names that a file can have, and values that errors quote."""

import reprlib
from pathlib import PurePosixPath
from typing import Any

from unimed_model.data.files import relative_name
from unimed_model.errors import UserError

LONGEST_NAME = 255
"""Bytes of a folder's or file's name: what file systems allow."""
_LONGEST_PATH = 1_024

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
    if len(name) <= _LONGEST_PATH:
        path = relative_name(name, where)
        if all(len(part.encode(errors="surrogatepass")) <= LONGEST_NAME for part in path.parts):
            return path
    raise UserError(f"{where}: the file name {shown(name)} is too long for a file and is refused.")
