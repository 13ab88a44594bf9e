"""Where do tasks fight: GD, GM and indexes (eq. 2 to 4) on each expert, the router, the task tokens, each layer.

* ``blocks.csv``: the groups of blocks;
* ``gd_<level>_blocks.csv``, ``gm_<level>_blocks.csv``, ``index_<level>_blocks.csv``:
  the measures on the parameters of each group alone, with single intervals.

What does not exist on a group has no row: datasets without a gradient there, or without a GD.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analyses.block_groups import BlockGroup, group_blocks
from tugofwar.errors import UserError
from tugofwar.metrics import (
    DEFAULT_ESTIMATOR,
    along_group,
    gradient_direction,
    gradient_magnitude_similarity,
    tug_of_war_index,
    unit_products,
)
from tugofwar.recording import Recording
from tugofwar.strata import build_groups
from tugofwar.uncertainty import Intervals, bootstrap_intervals

# Resamples behind the intervals of a group: there may be 40 groups, and nothing is tested.
RESAMPLES = 200

Rows = Mapping[str, Sequence[int]]
Gram = NDArray[np.float64]


@dataclass(frozen=True)
class GroupMeasures:
    """GD and GM ``(T, T)`` and indexes ``(T,)`` on one group of blocks, by the default estimator.

    ``batches``: number of batches by name; ``intervals``: their uncertainty, in the order of the names.
    """

    batches: Mapping[str, int]
    gd: Gram
    gm: Gram
    index: Gram
    intervals: Intervals


@dataclass(frozen=True)
class Breakdown:
    """Measures by group of blocks.

    Attributes:
        groups: of blocks.
        levels: per level and label of a group its measures; a group on which nothing exists is not in it.
        left_out: per level and label, sentences about what does not exist there.
        resamples: draws behind the intervals.
    """

    groups: Sequence[BlockGroup]
    levels: Mapping[str, Mapping[str, GroupMeasures]]
    left_out: Mapping[str, Mapping[str, Sequence[str]]]
    resamples: int


def break_down(recording: Recording, resamples: int = RESAMPLES, level: float = 0.95, seed: int = 0) -> Breakdown:
    """Measure every group of blocks by itself, by the default estimator.

    Args:
        recording: what ``record`` returned.
        resamples: bootstrap draws behind every interval.
        level: probability that an interval should cover the truth.
        seed: seed of the bootstrap.
    """
    groups = group_blocks(recording.blocks)
    names = ["dataset", "task"] if recording.tasks else ["dataset"]
    measured: dict[str, dict[str, GroupMeasures]] = {name: {} for name in names}
    left_out: dict[str, dict[str, list[str]]] = {name: {} for name in names}
    for group in groups:
        gram = _gram(recording, group)
        for name in names:
            rows, sentences = _existing(gram, recording, name)
            if rows:
                try:
                    measured[name][group.label] = _measure(gram, rows, recording.datasets, resamples, level, seed)
                except UserError as reason:
                    sentences.append(f"no {name} has a row here: {reason}")
            if sentences:
                left_out[name][group.label] = sentences
    return Breakdown(groups, measured, left_out, resamples)


def breakdown_tables(breakdown: Breakdown) -> dict[str, pd.DataFrame]:
    """The tables (see the module's text) by file name; measures that exist on no group have none."""
    columns = ["block", "kind", "members", "parameters"]
    groups = [(group.label, group.kind, len(group.blocks), group.parameters) for group in breakdown.groups]
    tables = {"blocks.csv": pd.DataFrame(groups, columns=columns)}
    for level, results in breakdown.levels.items():
        if results:
            for measure in ("gd", "gm"):
                cells = pd.concat([_cells(label, found, measure) for label, found in results.items()])
                tables[f"{measure}_{level}_blocks.csv"] = cells
            tables[f"index_{level}_blocks.csv"] = pd.concat([_indexes(*result) for result in results.items()])
    return tables


def _gram(recording: Recording, group: BlockGroup) -> Gram:
    kept = tuple(block for block in recording.blocks if block.name in group.blocks)
    return replace(recording, blocks=kept).gram


def _existing(gram: Gram, recording: Recording, level: str) -> tuple[Rows, list[str]]:
    """Rows of each dataset or task that has GD here, and why others have not."""
    norms, unit = np.diagonal(gram), unit_products(gram)
    touching = {name: rows for name, rows in recording.rows.items() if norms[rows].any()}
    sentences = [f"{name} has no gradient here" for name in recording.rows if name not in touching]
    kept: dict[str, list[int]] = {}
    for name, rows in touching.items():
        kept.setdefault(name if level == "dataset" else recording.tasks[name], []).extend(rows)
    for name, rows in list(kept.items()):
        (group,) = build_groups({name: rows}, len(gram), recording.datasets)
        if group.weights(len(gram)) @ along_group(unit, group, leave_out=True) == 0:
            sentences.append(f"{name} has no GD here: its batches share no direction")
            del kept[name]
    return kept, sentences


def _measure(gram: Gram, rows: Rows, datasets: Sequence[str], resamples: int, level: float, seed: int) -> GroupMeasures:
    gd = gradient_direction(gram, rows, DEFAULT_ESTIMATOR, datasets)
    gm = gradient_magnitude_similarity(gram, rows, datasets)
    intervals = bootstrap_intervals(gram, rows, DEFAULT_ESTIMATOR, datasets, resamples, level, seed)
    batches = {name: len(members) for name, members in rows.items()}
    return GroupMeasures(batches, gd, gm, tug_of_war_index(gd, gm), intervals)


def _cells(label: str, found: GroupMeasures, measure: str) -> pd.DataFrame:
    names = list(found.batches)
    bounds = getattr(found.intervals, measure)
    return pd.DataFrame(
        {
            "block": label,
            "row": [row for row in names for _ in names],
            "column": names * len(names),
            "value": getattr(found, measure).reshape(-1),
            "low": bounds.low.reshape(-1),
            "high": bounds.high.reshape(-1),
        }
    )


def _indexes(label: str, found: GroupMeasures) -> pd.DataFrame:
    names = list(found.batches)
    bounds = found.intervals.index
    assert bounds is not None
    return pd.DataFrame(
        {
            "block": label,
            "name": names,
            "batches": list(found.batches.values()),
            "index": found.index,
            "low": bounds.low,
            "high": bounds.high,
            "sign_uncertain": [name in found.intervals.sign_uncertain for name in names],
        }
    )
