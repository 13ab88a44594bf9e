"""The tables of ``tugofwar dynamics``: ``RUN/dynamics``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from figures.tables.reading import levels_of, read_if_there, read_object, read_table

COMMAND = "tugofwar dynamics"


@dataclass(frozen=True, eq=False)
class DynamicsTables:
    """How measures change over training; tables of measures by level."""

    manifest: dict[str, Any]
    index: dict[str, pd.DataFrame]
    gd: dict[str, pd.DataFrame]
    gm: dict[str, pd.DataFrame]
    loss: pd.DataFrame | None
    routing: pd.DataFrame | None

    @property
    def tasks(self) -> dict[str, str]:
        """Task of each dataset, where it is known."""
        return dict(self.manifest.get("tasks") or {})


def read_dynamics(folder: Path) -> DynamicsTables:
    """Read the tables in a folder.

    Raises:
        UserError: tables that are missing or damaged.
    """
    cells = ("step", "row", "column", "value", "low", "high")
    return DynamicsTables(
        manifest=read_object(folder / "manifest.json", COMMAND, ("steps", "batches", "interval_level")),
        index=_by_level(folder, "index", ("step", "name", "index")),
        gd=_by_level(folder, "gd", cells),
        gm=_by_level(folder, "gm", cells),
        loss=read_if_there(folder / "loss.csv", COMMAND, ("step", "dataset", "loss")),
        routing=read_if_there(folder / "routing.csv", COMMAND, ("step", "stage", "task", "expert", "weight")),
    )


def _by_level(folder: Path, measure: str, columns: tuple[str, ...]) -> dict[str, pd.DataFrame]:
    tables = {
        level: read_table(folder / f"{measure}_{level}.csv", COMMAND, columns) for level in levels_of(folder, measure)
    }
    return {level: table for level, table in tables.items() if not table.empty}
