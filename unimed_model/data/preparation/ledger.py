"""The ledger of images as a Parquet file: what is known of each, by path relative to the data root."""

from __future__ import annotations

import os
from pathlib import Path

from unimed_model.data.files import State
from unimed_model.data.preparation.pictures import Ledger, Picture
from unimed_model.data.tables import read_table, write_table

_COLUMNS = ("file", "key", "index", "width", "height", "problem", "thumbnail", "size", "changed", "sha256")


def write_ledger(path: Path, ledger: Ledger, root: Path) -> None:
    """Write a ledger, whole or not at all; files are named relative to ``root``."""
    import pyarrow as pa

    rows = [
        (
            os.path.relpath(file, root),
            key,
            index,
            *(picture.width, picture.height, picture.problem, picture.thumbnail),
            *(picture.state.size, picture.state.changed, picture.state.sha256),
        )
        for (file, key, index), picture in ledger.items()
    ]
    columns = zip(*rows, strict=True) if rows else ((),) * len(_COLUMNS)
    write_table(path, {name: pa.array(values) for name, values in zip(_COLUMNS, columns, strict=True)})


def read_ledger(path: Path, root: Path) -> Ledger:
    """Return the ledger in a file; empty where there is none.

    Raises:
        UserError: the file is damaged.
    """
    if not path.is_file():
        return {}
    table = read_table(path, "the ledger of images")
    columns = [table[name].to_pylist() for name in _COLUMNS]
    ledger: Ledger = {}
    for file, key, index, width, height, problem, thumbnail, size, changed, sha256 in zip(*columns, strict=True):
        state = State(size, changed, sha256)
        ledger[(str(root / file), key, index)] = Picture(width, height, problem, thumbnail, state)
    return ledger
