"""interference(): the measures of a recording, labelled, with intervals (eq. 2 to 4).

Not called interference.py: a submodule of that name would shadow the function ``tugofwar.interference``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from tugofwar.errors import UserError
from tugofwar.metrics import (
    DEFAULT_ESTIMATOR,
    Array,
    check_estimator,
    gradient_direction,
    gradient_magnitude_similarity,
    maximum_normalised,
    tug_of_war_index,
)
from tugofwar.recording import Recording
from tugofwar.strata import build_groups
from tugofwar.uncertainty import Bounds, Intervals, bootstrap_intervals

Table: TypeAlias = pd.DataFrame | pd.Series


class LabelledBounds(NamedTuple):
    """Lower and upper ends of intervals, labelled like the measure."""

    low: Table
    high: Table


@dataclass(frozen=True, eq=False)
class Interference:
    """How datasets (or groups of them) interfere on the selected parameters.

    Attributes:
        estimator: how GD was estimated: ``plugin``, ``leave_one_out`` or ``ratio_of_means``.
        gd: gradient-direction interference (eq. 2); row interfered with, column interfering.
        gm: gradient-magnitude similarity (eq. 3).
        index: tug-of-war index (eq. 4).
        index_normalised: index divided by the largest; None where the largest is not positive.
        intervals: bootstrap intervals by measure name (``gd``, ``gm``, ``index``, ``index_normalised``); a
            measure without an interval is not in it (all but ``gm`` for the plugin; none without resamples).
        level: probability that an interval should cover the truth.
        resamples: bootstrap draws behind the intervals, 0 for none.
        batches: number of batches of each group.
        sign_uncertain: groups whose GD denominator may have either sign: their row of GD is not to be
            trusted.
        untouched: datasets without a gradient on the selected parameters; they are left out.
    """

    estimator: str
    gd: pd.DataFrame
    gm: pd.DataFrame
    index: pd.Series
    index_normalised: pd.Series | None
    intervals: Mapping[str, LabelledBounds]
    level: float
    resamples: int
    batches: Mapping[str, int]
    sign_uncertain: tuple[str, ...]
    untouched: tuple[str, ...]


def interference(
    recording: Recording,
    groups: Mapping[str, Sequence[str] | Sequence[int]] | None = None,
    estimator: str = DEFAULT_ESTIMATOR,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interference:
    """GD, GM and tug-of-war indexes of a recording, with bootstrap intervals.

    Args:
        recording: what ``record`` returned, or a selection of its blocks.
        groups: name to dataset names (or to row numbers); by default one group per dataset. A group that
            pools several datasets gives each the same weight. ``task_groups`` makes the grouping by task.
        estimator: see ``metrics.gradient_direction``.
        resamples: bootstrap draws; 0 for no intervals.
        level: probability that an interval should cover the truth.
        seed: seed of the bootstrap.

    Raises:
        UserError: a group that names an unknown or untouched dataset, or a measure that does not exist.
    """
    check_estimator(estimator)
    gram = recording.gram
    idle = _idle_datasets(recording, gram)
    rows = _rows_of_groups(recording, groups, idle)
    names = pd.Index(list(rows))
    gd = gradient_direction(gram, rows, estimator, recording.datasets)
    gm = gradient_magnitude_similarity(gram, rows, recording.datasets)
    index = tug_of_war_index(gd, gm)
    intervals = None
    if resamples and not _plugin_of_single_batches(estimator, rows, recording):
        intervals = bootstrap_intervals(gram, rows, estimator, recording.datasets, resamples, level, seed)
    return Interference(
        estimator=estimator,
        gd=pd.DataFrame(gd, index=names, columns=names),
        gm=pd.DataFrame(gm, index=names, columns=names),
        index=pd.Series(index, index=names, name="index"),
        index_normalised=_normalised(index, names),
        intervals=_labelled(intervals, names) if intervals else {},
        level=level,
        resamples=intervals.resamples if intervals else 0,
        batches={name: len(members) for name, members in rows.items()},
        sign_uncertain=intervals.sign_uncertain if intervals else (),
        untouched=recording.untouched + idle,
    )


def task_groups(recording: Recording) -> dict[str, list[str]]:
    """Datasets of each task, without those that the selected parameters do not touch.

    Raises:
        UserError: the recording does not say which task its datasets belong to.
    """
    idle = _idle_datasets(recording, recording.gram)
    groups: dict[str, list[str]] = {}
    for dataset in recording.rows:
        if dataset not in recording.tasks:
            raise UserError(f"The recording does not say which task dataset {dataset!r} belongs to; give `tasks`.")
        if dataset not in idle:
            groups.setdefault(recording.tasks[dataset], []).append(dataset)
    return groups


def _idle_datasets(recording: Recording, gram: Array) -> tuple[str, ...]:
    norms = np.diagonal(gram)
    return tuple(name for name, rows in recording.rows.items() if not norms[rows].any())


def _rows_of_groups(
    recording: Recording, groups: Mapping[str, Sequence[str] | Sequence[int]] | None, idle: tuple[str, ...]
) -> dict[str, list[int]]:
    rows = recording.rows
    if groups is None:
        touching = {name: members for name, members in rows.items() if name not in idle}
        if not touching:
            raise UserError(f"No dataset has a gradient on the selected blocks: {', '.join(idle)} do not touch them.")
        return touching
    return {name: _rows_of_group(recording, name, members, idle) for name, members in groups.items()}


def _rows_of_group(
    recording: Recording, group: str, members: Sequence[str] | Sequence[int], idle: tuple[str, ...]
) -> list[int]:
    if isinstance(members, str):
        raise UserError(f"Group {group!r} must be a list of datasets or rows, not the text {members!r}.")
    known = recording.rows
    chosen: list[int] = []
    for member in members:
        if not isinstance(member, str):
            chosen.append(int(member))
        elif member in recording.untouched or member in idle:
            raise UserError(f"Group {group!r} names dataset {member!r}, which does not touch the selected parameters.")
        elif member not in known:
            raise UserError(f"Group {group!r} names dataset {member!r}; the recording has {', '.join(known)}.")
        else:
            chosen.extend(known[member])
    return chosen


def _plugin_of_single_batches(estimator: str, rows: Mapping[str, Sequence[int]], recording: Recording) -> bool:
    """One batch per dataset is enough for the plugin's point, but there is nothing to resample."""
    groups = build_groups(rows, len(recording), recording.datasets)
    return estimator == "plugin" and any(len(s.rows) < 2 for group in groups for s in group.strata)


def _normalised(index: Array, names: pd.Index) -> pd.Series | None:
    if not index.max() > 0:
        return None
    return pd.Series(maximum_normalised(index), index=names, name="index_normalised")


def _labelled(intervals: Intervals, names: pd.Index) -> dict[str, LabelledBounds]:
    measures = {
        "gd": intervals.gd,
        "gm": intervals.gm,
        "index": intervals.index,
        "index_normalised": intervals.index_normalised,
    }
    return {name: _label(bounds, names) for name, bounds in measures.items() if bounds is not None}


def _label(bounds: Bounds, names: pd.Index) -> LabelledBounds:
    if bounds.low.ndim == 2:
        return LabelledBounds(*(pd.DataFrame(end, index=names, columns=names) for end in (bounds.low, bounds.high)))
    return LabelledBounds(*(pd.Series(end, index=names) for end in (bounds.low, bounds.high)))
