"""Which cells of a table differ from what no effect would give, as far as the intervals carry it.

A cell among many is named only with an interval that holds for all cells of the table together. Where a table has
nothing but single intervals, they are widened for the number of cells first (Bonferroni, by the normal quantiles'
ratio), and the sentence says how many single intervals leave out the null value and how many would by chance.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import pandas as pd

_NORMAL = NormalDist()
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Case:
    """One cell: what it is about, its estimate, and its interval as the table has it."""

    names: tuple[str, ...]
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Support:
    """Cells that differ from a null value, the strongest first.

    The strength of a case is how far the nearer end of the interval that carries the statement is from the null
    value: an effect of at least this size is supported. Equal ones follow their names, so that the order of a
    table's rows does not matter.

    Attributes:
        above: supported to be larger than the null value.
        below: supported to be smaller.
        tested: how many cells were looked at.
        excluding: of how many of them the single interval leaves out the null value; None for joint intervals.
        level: of the intervals.
        null: the null value in words.
    """

    above: tuple[Case, ...]
    below: tuple[Case, ...]
    tested: int
    excluding: int | None
    level: float
    null: str

    @property
    def cases(self) -> tuple[Case, ...]:
        """All supported cases."""
        return self.above + self.below

    @property
    def basis(self) -> str:
        """What the statement rests on, for the end of a sentence."""
        if self.excluding is None:
            return f"simultaneous {self.level:.0%} intervals"
        if self.tested == 1:
            return f"single {self.level:.0%} interval"
        return (
            f"{self.excluding:,} of {self.tested:,} single {self.level:.0%} intervals leave out {self.null} "
            f"({by_chance(self.tested * (1 - self.level))}), those named even when widened for all {self.tested:,}"
        )

    @property
    def brief(self) -> str:
        """The same in a few words."""
        widened_for = "" if self.excluding is None or self.tested == 1 else f" widened for all {self.tested:,}"
        kind = "simultaneous" if self.excluding is None else "single"
        return f"{kind} {self.level:.0%} intervals{widened_for}"


def judge(
    table: pd.DataFrame,
    names: Sequence[str],
    null: float | pd.Series,
    level: float,
    value: str = "value",
    prefix: str = "",
    null_name: str = "",
) -> Support:
    """Compare every row's interval with a null value.

    Args:
        table: one row per cell that may be named; a row without finite numbers is none.
        names: columns that say what a cell is about.
        null: what no effect gives, one number or one per row.
        level: of the table's intervals.
        value: column of the estimates.
        prefix: of the columns of uncertainty.
        null_name: the null value in words; by default the number.
    """
    joint = f"{prefix}simultaneous_low" in table and f"{prefix}p_value" in table
    ends = [f"{prefix}simultaneous_{end}" if joint else f"{prefix}{end}" for end in ("low", "high")]
    words = null_name or f"{null:g}"
    if any(end not in table for end in ends):
        return Support((), (), 0, None if joint else 0, level, words)
    chosen = table.assign(null=null)
    chosen = chosen[np.isfinite(chosen[[value, *ends, "null"]].to_numpy(dtype=float)).all(axis=1)]
    low, high = chosen[ends[0]].astype(float), chosen[ends[1]].astype(float)
    excluding = None
    sure = pd.Series(True, index=chosen.index)
    if joint:
        sure = chosen[f"{prefix}p_value"] <= 1 - level
    else:
        excluding = int(((low > chosen["null"] + _ROUNDING) | (high < chosen["null"] - _ROUNDING)).sum())
        low, high = widened(chosen[value].astype(float), low, high, widening(level, len(chosen)))
    over, under = low - chosen["null"], chosen["null"] - high
    return Support(
        above=in_order(chosen, names, value, ends, over[sure & (over > _ROUNDING)]),
        below=in_order(chosen, names, value, ends, under[sure & (under > _ROUNDING)]),
        tested=len(chosen),
        excluding=excluding,
        level=level,
        null=words,
    )


def in_order(
    table: pd.DataFrame, names: Sequence[str], value: str, ends: Sequence[str], strength: pd.Series
) -> tuple[Case, ...]:
    """Those rows of a table that have a strength, the strongest first.

    Args:
        table: rows of cells.
        names: columns that say what a cell is about.
        value: column of the estimates.
        ends: columns of the lower and of the upper end of its interval.
        strength: by the index of ``table``.
    """
    rows = table.loc[strength.index, [*names, value, *ends]].itertuples(index=False, name=None)
    found = [
        (-reach, Case(tuple(map(str, row[: len(names)])), *map(float, row[len(names) :])))
        for reach, row in zip(strength, rows, strict=True)
    ]
    return tuple(case for _, case in sorted(found, key=lambda entry: (entry[0], entry[1].names)))


def widening(level: float, cells: int) -> float:
    """How much wider single intervals of ``level`` must be to cover ``cells`` truths together (Bonferroni)."""
    if cells <= 1:
        return 1.0
    return _quantile(1 - (1 - level) / cells) / _quantile(level)


def widening_apart(level: float, cells: int) -> float:
    """The same for intervals of which two shall not touch: as they are, they are stricter than a test at ``level``."""
    return max(1.0, _quantile(1 - (1 - level) / max(cells, 1)) / (2**0.5 * _quantile(level)))


def apart_by_chance(level: float) -> float:
    """Probability that two independent intervals of the same truth, equally wide, do not touch."""
    return 2 * _NORMAL.cdf(-(2**0.5) * _quantile(level))


def widened(value: pd.Series, low: pd.Series, high: pd.Series, factor: float) -> tuple[pd.Series, pd.Series]:
    """Intervals with both arms longer by a factor; an arm counts as at least half the interval.

    A percentile interval may leave out its own estimate, and its arm would be of negative length.
    """
    half = (high - low) / 2
    return (
        low - (factor - 1) * np.maximum(value - low, half),
        high + (factor - 1) * np.maximum(high - value, half),
    )


def by_chance(expected: float) -> str:
    """How many cells chance alone would give."""
    if expected < 0.1:
        return "by chance under 0.1"
    return f"by chance about {expected:.1f}" if expected < 10 else f"by chance about {expected:,.0f}"


def _quantile(level: float) -> float:
    """``z`` of a two-sided interval."""
    return _NORMAL.inv_cdf((1 + level) / 2)
