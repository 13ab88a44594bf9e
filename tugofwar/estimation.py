"""interference(): the measures of a recording, labelled, with intervals and p-values (eq. 2 to 4).

Not called interference.py: a submodule of that name would shadow the function ``tugofwar.interference``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tugofwar.errors import UserError
from tugofwar.metrics import (
    DEFAULT_ESTIMATOR,
    Array,
    check_estimator,
    gradient_direction,
    gradient_magnitude_similarity,
    maximum_normalised,
    tug_of_war_index,
    unstable_groups,
)
from tugofwar.plain_table import plain_table
from tugofwar.recording import Recording
from tugofwar.simultaneous import Bounds
from tugofwar.strata import build_groups
from tugofwar.uncertainty import Intervals, bootstrap_intervals

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
        simultaneous: intervals by measure name (``gd``, ``gm``, ``index``) that cover all cells of their table
            together with probability ``level``.
        p_values: two-sided p-values by measure name, adjusted for all cells of their table: of GD = 0 (its
            diagonal is 1 by definition and has p-value 0), of GM = 1 (diagonal 1), of an index of 1, which
            is what a group has alone.
        level: probability that an interval should cover the truth.
        resamples: bootstrap draws behind the intervals, 0 for none.
        batches: number of batches of each group.
        sign_uncertain: groups whose GD denominator may have either sign: their row of GD is not to be
            trusted. Known only with ``resamples``.
        unstable: for ``leave_one_out``, groups whose mean of ratios is heavy-tailed
            (``metrics.unstable_groups``); empty for the other estimators.
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
    unstable: tuple[str, ...] = ()
    simultaneous: Mapping[str, LabelledBounds] = field(default_factory=dict)
    p_values: Mapping[str, Table] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.summary()

    def summary(self) -> str:
        """GD, GM and indexes as text; a row whose denominator may have either sign says so, without a number."""
        names = [str(name) for name in self.gd.index]
        interval = f" [{self.level:.0%} interval of {self.resamples} resamples]" if self.intervals else ""
        directions = [[name, *_row_of_text(self, "gd", name)] for name in names]
        magnitudes = [[name, *_row_of_text(self, "gm", name)] for name in names]
        indexes = [[name, str(self.batches[name]), *_row_of_text(self, "index", name)] for name in names]
        parts = [
            f"GD, estimator {self.estimator}{interval}: gain of the row's loss along the column's mean unit "
            "gradient, over its gain along its own (eq. 2)",
            plain_table(["", *names], directions),
            f"GM{interval}: similarity of mean gradient norms (eq. 3)",
            plain_table(["", *names], magnitudes),
            f"Tug-of-war index{interval}: sum of GD GM over a row (eq. 4)",
            plain_table(["", "batches", "index"], indexes),
        ]
        if self.unstable:
            parts.append(
                f"Unstable: {', '.join(self.unstable)}: single batches may decide a mean of ratios whose "
                "denominators come near 0; use estimator='ratio_of_means' or more batches."
            )
        if self.untouched:
            parts.append(f"Not touching the selected parameters: {', '.join(self.untouched)}")
        return "\n\n".join(parts)


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
    idle = idle_datasets(recording, gram)
    rows = rows_of_groups(recording, groups, idle)
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
        unstable=unstable_groups(gram, rows, recording.datasets) if estimator == "leave_one_out" else (),
        simultaneous=_labelled_simultaneous(intervals, names) if intervals else {},
        p_values=_labelled_p_values(intervals, names) if intervals else {},
    )


def task_groups(recording: Recording) -> dict[str, list[str]]:
    """Datasets of each task, without those that the selected parameters do not touch.

    Raises:
        UserError: the recording does not say which task its datasets belong to.
    """
    idle = idle_datasets(recording, recording.gram)
    groups: dict[str, list[str]] = {}
    for dataset in recording.rows:
        if dataset not in recording.tasks:
            raise UserError(f"The recording does not say which task dataset {dataset!r} belongs to; give `tasks`.")
        if dataset not in idle:
            groups.setdefault(recording.tasks[dataset], []).append(dataset)
    return groups


def _row_of_text(result: Interference, measure: str, name: str) -> list[str]:
    table: Table = getattr(result, measure)
    values = np.atleast_1d(table.loc[name])
    if measure != "gm" and name in result.sign_uncertain:
        return ["sign uncertain"] * len(values)
    if measure not in result.intervals:
        return [f"{value:.3f}" for value in values]
    lows, highs = (np.atleast_1d(end.loc[name]) for end in result.intervals[measure])
    return [f"{value:.3f} [{low:.3f}, {high:.3f}]" for value, low, high in zip(values, lows, highs, strict=True)]


def idle_datasets(recording: Recording, gram: Array) -> tuple[str, ...]:
    """Datasets with rows whose gradients on the selected parameters are all zero."""
    norms = np.diagonal(gram)
    return tuple(name for name, rows in recording.rows.items() if not norms[rows].any())


def rows_of_groups(
    recording: Recording, groups: Mapping[str, Sequence[str] | Sequence[int]] | None, idle: tuple[str, ...]
) -> dict[str, list[int]]:
    """Rows of each group, by default one group per dataset that is not ``idle``.

    Raises:
        UserError: a group that names an unknown, untouched or idle dataset, or nothing to group.
    """
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
    return {name: label_bounds(bounds, names) for name, bounds in measures.items() if bounds is not None}


def _labelled_simultaneous(intervals: Intervals, names: pd.Index) -> dict[str, LabelledBounds]:
    measures = {
        "gd": intervals.gd_simultaneous,
        "gm": intervals.gm_simultaneous,
        "index": intervals.index_simultaneous,
    }
    return {name: label_bounds(bounds, names) for name, bounds in measures.items() if bounds is not None}


def _labelled_p_values(intervals: Intervals, names: pd.Index) -> dict[str, Table]:
    measures = {"gd": intervals.gd_p_values, "gm": intervals.gm_p_values, "index": intervals.index_p_values}
    return {name: label_values(values, names) for name, values in measures.items() if values is not None}


def label_bounds(bounds: Bounds, names: pd.Index) -> LabelledBounds:
    """Bounds of shape ``(T,)`` or ``(T, T)`` as tables labelled by ``names``."""
    return LabelledBounds(label_values(bounds.low, names), label_values(bounds.high, names))


def label_values(values: NDArray[Any], names: pd.Index) -> Table:
    """Values of shape ``(T,)`` or ``(T, T)`` as a table labelled by ``names``."""
    if values.ndim == 2:
        return pd.DataFrame(values, index=names, columns=names)
    return pd.Series(values, index=names)
