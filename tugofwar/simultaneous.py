"""From bootstrap replicates to intervals: of one number alone, and of all numbers of a table at once.

With tens of cells some single 95 % intervals miss their truth almost surely. Simultaneous intervals and
adjusted p-values are of the max-type: per resample the largest studentised deviation over all cells is kept,
and its quantiles serve every cell. The dependence between cells is thereby used, not bounded (R. Beran 1988;
P. Westfall and S. Young 1993, single step).

A bootstrap over ``n`` batches is too narrow by ``sqrt((n - 1) / n)`` and knows no Student's t. The functions
here take ``batches``, how many of them a cell rests on (the smallest dataset's), and move normal quantiles
``z`` out to ``t_{n-1}(z) sqrt(n / (n - 1))`` (T. Hesterberg 2015, expanded percentile interval).
"""

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tugofwar.errors import UserError
from tugofwar.metrics import Array
from tugofwar.strata import Group

# A cell whose replicates differ by rounding only (a diagonal, two equal datasets) has nothing to studentise.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Bounds:
    """Lower and upper ends of intervals; both have the shape of the measure."""

    low: Array
    high: Array


def percentile_bounds(replicates: Array, level: float, batches: ArrayLike) -> Bounds:
    """Percentile interval of every cell alone, leaving out resamples in which the value does not exist.

    Args:
        replicates: ``(resamples, ...)``; NaN where a resample has no value.
        level: probability that each interval should cover its truth.
        batches: number of batches of the smallest dataset behind each cell, shape ``(...)`` or one number.

    Raises:
        UserError: more resamples without a value than an interval leaves out on one side.
    """
    tail = (1 - level) / 2
    share = np.isnan(replicates).mean(axis=0).max()
    if share > tail:
        raise UserError(
            f"There is no interval: the value does not exist in {share:.0%} of the resamples, because its "
            "denominator is exactly zero there; record more batches."
        )
    sizes = np.broadcast_to(batches, replicates.shape[1:])
    low, high = np.empty(sizes.shape), np.empty(sizes.shape)
    for size in np.unique(sizes):
        outer = NormalDist().cdf(-expanded(NormalDist().inv_cdf(1 - tail), size))
        cells = sizes == size
        low[cells], high[cells] = np.nanquantile(replicates[:, cells], [outer, 1 - outer], axis=0)
    return Bounds(low, high)


def simultaneous_bounds(replicates: Array, point: Array, level: float, batches: ArrayLike) -> Bounds:
    """Intervals that cover the truths of all cells together with probability ``level``.

    ``point -+ q s``, ``s`` the replicates' standard deviation per cell and ``q`` the ``level``-quantile of
    ``max |replicate - point| / s`` over the cells. A cell without spread keeps its point as both ends.

    Args:
        replicates: ``(resamples, ...)``; a resample without a value counts as larger than any other.
        point: the estimates, shape ``(...)``.
        level: probability that all intervals should cover together.
        batches: number of batches of the smallest dataset behind each cell, shape ``(...)`` or one number.
    """
    spread = _spread(replicates, point)
    quantile = np.quantile(_largest_deviations(replicates, point, spread), level, method="higher")
    reach = expanded(quantile, np.asarray(batches)) * spread
    return Bounds(point - reach, point + reach)


def adjusted_p_values(replicates: Array, point: Array, null: float, batches: ArrayLike) -> Array:
    """Two-sided p-values of ``truth = null`` per cell, adjusted for all cells of the table (single-step max-T).

    Rejecting every cell with a p-value up to ``alpha`` is wrong about any cell with probability at most about
    ``alpha``. The smallest possible value is ``1 / (resamples + 1)``. A cell without spread is known exactly:
    1 where it equals ``null``, otherwise 0.

    Args:
        replicates: ``(resamples, ...)``, see ``simultaneous_bounds``.
        point: the estimates, shape ``(...)``.
        null: the value that is tested.
        batches: number of batches of the smallest dataset behind each cell, shape ``(...)`` or one number.
    """
    spread = _spread(replicates, point)
    largest = np.sort(_largest_deviations(replicates, point, spread))
    fixed = spread == 0
    distance = np.abs(point - null)
    statistic = distance / np.where(fixed, 1.0, spread)
    sizes = np.broadcast_to(batches, point.shape)
    p_values = np.empty(point.shape)
    for size in np.unique(sizes):
        cells = sizes == size
        smaller = np.searchsorted(expanded(largest, size), statistic[cells], side="left")
        p_values[cells] = (1 + len(largest) - smaller) / (len(largest) + 1)
    return np.where(fixed, np.where(distance <= _ROUNDING, 1.0, 0.0), p_values)


def expanded(quantile: Any, batches: Any) -> Any:
    """``t_{n-1}(z) sqrt(n / (n - 1))`` for a normal quantile ``z``, a number or an array; larger from 0 up.

    Student's quantile by its expansion in ``1 / (n - 1)`` (Abramowitz and Stegun 26.7.5, two terms): within
    1 % for 95 % intervals from 6 batches.

    Args:
        quantile: ``z``, at least 0.
        batches: ``n``, at least 2, a number or an array.
    """
    z, freedom = quantile, batches - 1.0
    student = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    return student * np.sqrt(batches / freedom)


def narrowed(replicates: Array, point: Array, pair_noise: Array) -> Array:
    """Replicates of a mean over pairs of batches, drawn together until their variance is that of the estimate.

    An estimate that averages products of pairs has variance ``L + Q``: ``L`` from the batches one by one, and
    ``Q`` from what only pairs have (the product of two batches' noise). Resampling batches gives ``L + 3 Q``
    (A. Owen 2007, on the pigeonhole bootstrap), so that intervals are too wide where noise is strong:
    deviations from the point are multiplied by ``sqrt(1 - 2 Q / variance)``, at least ``sqrt(1/3)``.

    Args:
        replicates: ``(resamples, ...)``; NaN where a resample has no value.
        point: the estimates, shape ``(...)``.
        pair_noise: ``Q``, shape ``(...)``; 0 leaves a cell as it is.
    """
    variance = np.nanvar(replicates, axis=0)
    excess = np.divide(2 * pair_noise, variance, out=np.zeros_like(variance), where=variance > 0)
    return point + (replicates - point) * np.sqrt(np.clip(1 - excess, 1 / 3, 1))


def noise_between(products: Array, group: Group, other: Group) -> float:
    """Variance from pairs alone of the mean of ``products[a, b]`` over ``a`` of one group, ``b`` of another."""
    total = 0.0
    for mine in group.strata:
        for theirs in other.strata:
            # Shared batches would bring in their own squared norms; left out, the interval stays as it was.
            if not np.intersect1d(mine.rows, theirs.rows).size:
                block = products[np.ix_(mine.rows, theirs.rows)]
                total += _pair_variance(block) / block.size
    return total / (len(group.strata) * len(other.strata)) ** 2


def noise_within(products: Array, group: Group) -> float:
    """The same over distinct pairs of one group, each pair counting in both orders."""
    total = 0.0
    for number, mine in enumerate(group.strata):
        block = products[np.ix_(mine.rows, mine.rows)]
        total += 2 * _distinct_pair_variance((block + block.T) / 2) / (len(mine.rows) * (len(mine.rows) - 1))
        for theirs in group.strata[number + 1 :]:
            block = products[np.ix_(mine.rows, theirs.rows)] + products[np.ix_(theirs.rows, mine.rows)].T
            total += _pair_variance(block) / (len(mine.rows) * len(theirs.rows))
    return total / len(group.strata) ** 4


def _pair_variance(block: Array) -> float:
    """Variance of what is left in ``block`` beside row and column effects."""
    rest = block - block.mean(axis=0) - block.mean(axis=1, keepdims=True) + block.mean()
    return float((rest**2).sum() / ((block.shape[0] - 1) * (block.shape[1] - 1)))


def _distinct_pair_variance(block: Array) -> float:
    """The same for a symmetric block without its diagonal, ``(n, n)``; 0 with under four batches."""
    size = len(block)
    if size < 4:
        return 0.0
    rest = block - np.diag(np.diagonal(block))
    effects = rest.sum(axis=1) / (size - 2)
    mean = rest.sum() / ((size - 1) * (size - 2))
    rest = (rest - effects - effects[:, np.newaxis] + mean) * (1 - np.eye(size))
    return float((rest**2).sum() / (size * (size - 3)))


def _spread(replicates: Array, point: Array) -> Array:
    spread = np.asarray(np.nanstd(replicates, axis=0))
    return np.where(spread > _ROUNDING * np.maximum(1, np.abs(point)), spread, 0.0)


def _largest_deviations(replicates: Array, point: Array, spread: Array) -> Array:
    """``max |replicate - point| / spread`` over the cells that have a spread, ``(resamples,)``."""
    moving = spread > 0
    if not moving.any():
        return np.zeros(len(replicates))
    deviations = np.abs(replicates[:, moving] - point[moving]) / spread[moving]
    return np.where(np.isnan(deviations), np.inf, deviations).max(axis=1)
