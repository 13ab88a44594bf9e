"""The tables of ``tugofwar gradients``: ``RUN/gradients``."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from figures.errors import UserError
from figures.tables.reading import levels_of, read_if_there, read_indexed, read_object, read_square, read_table

COMMAND = "tugofwar gradients"
LEVELS = ("dataset", "task")
_INTERVALS = ("value", "low", "high", "simultaneous_low", "simultaneous_high", "p_value")
_SCORES = ("interval_low", "interval_high", "share", "low", "high", "null_signs", "null_no_conflict")
_BLOCK_CELLS = ("block", "row", "column", "value", "low", "high")


@dataclass(frozen=True, eq=False)
class LevelTables:
    """One level of one run, as docs/formats.md has it.

    Attributes:
        gd: square, row interfered with, column interfering.
        gm: square.
        gd_intervals: long, of the default estimator alone.
        gm_intervals: long.
        index: by name.
        sign_uncertain: names whose row of GD is not to be trusted.
        scores: ten intervals of the statistics score; None where they were not counted.
        score_blocks: the same by block.
        gd_blocks: long, by group of blocks; None in tables of older versions, as the next two.
        gm_blocks: the same of GM.
        index_blocks: by group of blocks and name.
    """

    gd: pd.DataFrame
    gm: pd.DataFrame
    gd_intervals: pd.DataFrame
    gm_intervals: pd.DataFrame
    index: pd.DataFrame
    sign_uncertain: tuple[str, ...]
    scores: pd.DataFrame | None = None
    score_blocks: pd.DataFrame | None = None
    gd_blocks: pd.DataFrame | None = None
    gm_blocks: pd.DataFrame | None = None
    index_blocks: pd.DataFrame | None = None


@dataclass(frozen=True, eq=False)
class GradientTables:
    """Everything that was measured of one run's gradients.

    Attributes:
        name: the run's name.
        levels: ``dataset`` and, where tasks are known, ``task``.
        tasks: task of each dataset, where it is known.
        untouched: datasets without a gradient on the selected parameters.
        estimator: of GD, by default.
        interval_level: probability that an interval should cover the truth.
        resamples: bootstrap draws behind the intervals.
        metadata: the recording's settings and digests.
        blocks: groups of blocks, see ``blocks.csv``; None in tables of older versions.
        undefined: per level the number of parameters without a statistics score, and of all; empty without scores.
    """

    name: str
    levels: dict[str, LevelTables]
    tasks: dict[str, str]
    untouched: tuple[str, ...]
    estimator: str
    interval_level: float
    resamples: int
    metadata: dict[str, Any]
    blocks: pd.DataFrame | None
    undefined: dict[str, tuple[int, int]]

    @property
    def batches(self) -> tuple[int, ...]:
        """The different numbers of batches per dataset."""
        return tuple(sorted({int(number) for number in self.levels["dataset"].index["batches"]}))


def find_gradients(run: Path) -> Path | None:
    """The folder of a run's gradient tables, or None; a folder of tables is its own."""
    for folder in (run, run / "gradients"):
        if (folder / "interference.json").is_file():
            return folder.resolve()
    return None


def read_gradients(folder: Path, name: str) -> GradientTables:
    """Read the tables in a folder.

    Raises:
        UserError: tables that are missing, damaged or of an older version.
    """
    summary = read_object(folder / "interference.json", COMMAND)
    # The tables of another geometry stand in a folder inside that of the recording.
    own = folder if (folder / "manifest.json").is_file() or folder.name != "adam" else folder.parent
    manifest = read_object(own / "manifest.json", COMMAND)
    try:
        estimator = summary["default_estimator"]
        levels = {
            level: _read_level(folder, level, summary["levels"][level], estimator)
            for level in LEVELS
            if level in summary["levels"]
        }
        return GradientTables(
            name=name,
            levels=levels,
            tasks=summary["tasks"],
            untouched=tuple(summary["untouched"]),
            estimator=estimator,
            interval_level=summary["interval_level"],
            resamples=summary["resamples"],
            metadata=manifest["metadata"],
            blocks=read_if_there(folder / "blocks.csv", COMMAND, ("block", "kind", "members", "parameters")),
            undefined={level: _undefined(folder, level) for level in levels_of(folder, "scores")},
        )
    except KeyError as missing:
        raise UserError(f"The tables in {folder} are incomplete: {missing} is missing; measure again.") from None


def check_comparable(runs: Sequence[GradientTables]) -> None:
    """Raise a UserError unless the runs agree in batches per dataset, batch size and estimator.

    GD's intervals and the statistics behind it depend on the number of batches and on their size.
    """
    first = runs[0]
    for other in runs[1:]:
        for what, mine, theirs in (
            ("batches per dataset", first.batches, other.batches),
            ("batch size", first.metadata.get("batch_size"), other.metadata.get("batch_size")),
            ("estimator", first.estimator, other.estimator),
        ):
            if mine != theirs:
                raise UserError(
                    f"Runs {first.name} and {other.name} cannot be compared, as they differ in {what} "
                    f"({_text(mine)} and {_text(theirs)}); measure both alike."
                )


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _read_level(folder: Path, level: str, summary: dict[str, Any], estimator: str) -> LevelTables:
    gd = read_table(folder / f"gd_{level}_intervals.csv", COMMAND, ("estimator", "row", "column", *_INTERVALS))
    index = read_indexed(folder / f"index_{level}.csv", COMMAND, ("batches", "index", "index_low", "index_high"))
    square = read_square(folder / f"gd_{level}.csv", COMMAND)
    gm = read_table(folder / f"gm_{level}_intervals.csv", COMMAND, ("row", "column", *_INTERVALS))
    for measure, cells in (("gd", gd[gd["estimator"] == estimator]), ("gm", gm)):
        if set(zip(cells["row"], cells["column"], strict=True)) != set(product(square.index, square.index)):
            raise UserError(
                f"{folder / f'{measure}_{level}_intervals.csv'} has other rows and columns than gd_{level}.csv beside "
                f"it; measure the run again with `{COMMAND}`."
            )
    return LevelTables(
        gd=square,
        gm=read_square(folder / f"gm_{level}.csv", COMMAND),
        gd_intervals=gd[gd["estimator"] == estimator].drop(columns="estimator").reset_index(drop=True),
        gm_intervals=gm,
        index=index,
        sign_uncertain=tuple(summary["sign_uncertain"]),
        scores=read_if_there(folder / f"scores_{level}.csv", COMMAND, _SCORES),
        score_blocks=read_if_there(folder / f"scores_{level}_blocks.csv", COMMAND, ("block", *_SCORES)),
        gd_blocks=read_if_there(folder / f"gd_{level}_blocks.csv", COMMAND, _BLOCK_CELLS),
        gm_blocks=read_if_there(folder / f"gm_{level}_blocks.csv", COMMAND, _BLOCK_CELLS),
        index_blocks=read_if_there(
            folder / f"index_{level}_blocks.csv", COMMAND, ("block", "name", "index", "low", "high", "sign_uncertain")
        ),
    )


def _undefined(folder: Path, level: str) -> tuple[int, int]:
    table = read_table(folder / f"scores_{level}_parameters.csv", COMMAND, ("undefined", "parameters"))
    return int(table["undefined"].sum()), int(table["parameters"].sum())
