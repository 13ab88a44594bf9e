"""CSV tables as pandas reads them, plain or gzipped, and refused where a row breaks off.

By pandas' default some words in a cell, `None`, `NA`, `null` and the like, count as empty. Those who published these
tables read them so, and so are they read here unless `words` is said to be text.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from unimed_model.data.files import note
from unimed_model.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

_LONGEST_CELL = 2**31 - 1


def read_csv(
    path: Path, types: Mapping[str, str], *, others: bool = False, words_are_text: bool = False
) -> pd.DataFrame:
    """Return a table, its rows numbered from 0 below the header.

    Args:
        path: the file; `.gz` is unpacked.
        types: column that is needed -> its type.
        others: whether other columns are read too.
        words_are_text: whether `None`, `NA` and the like are text and not empty cells.

    Raises:
        UserError: missing, damaged, not UTF-8, a row of another length than the header, a column that is missing.
            No cell is quoted.
    """
    import pandas as pd

    note(path)
    try:
        header = _checked(path)
        missing = [column for column in types if column not in header]
        if missing:
            raise UserError(f"{path} lacks the column {missing[0]!r}; it needs {', '.join(types)}.")
        columns = None if others else list(types)
        # The stubs want literal names of types.
        kinds = cast(Any, dict(types))
        empty = [""] if words_are_text else None
        return pd.read_csv(path, dtype=kinds, usecols=columns, keep_default_na=not words_are_text, na_values=empty)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; complete the download.") from error
    except (csv.Error, ValueError, OverflowError, EOFError, zlib.error, OSError) as error:
        raise UserError(f"{path} is not a complete, valid CSV file ({_reason(error)}); download it again.") from error


def rows_of_empty_words(path: Path, table: pd.DataFrame, columns: Sequence[str]) -> pd.Index:
    """Return the rows of a table in which a word of one of the columns was read as an empty cell.

    Raises:
        UserError: as `read_csv`.
    """
    literal = read_csv(path, dict.fromkeys(columns, "str"), words_are_text=True)
    words = table[list(columns)].isna() & literal[list(columns)].notna()
    return table.index[words.any(axis=1)]


def _opened(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", newline="", encoding="utf-8-sig")
    return path.open(newline="", encoding="utf-8-sig")


def _checked(path: Path) -> list[str]:
    # pandas fills a row that breaks off with empty cells, which would then pass for an empty record.
    with _opened(path) as file, _long_cells():
        # Odd quotes are pandas' to judge, and so is a quote that is never closed.
        rows = csv.reader(file)
        header = next(rows, [])
        if not header:
            raise csv.Error("it is empty")
        for row in rows:
            if row and len(row) != len(header):
                raise UserError(f"{path}, line {rows.line_num}: {len(row)} cells where the header has {len(header)}.")
    return header


@contextmanager
def _long_cells() -> Iterator[None]:
    """Inside, a cell may be as long as pandas lets it be."""
    before = csv.field_size_limit(_LONGEST_CELL)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _reason(error: Exception) -> str:
    # A cell that is not of its column's type is quoted by pandas.
    return "a cell is not of its column's type" if type(error) is ValueError else str(error)
