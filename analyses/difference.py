"""Are two runs different, and what changed surely?

Per level, ``dataset`` and ``task``, the folder holds ``gd_<level>.csv``, ``gm_<level>.csv``, ``index_<level>.csv``
with both runs' values, the difference (b - a), its single and simultaneous interval, adjusted p-value and verdict,
and ``scores_<level>.csv`` with the shares of parameters by statistics score. Only what was probed alike is compared:
equal batches per dataset, batch size and tasks; datasets that one run lacks are left out and named.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from analyses import tables
from tugofwar.differences.alignment import Aligned, align, same_batches
from tugofwar.differences.comparing import NOT_SURE, Change, Difference, difference
from tugofwar.differences.scores import comparable_scores, resampled_alike, score_difference
from tugofwar.errors import UserError
from tugofwar.estimation import task_groups
from tugofwar.folders import check_replaceable, replacing
from tugofwar.recording import Recording
from tugofwar.storage import MANIFEST, format_of, holds, strict_json

KIND = "difference"
FORMAT_VERSION = 1


@dataclass(frozen=True, eq=False)
class Recorded:
    """A recording that was found under a path.

    Attributes:
        name: of the run.
        run: its folder.
        recording: in the geometry that the path names.
        digest: SHA-256 of the recording's numbers.
        geometry: ``adam``, or None for the plain gradient.
    """

    name: str
    run: Path
    recording: Recording
    digest: str
    geometry: str | None = None


@dataclass(frozen=True, eq=False)
class RunDifference:
    """Two runs, what differs by level, and where the tables are.

    Attributes:
        a: the first run.
        b: the second.
        aligned: both recordings on the datasets that they share.
        levels: ``dataset`` and, where tasks are known, ``task``.
        scores: shares of parameters by statistics score, by level.
        without_scores: why there are none; empty if there are.
        seed: of the bootstrap.
        folder: where the tables were written.
    """

    a: Recorded
    b: Recorded
    aligned: Aligned
    levels: Mapping[str, Difference]
    scores: Mapping[str, pd.DataFrame]
    without_scores: str
    seed: int
    folder: Path


def find_recordings(a: Path, b: Path) -> tuple[Recorded, Recorded]:
    """The recordings of two runs, with names that tell them apart.

    Args:
        a: a run with ``gradients/``, a folder of a recording, or ``.../gradients/adam``.
        b: another.

    Raises:
        UserError: no recording there, a damaged one, or different geometries.
    """
    one, other = _find(a), _find(b)
    if one.geometry != other.geometry:
        shown = [found.geometry or "the plain gradient" for found in (one, other)]
        raise UserError(
            f"The recordings cannot be compared: {a} is in the geometry of {shown[0]} and {b} in that of {shown[1]}; "
            "name both alike, such as RUN/gradients/adam."
        )
    if one.name == other.name and one.run != other.run:
        one, other = (replace(found, name=f"{found.run.parent.name}_{found.name}") for found in (one, other))
    return one, other


def write_difference(
    a: Path,
    b: Path,
    out: Path | None = None,
    paired: bool | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    quiet: bool = True,
) -> RunDifference:
    """Compare two runs and write the tables, all or nothing.

    Args:
        a: the first run; see ``find_recordings``.
        b: the second.
        out: output folder; by default ``<b>/difference/<name of a>``.
        paired: whether both were probed with the same batches; None to find out (``alignment.same_batches``).
        resamples: bootstrap draws behind the intervals.
        level: probability that an interval should cover the truth.
        seed: seed of the bootstrap.
        quiet: no progress bar.

    Raises:
        UserError: recordings that do not compare, a measure that does not exist, or an output folder that holds
            something else.
    """
    one, other = find_recordings(a, b)
    folder = other.run / "difference" / one.name if out is None else out
    check_replaceable(folder, KIND)
    aligned = align(one.recording, other.recording)
    groupings: dict[str, Mapping[str, Sequence[str]] | None] = {"dataset": None}
    if aligned.a.tasks:
        groupings["task"] = task_groups(aligned.a)
    together = same_batches(aligned.a, aligned.b) if paired is None else paired
    levels = {
        name: difference(aligned.a, aligned.b, groups, resamples=resamples, level=level, seed=seed, paired=together)
        for name, groups in tqdm(groupings.items(), desc="comparing", unit="level", disable=quiet)
    }
    scores, reason = _scores(one.recording, other.recording, together, level, seed)
    found = RunDifference(one, other, aligned, levels, scores, reason, seed, folder)
    frames = dict(_tables(found))
    for file, frame in frames.items():
        tables.check_complete(file, frame)
    text = strict_json(_manifest(found))
    with replacing(folder, KIND) as room:
        for file, frame in frames.items():
            frame.to_csv(room / file, index=False, lineterminator="\n")
        (room / MANIFEST).write_text(text, encoding="utf-8")
    return found


def summary(found: RunDifference) -> dict[str, Any]:
    """What a command prints, as JSON values.

    Returns:
        ``folder``, all of ``manifest.json``, and under ``levels`` per level for each measure: ``compared`` (number of
        cells), ``sure`` (those that changed surely, largest first), and the last row of the ``scores``.
    """
    levels: dict[str, Any] = {}
    for level, difference_ in found.levels.items():
        levels[level] = {name: _measure_summary(change) for name, change in _changes(difference_)}
        if level in found.scores:
            levels[level]["scores"] = found.scores[level].iloc[-1].to_dict()
    return {"folder": str(found.folder), **_manifest(found), "levels": levels}


def _find(path: Path) -> Recorded:
    for folder in (path, path / "gradients"):
        if (folder / MANIFEST).is_file() and not holds(folder, "recording"):
            continue
        if holds(folder, "recording"):
            return _open(folder, None)
    if holds(path.parent, "recording"):
        return _open(path.parent, path.name)
    if (path / "gradients" / MANIFEST).is_file():
        Recording.load(path / "gradients")  # says what is wrong with it
    raise UserError(
        f"There is no recording in {path}; name a run with gradients/, or a folder that `tugofwar gradients` wrote."
    )


def _open(folder: Path, geometry: str | None) -> Recorded:
    recording = Recording.load(folder)
    digest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["tensors_sha256"]
    resolved = folder.resolve()
    run = resolved.parent if resolved.name == "gradients" else resolved
    if geometry is None:
        return Recorded(run.name, run, recording, digest)
    return Recorded(f"{run.name}_{geometry}", run, recording.in_geometry(geometry), digest, geometry)


def _scores(a: Recording, b: Recording, paired: bool, level: float, seed: int) -> tuple[dict[str, pd.DataFrame], str]:
    """Differences of the shares by level, or why there are none."""
    if a.statistics is None or b.statistics is None:
        return {}, "statistics scores were not counted in both runs"
    if not comparable_scores(a.statistics, b.statistics):
        return {}, "statistics scores of the runs are between different datasets"
    together = paired and resampled_alike(a.statistics, b.statistics)
    found = {
        name: score_difference(a.statistics, b.statistics, name, together, level, seed) for name in a.statistics.levels
    }
    kept = {name: table for name, table in found.items() if table is not None}
    return kept, "" if kept else "statistics scores have no replicates"


def _changes(found: Difference) -> Iterator[tuple[str, Change]]:
    yield "gd", found.gd
    yield "gm", found.gm
    yield "index", found.index
    if found.index_normalised is not None:
        yield "index_normalised", found.index_normalised


def _tables(found: RunDifference) -> Iterator[tuple[str, pd.DataFrame]]:
    for level, difference_ in found.levels.items():
        indexes = []
        for name, change in _changes(difference_):
            table = _change_table(change)
            if name in ("gd", "gm"):
                yield f"{name}_{level}.csv", table
            else:
                table.insert(0, "measure", name)
                indexes.append(table)
        yield f"index_{level}.csv", pd.concat(indexes, ignore_index=True)
    for level, table in found.scores.items():
        yield f"scores_{level}.csv", table


def _change_table(change: Change) -> pd.DataFrame:
    """One row per cell, ``row`` and ``column`` or ``name`` first."""
    columns = {
        "a": change.a,
        "b": change.b,
        "difference": change.difference,
        "low": change.interval.low,
        "high": change.interval.high,
        "simultaneous_low": change.simultaneous.low,
        "simultaneous_high": change.simultaneous.high,
        "p_value": change.p_values,
        "verdict": change.verdicts(),
    }
    names = list(change.a.index)
    cells: dict[str, list[Any]] = {"name": names}
    if isinstance(change.a, pd.DataFrame):
        cells = {"row": [row for row in names for _ in names], "column": names * len(names)}
    return pd.DataFrame(cells | {name: values.to_numpy().reshape(-1) for name, values in columns.items()})


def _measure_summary(change: Change) -> dict[str, Any]:
    table = _change_table(change)
    if "row" in table:
        table = table[table["row"] != table["column"]]
    sure = table[table["verdict"] != NOT_SURE]
    largest = sure["difference"].abs().sort_values(ascending=False, kind="stable").index
    return {"compared": len(table), "sure": sure.loc[largest].to_dict(orient="records")}


def _manifest(found: RunDifference) -> dict[str, Any]:
    default = found.levels["dataset"]
    metadata = found.a.recording.metadata
    size = {"batch_size": metadata["batch_size"]} if "batch_size" in metadata else {}
    geometry = {"geometry": found.a.geometry} if found.a.geometry else {}
    return {
        "format": format_of(KIND),
        "format_version": FORMAT_VERSION,
        "a": {"name": found.a.name, "sha256": found.a.digest},
        "b": {"name": found.b.name, "sha256": found.b.digest},
        **geometry,
        "paired": default.paired,
        "estimator": default.estimator,
        "batches": dict(default.batches),
        **size,
        "interval_level": default.level,
        "resamples": default.resamples,
        "seed": found.seed,
        "left_out": [*found.aligned.only_a, *found.aligned.only_b],
        "only_in": {"a": list(found.aligned.only_a), "b": list(found.aligned.only_b)},
        "sign_uncertain": [name for each in found.levels.values() for name in each.sign_uncertain],
        "without_scores": found.without_scores,
    }
