"""Arrays inside `.npz` files: names and shapes without decoding, contents decoded once per process."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from tokenize import TokenError
from typing import TYPE_CHECKING

from unimed_model.errors import UserError

if TYPE_CHECKING:
    import numpy as np

# RuntimeError: encrypted; MemoryError and TokenError: a header that lies about the shape, or breaks off.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError, MemoryError, TokenError, OSError)


def array_names(path: Path) -> frozenset[str]:
    """Return the names of the arrays in the file.

    Raises:
        UserError: the file is missing or damaged.
    """
    with _readable(path), zipfile.ZipFile(path) as archive:
        return frozenset(name.removesuffix(".npy") for name in archive.namelist())


def array_header(path: Path, key: str) -> tuple[tuple[int, ...], np.dtype]:
    """Return (shape, dtype) of one array without decoding it.

    Raises:
        UserError: the file is missing or damaged.
    """
    from numpy.lib import format as npy

    with _readable(path), zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as member:
        version = npy.read_magic(member)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(member)
        return shape, dtype


def load_array(path: Path, key: str) -> np.ndarray:
    """Return one array, read-only; a file that was replaced since is read anew.

    Raises:
        UserError: the file is missing or damaged, or holds pickled objects, which are never read.
    """
    with _readable(path):
        state = path.stat()
        return _cached(path, key, state.st_mtime_ns, state.st_size)


# A train stack of DermaMNIST at 224 pixels is 1 GB: few are kept.
@lru_cache(maxsize=8)
def _cached(path: Path, key: str, _mtime: int, _size: int) -> np.ndarray:
    import numpy as np

    with np.load(path, allow_pickle=False) as archive:
        array = archive[key]
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{key} is no array")
    array.setflags(write=False)
    return array


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; complete the download.") from error
    except _DAMAGE as error:
        raise UserError(f"{path} is not a readable .npz file ({error}); download it again.") from error
