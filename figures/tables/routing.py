"""The tables of ``tugofwar routing``: ``RUN/routing``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from figures.tables.reading import read_if_there, read_object, read_table

COMMAND = "tugofwar routing"
_COLUMNS = {
    "weights": ("checkpoint", "router", "level", "name", "expert", "weight", "low", "high", "samples"),
    "load": ("checkpoint", "router", "level", "name", "expert", "load", "low", "high", "dead"),
    "measures": ("checkpoint", "router", "level", "name", "measure", "value", "low", "high"),
}
_OPTIONAL = {
    "information": ("checkpoint", "router", "level", "value", "low", "high", "null_high", "p_value"),
    "divergence": ("checkpoint", "router", "level", "row", "column", "value", "low", "high"),
    "switched_off": ("checkpoint", "router", "expert", "level", "name", "loss", "change", "low", "high", "batches"),
    "tokens": ("checkpoint", "router", "dataset", "image", "token", "left", "top", "right", "bottom", "expert"),
}


@dataclass(frozen=True, eq=False)
class RoutingTables:
    """How the routers of one run divide the work; a table that does not exist for a run is None.

    ``images``: file name of each image of ``tokens`` to its path.
    """

    manifest: dict[str, Any]
    weights: pd.DataFrame
    load: pd.DataFrame
    measures: pd.DataFrame
    information: pd.DataFrame | None
    divergence: pd.DataFrame | None
    switched_off: pd.DataFrame | None
    tokens: pd.DataFrame | None
    images: dict[str, Path]

    @property
    def checkpoints(self) -> list[str]:
        """Names of the checkpoints, in the order of training where their steps are known."""
        return list(self.labels)

    @property
    def labels(self) -> dict[str, str]:
        """What each checkpoint is called in a picture, in the same order."""
        entries = self.manifest["checkpoints"]
        if all("step" in entry for entry in entries):
            entries = sorted(entries, key=lambda entry: entry["step"])
        return {entry["name"]: entry.get("label", entry["name"]) for entry in entries}

    @property
    def routers(self) -> list[str]:
        """Names of the routers."""
        return [entry["name"] for entry in self.manifest["routers"]]

    @property
    def tasks(self) -> dict[str, str]:
        """Task of each dataset, where it is known."""
        return dict(self.manifest.get("tasks") or {})

    @property
    def units(self) -> dict[str, int]:
        """What the bootstrap draws of each dataset: images, or samples where each is by itself."""
        return dict(self.manifest.get("units") or self.manifest.get("samples") or {})

    @property
    def last(self) -> str:
        """The checkpoint that findings speak of: the last one."""
        return self.checkpoints[-1]

    @property
    def level(self) -> str:
        """The level that findings speak of: tasks where they are known."""
        return "task" if "task" in set(self.weights["level"]) else "dataset"

    @property
    def interval_level(self) -> float:
        """Of the intervals, such as 0.95."""
        return float(self.manifest["interval_level"])

    def experts(self, router: str) -> int:
        """How many experts a router has."""
        return int(self.weights.loc[self.weights["router"] == router, "expert"].nunique())

    def at_end(self, table: pd.DataFrame | None, router: str) -> pd.DataFrame:
        """Rows of one of the tables about a router at the last checkpoint; without rows where there is no table."""
        if table is None:
            return pd.DataFrame()
        return table[(table["router"] == router) & (table["checkpoint"] == self.last)]


def read_routing(folder: Path) -> RoutingTables:
    """Read the tables in a folder.

    Raises:
        UserError: tables that are missing or damaged.
    """
    tables = {name: read_table(folder / f"{name}.csv", COMMAND, columns) for name, columns in _COLUMNS.items()}
    others = {name: read_if_there(folder / f"{name}.csv", COMMAND, columns) for name, columns in _OPTIONAL.items()}
    return RoutingTables(
        manifest=read_object(folder / "manifest.json", COMMAND, ("checkpoints", "routers", "interval_level")),
        weights=tables["weights"],
        load=tables["load"],
        measures=tables["measures"],
        information=others["information"],
        divergence=others["divergence"],
        switched_off=others["switched_off"],
        tokens=others["tokens"],
        images={path.name: path for path in sorted((folder / "images").glob("*.png"))},
    )
