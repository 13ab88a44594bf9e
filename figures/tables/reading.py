"""Tables and manifests read back, each problem in one sentence that names the file."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from figures.errors import UserError

_PLACES = ("block", "column", "dataset", "image", "level", "name", "row", "sample", "task")
NAMES = (*_PLACES, "checkpoint", "label", "measure", "router", "stage", "verdict")
"""Columns that hold names: a dataset may be called 2024 or NA; its name is text all the same."""
_TEXT = {*NAMES, "estimator", "kind"}
_TRUTH = {"True": 1, "False": 0}


def read_table(path: Path, command: str, columns: Sequence[str] = (), complete: bool = True) -> pd.DataFrame:
    """A tidy table, its names as text.

    Args:
        path: a CSV file.
        command: the command that writes it, for the error.
        columns: columns that it must have.
        complete: refuse cells without a number in columns of numbers.

    Raises:
        UserError: no such file, a file that is no table, or one that lacks a column or a number.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing; measure the run again with `{command}`.")
    try:
        # Names such as "NA" are names; no cell of these tables is empty.
        table = pd.read_csv(path, keep_default_na=False, dtype=dict.fromkeys(NAMES, str))
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError):
        raise UserError(f"{path} is not a readable table; measure the run again with `{command}`.") from None
    for column in columns:
        if column not in table:
            raise UserError(f"{path} has no column {column!r}; measure the run again with `{command}`.")
    if complete:
        _check_numbers(path, command, table)
    return table


def _check_numbers(path: Path, command: str, table: pd.DataFrame) -> None:
    for column in table:
        cells = table[column]
        if column not in _TEXT and not pd.api.types.is_numeric_dtype(cells):
            cells = pd.to_numeric(cells.map(lambda cell: _TRUTH.get(cell, cell)), errors="coerce")
        if cells.isna().any():
            line = int(cells.isna().to_numpy().argmax()) + 2
            raise UserError(
                f"{path} is damaged at line {line}, column {column!r}; measure the run again with `{command}`."
            )


def read_if_there(path: Path, command: str, columns: Sequence[str] = ()) -> pd.DataFrame | None:
    """As ``read_table``; None for a file that is not there, or one without rows, which says the same.

    Raises:
        UserError: a file that is no table, or one that lacks a column.
    """
    table = read_table(path, command, columns) if path.is_file() else None
    return None if table is None or table.empty else table


def read_square(path: Path, command: str) -> pd.DataFrame:
    """A square matrix whose first column names its rows.

    Raises:
        UserError: as ``read_table``.
    """
    table = read_indexed(path, command)
    if list(table.index) != list(table.columns) or table.empty:
        raise UserError(f"{path} is no square table; measure the run again with `{command}`.")
    return table


def read_indexed(path: Path, command: str, columns: Sequence[str] = ()) -> pd.DataFrame:
    """A table whose first column names its rows.

    Raises:
        UserError: as ``read_table``.
    """
    table = read_table(path, command, columns)
    first = table.columns[0]
    return table.astype({first: str}).set_index(first)


def read_object(path: Path, command: str, keys: Sequence[str] = ()) -> dict[str, Any]:
    """The JSON object in a file.

    Args:
        path: of the file.
        command: the command that writes it, for the error.
        keys: what it must have.

    Raises:
        UserError: no such file, or one that holds no object, or one without a key.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; measure the run again with `{command}`.") from None
    except ValueError:
        raise UserError(f"{path} is truncated or not JSON; measure the run again with `{command}`.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is not what `{command}` writes; measure the run again.")
    for key in keys:
        if key not in content:
            raise UserError(f"{path} lacks the key {key!r}; measure the run again with `{command}`.")
    return content


def levels_of(folder: Path, stem: str) -> list[str]:
    """Those of ``dataset`` and ``task`` of which ``<stem>_<level>.csv`` is in a folder."""
    return [level for level in ("dataset", "task") if (folder / f"{stem}_{level}.csv").is_file()]
