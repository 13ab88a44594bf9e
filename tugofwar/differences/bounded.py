"""Differences of measures that live on a bound: GM (at most 1) and the normalised index (at most 1).

There a difference of zero does not mean that what lies behind it is equal, and a bootstrap of the difference itself
fails at the bound. Both are tested, and given intervals, through unbounded quantities on which a bootstrap works: a
region of those is mapped to the measure. The tests are intersection-union tests (R. Berger 1982): where the null is
that one *or* another thing holds, the p-value is the largest. Each thing is adjusted for all cells of the table.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tugofwar.metrics import Array
from tugofwar.simultaneous import Bounds, adjusted_p_values, percentile_bounds, simultaneous_bounds

# Points on the edge of a region; the range over them is within 1e-4 of the range's width.
_DIRECTIONS = 360


@dataclass(frozen=True)
class Uncertainty:
    """Of the differences in one table: single and simultaneous intervals, and adjusted two-sided p-values."""

    interval: Bounds
    simultaneous: Bounds
    p_values: Array


def similarity_change(
    replicates: tuple[Array, Array], points: tuple[Array, Array], level: float, batches: ArrayLike
) -> Uncertainty:
    """Uncertainty of ``GM_b - GM_a`` (eq. 3) from ``l = log(m_i / m_j)`` in both runs.

    ``GM = 1 / cosh(l)`` is equal in both where ``l_b - l_a = 0`` or ``l_b + l_a = 0``; a difference needs both
    rejected. With ``x``, ``y`` the hyperbolic sines of half their difference and half their sum, ``GM_b - GM_a =
    -2 x y / (1 + x^2 + y^2)``, and the interval is the range of that over the ellipse that the two intervals
    span, at the correlation of their replicates: it holds 0 exactly where one of the two intervals does.

    Args:
        replicates: ``l`` of both runs, ``(R, T, T)`` each.
        points: the estimates, ``(T, T)`` each.
        level: probability that an interval should cover the truth.
        batches: number of batches behind each cell, ``(T, T)``.
    """
    draws = np.stack([replicates[1] - replicates[0], replicates[1] + replicates[0]], axis=1)
    point = np.stack([points[1] - points[0], points[1] + points[0]])
    correlation = _correlation(draws[:, 0], draws[:, 1])
    p_values = [adjusted_p_values(draws[:, k], point[k], 0.0, batches) for k in range(2)]
    return Uncertainty(
        _similarity_range(point, percentile_bounds(draws, level, batches), correlation),
        _similarity_range(point, _together([draws[:, :1], draws[:, 1:]], point, level, batches), correlation),
        np.maximum(*p_values),
    )


def unbounded_normalised(index: Array) -> Array:
    """``x`` with ``I / max I = min(1, x)``, which says by how much the largest is ahead.

    ``x_i = 1 + (I_i - max_{j != i} I_j) / max_j I_j``, smooth where two indexes tie; NaN where no index is
    positive, and 2 for a single one.

    Args:
        index: tug-of-war indexes (eq. 4), ``(..., T)``.
    """
    groups = index.shape[-1]
    largest = index.max(axis=-1, keepdims=True)
    if groups == 1:
        others = np.zeros_like(index)
    else:
        second = np.partition(index, groups - 2, axis=-1)[..., groups - 2 : groups - 1]
        first = np.arange(groups) == index.argmax(axis=-1)[..., np.newaxis]
        others = np.where(first, second, largest)
    return 1 + (index - others) / np.where(largest > 0, largest, np.nan)


def normalised_change(
    replicates: tuple[Array, Array], points: tuple[Array, Array], level: float, batches: ArrayLike
) -> Uncertainty:
    """Uncertainty of the difference of normalised indexes, ``min(1, x_b) - min(1, x_a)``.

    It is 0 where ``x_a = x_b``, or where both are at least 1; a difference needs both rejected.

    Args:
        replicates: ``x`` of both runs (``unbounded_normalised``), ``(R, T)`` each.
        points: the estimates, ``(T,)`` each.
        level: probability that an interval should cover the truth.
        batches: number of batches behind the indexes.
    """
    draws = np.stack([replicates[1] - replicates[0], replicates[0] - 1, replicates[1] - 1], axis=1)
    point = np.stack([points[1] - points[0], points[0] - 1, points[1] - 1])
    equal = adjusted_p_values(draws[:, 0], point[0], 0.0, batches)
    one = adjusted_p_values(draws[:, 1:], point[1:], 0.0, batches)
    below = np.where(point[1:] < 0, one, 1.0).min(axis=0)
    return Uncertainty(
        _normalised_range(point, percentile_bounds(draws, level, batches)),
        _normalised_range(point, _together([draws[:, :1], draws[:, 1:]], point, level, batches)),
        np.maximum(equal, below),
    )


def _together(families: Sequence[Array], point: Array, level: float, batches: ArrayLike) -> Bounds:
    """Simultaneous bounds of each family of rows, ``(R, rows, ...)``, one family after the other."""
    ends, first = [], 0
    for draws in families:
        rows = slice(first, first + draws.shape[1])
        ends.append(simultaneous_bounds(draws, point[rows], level, batches))
        first = rows.stop
    return Bounds(np.concatenate([each.low for each in ends]), np.concatenate([each.high for each in ends]))


def _correlation(one: Array, other: Array) -> Array:
    apart, apart_too = one - one.mean(axis=0), other - other.mean(axis=0)
    product = np.sqrt((apart**2).sum(axis=0) * (apart_too**2).sum(axis=0))
    covariance = (apart * apart_too).sum(axis=0)
    return np.clip(np.divide(covariance, product, out=np.zeros_like(product), where=product > 0), -1, 1)


def _similarity_range(point: Array, bounds: Bounds, correlation: Array) -> Bounds:
    """Range of the difference of GM over an ellipse in difference and sum of ``l``, ``(2, T, T)``.

    The difference has no extremum inside a region, so that its edge is enough.
    """
    angles = np.linspace(0, 2 * np.pi, _DIRECTIONS, endpoint=False).reshape(-1, *(1,) * correlation.ndim)
    across = np.broadcast_to(np.cos(angles), (_DIRECTIONS, *correlation.shape))
    along = correlation * across + np.sqrt(1 - correlation**2) * np.sin(angles)
    apart, total = (
        middle + steps * np.where(steps > 0, high - middle, middle - low)
        for steps, middle, low, high in zip((across, along), point, bounds.low, bounds.high, strict=True)
    )
    edge = _similarity_difference(apart, total)
    inside = _similarity_difference(*point)
    return Bounds(np.minimum(edge.min(axis=0), inside), np.maximum(edge.max(axis=0), inside))


def _similarity_difference(apart: Array, total: Array) -> Array:
    """``1 / cosh((total + apart) / 2) - 1 / cosh((total - apart) / 2)``, exactly 0 where either is 0."""
    x, y = np.sinh(apart / 2), np.sinh(total / 2)
    # Adding 0 makes a negative zero a plain one.
    return -2 * x * y / (1 + x**2 + y**2) + 0.0


def _normalised_range(point: Array, bounds: Bounds) -> Bounds:
    """Range of ``min(1, x_b) - min(1, x_a)`` where ``x_b - x_a``, ``x_a - 1`` and ``x_b - 1`` lie in ``(3, T)`` bounds.

    Where both may be 1 the null cannot be rejected, and 0 is in it.
    """
    (least, low_a, low_b), (most, high_a, high_b) = bounds.low, bounds.high
    low = np.minimum(-_largest_rise(-least, low_b, high_b, low_a, high_a), _rise(point[1], point[2]))
    high = np.maximum(_largest_rise(most, low_a, high_a, low_b, high_b), _rise(point[1], point[2]))
    both_may_be_largest = (high_a >= 0) & (high_b >= 0)
    return Bounds(
        np.where(both_may_be_largest, np.minimum(low, 0), low), np.where(both_may_be_largest, np.maximum(high, 0), high)
    )


def _largest_rise(most: Array, low_a: Array, high_a: Array, low_b: Array, high_b: Array) -> Array:
    """Largest ``min(0, b) - min(0, a)`` with ``b - a`` at most ``most`` and both within their bounds."""
    rise = np.minimum(most, high_b - low_a)
    # A rise counts for most when it begins low, a fall when it begins high, where the bound takes off the most.
    start = np.where(rise > 0, np.maximum(low_a, low_b - rise), np.minimum(high_a, high_b - rise))
    return _rise(start, start + rise)


def _rise(a: Array, b: Array) -> Array:
    return np.minimum(0, b) - np.minimum(0, a)
