"""The tables of ``tugofwar features``: ``RUN/features``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from figures.tables.reading import read_if_there, read_object, read_table

COMMAND = "tugofwar features"
DIMENSIONS = (2, 3)
_SEPARATION = ("stage", "label", "name", "measure", "value", "low", "high")


@dataclass(frozen=True, eq=False)
class FeatureTables:
    """What a module does to features.

    Attributes:
        manifest: settings and sizes.
        embeddings: 2 and 3 to t-SNE coordinates; a number of dimensions without points is not in it.
        separation: silhouette and kNN purity; None where there is nothing to tell apart.
        alignment: linear CKA between both stages.
        stability: of the pictures over seeds.
    """

    manifest: dict[str, Any]
    embeddings: dict[int, pd.DataFrame]
    separation: pd.DataFrame | None
    alignment: pd.DataFrame | None
    stability: pd.DataFrame | None

    @property
    def tasks(self) -> dict[str, str]:
        """Task of each dataset, where it is known."""
        return dict(self.manifest.get("tasks") or {})


def read_features(folder: Path) -> FeatureTables:
    """Read the tables in a folder.

    Raises:
        UserError: tables that are missing or damaged.
    """
    axes = {2: ("x", "y"), 3: ("x", "y", "z")}
    embeddings = {
        number: read_table(
            folder / f"embedding_{number}d.csv", COMMAND, ("stage", "seed", "sample", "dataset", *axes[number])
        )
        for number in DIMENSIONS
        if (folder / f"embedding_{number}d.csv").is_file()
    }
    return FeatureTables(
        manifest=read_object(
            folder / "manifest.json", COMMAND, ("modules", "pca", "pooling", "seeds", "interval_level")
        ),
        embeddings={number: table for number, table in embeddings.items() if not table.empty},
        separation=read_if_there(
            folder / "separation.csv", COMMAND, ("stage", "label", "name", "measure", "value", "low", "high")
        ),
        alignment=read_if_there(folder / "alignment.csv", COMMAND, ("name", "value", "low", "high")),
        stability=read_if_there(folder / "stability.csv", COMMAND, ("stage", "dimensions", "measure", "value")),
    )
