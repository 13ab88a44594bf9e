"""Bootstrap intervals for every measure of interference (eq. 2 to 4), resampling batches within datasets."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tugofwar.errors import UserError
from tugofwar.metrics import (
    DEFAULT_ESTIMATOR,
    Array,
    Groups,
    along_group,
    check_estimator,
    check_gram,
    check_leave_one_out,
    gradient_direction,
    gradient_magnitude_similarity,
    tug_of_war_index,
    unit_products,
)
from tugofwar.resampling import (
    Replicates,
    draw_counts,
    log_magnitudes,
    log_ratios,
    noise_of_ratios,
    ratios_by_group,
    replicates,
    similarity,
)
from tugofwar.simultaneous import (
    Bounds,
    adjusted_p_values,
    narrowed,
    noise_within,
    percentile_bounds,
    simultaneous_bounds,
)
from tugofwar.strata import Group, build_groups

FEWEST = 3
"""Batches per dataset that show any spread: every resample of two that can be used holds both, and nothing varies."""


@dataclass(frozen=True)
class Intervals:
    """Bootstrap intervals of one estimator, in the order of ``names``.

    ``gd``, ``gm``, ``index`` and ``index_normalised`` hold an interval per cell; those that end in
    ``_simultaneous`` cover all cells of their table together, and those that end in ``_p_values`` are
    two-sided and adjusted for all cells. They test GD = 0 (the diagonal, 1 by definition, has p-value 0),
    GM = 1 (on the scale of ``log(m_i / m_j)``; diagonal 1) and an index of 1, which is ``i`` without the
    others.

    Everything of GD and the index is None for the plugin, whose bootstrap would miss its own point: repeated
    copies of a batch double its bias. ``index_normalised`` is also None where the largest index is not
    reliably positive. ``sign_uncertain`` names the groups whose GD denominator, the mean leave-one-out
    product with their own direction, has an interval that spans 0: their row of GD and their index can take
    any value, and have p-value 1. So do groups with a dataset of under ``FEWEST`` batches, whose spread is not
    known at all: every cell that rests on them has p-value 1, and their GM may be anything.
    """

    names: tuple[str, ...]
    estimator: str
    level: float
    resamples: int
    gd: Bounds | None
    gm: Bounds
    index: Bounds | None
    index_normalised: Bounds | None
    sign_uncertain: tuple[str, ...]
    gm_simultaneous: Bounds
    gm_p_values: Array
    gd_simultaneous: Bounds | None = None
    gd_p_values: Array | None = None
    index_simultaneous: Bounds | None = None
    index_p_values: Array | None = None


def bootstrap_intervals(
    gram: ArrayLike,
    groups: Groups,
    estimator: str = DEFAULT_ESTIMATOR,
    datasets: Sequence[str] | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Intervals:
    """Intervals for GD, GM and the tug-of-war index (eq. 2 to 4), resampling batches within datasets.

    All copies of a batch that was drawn more than once are left out together when it is left out; one copy
    left behind would bring the bias of the plugin back. Draws in which a dataset is represented by a single
    distinct batch with a gradient are drawn again, because nothing is left of them once it is left out. What
    resampling adds to the noise that pairs of batches share is taken out again (``simultaneous.narrowed``).
    GM lives on a bound: ``log(m_i / m_j)`` is resampled and mapped, with upper end 1 where its interval spans
    0. Ends are moved outwards for few batches as Student's t is (``simultaneous.py``); with under about 10
    per dataset the intervals are rough all the same.

    Args:
        gram: inner products of batch gradients, ``(batches, batches)``.
        groups: rows of each of the ``T`` datasets or tasks.
        estimator: which GD to resample; see ``metrics.gradient_direction``.
        datasets: dataset of each row, for equal weight per dataset.
        resamples: number of bootstrap draws.
        level: probability that an interval should cover the truth, between 0 and 1.
        seed: seed of the draws; equal seeds give equal intervals.

    Raises:
        UserError: invalid input, a dataset with one batch, or a group without a gradient.
    """
    check_estimator(estimator)
    check_bootstrap(resamples, level, seed)
    matrix = check_gram(gram)
    members = build_groups(groups, len(matrix), datasets)
    check_leave_one_out(members)
    has_gradient = np.diagonal(matrix) > 0
    draws = replicates(matrix, members, estimator, draw_counts(members, has_gradient, resamples, seed))
    log_ratio = log_ratios(draws.log_magnitude)
    log_ratio_point = log_ratios(log_magnitudes(matrix, members)[np.newaxis])[0]
    sizes = np.array([group.fewest for group in members])
    fewest = np.minimum.outer(sizes, sizes)
    unknown = np.logical_or.outer(sizes < FEWEST, sizes < FEWEST) & ~np.eye(len(sizes), dtype=bool)
    uncertain = sign_uncertain(matrix, members, draws.own, level, sizes) | (sizes < FEWEST)
    without_direction = Intervals(
        names=tuple(group.name for group in members),
        estimator=estimator,
        level=level,
        resamples=resamples,
        gd=None,
        gm=_similarity_bounds(percentile_bounds(log_ratio, level, fewest), unknown),
        index=None,
        index_normalised=None,
        sign_uncertain=tuple(group.name for group, flag in zip(members, uncertain, strict=True) if flag),
        gm_simultaneous=_similarity_bounds(simultaneous_bounds(log_ratio, log_ratio_point, level, fewest), unknown),
        gm_p_values=np.where(unknown, 1.0, adjusted_p_values(log_ratio, log_ratio_point, 0.0, fewest)),
    )
    if estimator == "plugin":
        return without_direction
    gd = gradient_direction(matrix, groups, estimator, datasets)
    gm = gradient_magnitude_similarity(matrix, groups, datasets)
    noise = noise_of_ratios(ratios_by_group(matrix, members, estimator), members)
    found = _with_direction(without_direction, draws, gd, gm, noise, uncertain, fewest)
    return _without_certainty(found, unknown) if (sizes < FEWEST).any() else found


def check_bootstrap(resamples: int, level: float, seed: int) -> None:
    """Raise a UserError unless the settings of a bootstrap make sense."""
    if not 0 < level < 1:
        raise UserError(f"An interval's level is between 0 and 1, such as 0.95; got {level}.")
    if resamples < 2:
        raise UserError(f"A bootstrap needs at least 2 resamples, and 1000 to be smooth; got {resamples}.")
    if seed < 0:
        raise UserError(f"A seed is a whole number from 0; got {seed}.")


def _with_direction(
    intervals: Intervals,
    draws: Replicates,
    gd: Array,
    gm: Array,
    noise: Array,
    uncertain: NDArray[np.bool_],
    fewest: NDArray[np.int64],
) -> Intervals:
    """``intervals`` with those of GD and the index; ``noise`` is what ``noise_of_ratios`` returns."""
    level = intervals.level
    own = np.diagonal(noise)
    diagonal = np.eye(len(noise), dtype=bool)
    between = np.where(diagonal, 0.0, noise)
    index = tug_of_war_index(gd, gm)
    # Of a ratio whose denominator may be 0 the pair noise is unknown: it follows from the ratio's size.
    gd_noise = np.where(diagonal | uncertain[:, np.newaxis], 0.0, between + gd**2 * own[:, np.newaxis])
    gd_draws = narrowed(draws.gd, gd, gd_noise)
    # The index less its own 1 is a sum of ratios over one denominator.
    index_noise = (between * gm**2).sum(axis=1) + (index - 1) ** 2 * own
    index_draws = narrowed(draws.index(), index, np.where(uncertain, 0.0, index_noise))
    return replace(
        intervals,
        gd=_holding(percentile_bounds(gd_draws, level, fewest), gd, uncertain[:, np.newaxis]),
        index=_holding(percentile_bounds(index_draws, level, fewest.min()), index, uncertain),
        index_normalised=_normalised_bounds(index_draws, index, level, fewest.min()),
        gd_simultaneous=simultaneous_bounds(gd_draws, gd, level, fewest),
        gd_p_values=np.where(uncertain[:, np.newaxis] & ~diagonal, 1.0, adjusted_p_values(gd_draws, gd, 0.0, fewest)),
        index_simultaneous=simultaneous_bounds(index_draws, index, level, fewest.min()),
        index_p_values=np.where(uncertain, 1.0, adjusted_p_values(index_draws, index, 1.0, fewest.min())),
    )


def _without_certainty(intervals: Intervals, unknown: NDArray[np.bool_]) -> Intervals:
    """``intervals`` where a spread is not known: in cells of GD, and in what is made of all, the indexes."""
    assert intervals.gd_p_values is not None
    assert intervals.index_p_values is not None
    return replace(
        intervals,
        gd_p_values=np.where(unknown, 1.0, intervals.gd_p_values),
        index_p_values=np.ones_like(intervals.index_p_values),
        index_normalised=None,
    )


def _holding(bounds: Bounds, point: Array, uncertain: NDArray[np.bool_]) -> Bounds:
    """Bounds that hold the point where its denominator is uncertain: it may be larger than any of its replicates."""
    return Bounds(
        np.where(uncertain, np.minimum(bounds.low, point), bounds.low),
        np.where(uncertain, np.maximum(bounds.high, point), bounds.high),
    )


def _similarity_bounds(log_ratio: Bounds, unknown: NDArray[np.bool_]) -> Bounds:
    """Bounds of ``log(m_i / m_j)`` mapped to GM, whose upper end is 1 where they span 0; 0 to 1 where ``unknown``."""
    ends = np.stack([similarity(log_ratio.low), similarity(log_ratio.high)])
    spans_zero = (log_ratio.low <= 0) & (log_ratio.high >= 0)
    low, high = ends.min(axis=0), np.where(spans_zero, 1.0, ends.max(axis=0))
    return Bounds(np.where(unknown, 0.0, low), np.where(unknown, 1.0, high))


def _normalised_bounds(index: Array, point: Array, level: float, fewest: int) -> Bounds | None:
    """Intervals of ``I_i / max_j I_j``; None where the maximum is not (reliably) positive.

    The quotient is ``min(1, I_i / max_{j != i} I_j)``, an increasing function of an unbounded ratio, so
    that its percentiles are those of the ratio, mapped.
    """
    largest = index.max(axis=1, keepdims=True)
    positive = largest > 0
    if point.max() <= 0 or (~positive).mean() > (1 - level) / 2:
        return None
    return percentile_bounds(index / np.where(positive, largest, np.nan), level, fewest)


def sign_uncertain(
    gram: Array, groups: Sequence[Group], own: Array, level: float, sizes: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether the interval of a group's mean leave-one-out product with itself spans 0, ``(T,)``.

    Args:
        gram: inner products of batch gradients, ``(batches, batches)``.
        groups: the ``T`` datasets or tasks.
        own: the products of the resamples, ``(R, T)``; see ``Replicates``.
        level: of the interval.
        sizes: number of batches of each group's smallest dataset, ``(T,)``.
    """
    unit = unit_products(gram)
    point = np.array([group.weights(len(unit)) @ along_group(unit, group, leave_out=True) for group in groups])
    noise = np.array([noise_within(unit, group) for group in groups])
    bounds = percentile_bounds(narrowed(own, point, noise), level, sizes)
    return (bounds.low <= 0) & (bounds.high >= 0)
