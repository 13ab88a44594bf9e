"""The tables of ``tugofwar compare``: ``RUN_B/difference/<name of A>``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from figures.tables.reading import levels_of, read_object, read_table

COMMAND = "tugofwar compare"
VERDICTS = ("higher", "lower", "not sure")


@dataclass(frozen=True, eq=False)
class DifferenceTables:
    """What changed from run ``a`` to run ``b``; tables by level."""

    a: str
    b: str
    manifest: dict[str, Any]
    gd: dict[str, pd.DataFrame]
    gm: dict[str, pd.DataFrame]
    index: dict[str, pd.DataFrame]
    scores: dict[str, pd.DataFrame]


def read_difference(folder: Path, a: str, b: str) -> DifferenceTables:
    """Read the tables in a folder.

    Args:
        folder: ``RUN_B/difference/<name of A>``.
        a: what run A is called in pictures.
        b: what run B is called.

    Raises:
        UserError: tables that are missing or damaged.
    """
    found = ("a", "b", "difference", "low", "high")
    cells = ("row", "column", *found, "p_value", "verdict")
    return DifferenceTables(
        a=a,
        b=b,
        manifest=read_object(folder / "manifest.json", COMMAND, ("paired", "batches", "interval_level")),
        gd=_by_level(folder, "gd", cells),
        gm=_by_level(folder, "gm", cells),
        index=_by_level(folder, "index", ("measure", "name", *found, "p_value", "verdict")),
        scores=_by_level(folder, "scores", ("interval_low", "interval_high", *found)),
    )


def _by_level(folder: Path, measure: str, columns: tuple[str, ...]) -> dict[str, pd.DataFrame]:
    return {
        level: read_table(folder / f"{measure}_{level}.csv", COMMAND, columns) for level in levels_of(folder, measure)
    }
