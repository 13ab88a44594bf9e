"""The tables of measured runs, read back from ``RUN/gradients`` and checked for being comparable."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from figures.errors import UserError

LEVELS = ("dataset", "task")


@dataclass(frozen=True, eq=False)
class LevelTables:
    """One level of one run: square GD and GM, long intervals, and indexes by name."""

    gd: pd.DataFrame
    gm: pd.DataFrame
    gd_intervals: pd.DataFrame
    gm_intervals: pd.DataFrame
    index: pd.DataFrame
    sign_uncertain: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class RunTables:
    """Everything that is drawn of one run."""

    name: str
    levels: dict[str, LevelTables]
    tasks: dict[str, str]
    untouched: tuple[str, ...]
    estimator: str
    interval_level: float
    resamples: int
    metadata: dict[str, Any]

    @property
    def batches(self) -> tuple[int, ...]:
        """The different numbers of batches per dataset."""
        return tuple(sorted({int(number) for number in self.levels["dataset"].index["batches"]}))


def read_runs(runs: Sequence[Path]) -> list[RunTables]:
    """Read every run's tables.

    Raises:
        UserError: no runs, two of one name, or a run without (complete) tables.
    """
    if not runs:
        raise UserError("There are no runs to draw; name at least one run folder.")
    folders = [_gradients_folder(run) for run in runs]
    names = _run_names(folders)
    return [_read_run(folder, name) for folder, name in zip(folders, names, strict=True)]


def check_comparable(runs: Sequence[RunTables]) -> None:
    """Raise a UserError unless the runs agree in batches per dataset, batch size, datasets and estimator.

    GD's intervals and the statistics behind it depend on the number of batches and on their size, and an
    index is a sum over the datasets that were measured.
    """
    first = runs[0]
    for other in runs[1:]:
        for what, mine, theirs in (
            ("batches per dataset", first.batches, other.batches),
            ("batch size", first.metadata.get("batch_size"), other.metadata.get("batch_size")),
            ("datasets", _names(first), _names(other)),
            ("estimator", first.estimator, other.estimator),
        ):
            if mine != theirs:
                raise UserError(
                    f"Runs {first.name} and {other.name} cannot be compared: their {what} differ "
                    f"({_text(mine)} and "
                    f"{_text(theirs)}); measure both alike."
                )


def _names(run: RunTables) -> list[str]:
    return sorted(run.levels["dataset"].gd.columns.astype(str))


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _gradients_folder(run: Path) -> Path:
    if not run.is_dir():
        raise UserError(f"There is no run folder {run}.")
    folder = run if (run / "interference.json").is_file() else run / "gradients"
    if not (folder / "interference.json").is_file():
        raise UserError(
            f"{run} has no measured gradients; make them with `tugofwar gradients --ckpt {run} --data ROOT`, or for a "
            f"model of your own with `tugofwar gradients --setup FILE.py:FUNCTION --out {run / 'gradients'}`."
        )
    return folder.resolve()


def _run_names(folders: Sequence[Path]) -> list[str]:
    """Last part of each path that tells the runs apart, without the folder ``gradients``."""
    paths = [_without_gradients(folder) for folder in folders]
    names = [path.name for path in paths]
    if len(set(names)) < len(names):
        names = [f"{path.parent.name}_{path.name}" for path in paths]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"Two runs have the name {name}; rename one, or name each run once.")
    return names


def _without_gradients(folder: Path) -> Path:
    """``runs/cmoe`` for ``runs/cmoe/gradients``, ``runs/cmoe_adam`` for ``runs/cmoe/gradients/adam``."""
    if folder.parent.name == "gradients":
        return folder.parent.parent.with_name(f"{folder.parent.parent.name}_{folder.name}")
    return folder.parent if folder.name == "gradients" else folder


def _read_run(folder: Path, name: str) -> RunTables:
    summary = _read_json(folder / "interference.json")
    # The tables of another geometry stand in a folder inside that of the recording.
    own = folder if (folder / "manifest.json").is_file() or folder.name != "adam" else folder.parent
    manifest = _read_json(own / "manifest.json")
    try:
        levels = {level: _read_level(folder, level, summary) for level in LEVELS if level in summary["levels"]}
        return RunTables(
            name=name,
            levels=levels,
            tasks=summary["tasks"],
            untouched=tuple(summary["untouched"]),
            estimator=summary["default_estimator"],
            interval_level=summary["interval_level"],
            resamples=summary["resamples"],
            metadata=manifest["metadata"],
        )
    except KeyError as missing:
        raise UserError(f"The tables in {folder} are incomplete: {missing} is missing; measure again.") from None


def _read_level(folder: Path, level: str, summary: dict[str, Any]) -> LevelTables:
    return LevelTables(
        gd=_read_csv(folder / f"gd_{level}.csv", index=True),
        gm=_read_csv(folder / f"gm_{level}.csv", index=True),
        gd_intervals=_read_csv(folder / f"gd_{level}_intervals.csv"),
        gm_intervals=_read_csv(folder / f"gm_{level}_intervals.csv"),
        index=_read_csv(folder / f"index_{level}.csv", index=True),
        sign_uncertain=tuple(summary["levels"][level]["sign_uncertain"]),
    )


def _read_csv(path: Path, index: bool = False) -> pd.DataFrame:
    if not path.is_file():
        raise UserError(f"{path} is missing; measure the run again with `tugofwar gradients`.")
    try:
        # Names such as "NA" are names; no cell of these tables is empty.
        table = pd.read_csv(path, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError):
        raise UserError(f"{path} is not a readable table; measure the run again.") from None
    # A dataset may be called 2024; its name is text all the same.
    table[table.columns[0]] = table[table.columns[0]].astype(str)
    return table.set_index(table.columns[0]) if index else table


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; measure the run again with `tugofwar gradients`.") from None
    except ValueError:
        raise UserError(f"{path} is truncated or not JSON; measure the run again.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is not what `tugofwar gradients` writes; measure the run again.")
    return content
