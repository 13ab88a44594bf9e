"""Percentile bootstrap over batches within datasets, for every measure of interference (eq. 2 to 4).

A resample is a vector of counts, how often each batch was drawn, so that all resamples together are matrix
products with the Gram matrix and no gradient is touched again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tugofwar.errors import UserError
from tugofwar.metrics import (
    DEFAULT_ESTIMATOR,
    Array,
    Groups,
    check_estimator,
    check_gram,
    check_leave_one_out,
    gradient_direction,
    gradient_magnitude_similarity,
    tug_of_war_index,
    unit_products,
)
from tugofwar.strata import Group, Stratum, build_groups

# Bounds one work array of (batches, resamples) float64 numbers; there are a handful of them at a time.
_WORK_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Bounds:
    """Lower and upper ends of intervals; both have the shape of the measure."""

    low: Array
    high: Array


@dataclass(frozen=True)
class Intervals:
    """Bootstrap intervals of one estimator, in the order of ``names``.

    ``gd``, ``index`` and ``index_normalised`` are None for the plugin, whose bootstrap would miss its own
    point: repeated copies of a batch double its bias. ``index_normalised`` is also None where the largest
    index is not reliably positive. ``sign_uncertain`` names the groups whose GD denominator, the mean
    leave-one-out product with their own direction, has an interval that spans 0: their row of GD can take
    any value.
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
    distinct batch with a gradient are drawn again, because nothing is left of them once it is left out. GM
    lives on a bound: ``log(m_i / m_j)`` is resampled and mapped, with upper end 1 where its interval spans
    0. With few batches per dataset (under about 20) percentile intervals are too narrow.

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
    if not 0 < level < 1:
        raise UserError(f"An interval's level is between 0 and 1, such as 0.95; got {level}.")
    if resamples < 2:
        raise UserError(f"A bootstrap needs at least 2 resamples, and 1000 to be smooth; got {resamples}.")
    if seed < 0:
        raise UserError(f"A seed is a whole number from 0; got {seed}.")
    matrix = check_gram(gram)
    members = build_groups(groups, len(matrix), datasets)
    check_leave_one_out(members)
    draws = _replicates(matrix, members, estimator, resamples, seed)
    gm_bounds = _similarity_bounds(draws.log_magnitude, level)
    uncertain = _sign_uncertain(draws.own, members, level)
    names = tuple(group.name for group in members)
    if estimator == "plugin":
        return Intervals(names, estimator, level, resamples, None, gm_bounds, None, None, uncertain)
    gd = gradient_direction(matrix, groups, estimator, datasets)
    gm = gradient_magnitude_similarity(matrix, groups, datasets)
    index = draws.index()
    return Intervals(
        names,
        estimator,
        level,
        resamples,
        _percentiles(draws.gd, level),
        gm_bounds,
        _percentiles(index, level),
        _normalised_bounds(index, tug_of_war_index(gd, gm), level),
        uncertain,
    )


@dataclass(frozen=True)
class _Replicates:
    """One entry per resample: GD ``(R, T, T)``, ``log m`` and GD's denominators ``(R, T)``."""

    gd: Array
    log_magnitude: Array
    own: Array

    def index(self) -> Array:
        """Tug-of-war indexes of the resamples, ``(R, T)``."""
        return (self.gd * _similarity(_log_ratios(self.log_magnitude))).sum(axis=2)


def _replicates(gram: Array, groups: Sequence[Group], estimator: str, resamples: int, seed: int) -> _Replicates:
    unit = unit_products(gram)
    norms = np.sqrt(np.diagonal(gram))
    parts = []
    for counts in _draw_counts(groups, norms > 0, resamples, seed):
        along = [_along_resampled(unit, group, counts) for group in groups]
        weights = [_resampled_weights(group, counts) for group in groups]
        magnitudes = np.stack([norms @ weight for weight in weights], axis=1)
        own = np.stack([(w * u).sum(axis=0) for w, u in zip(weights, along, strict=True)], axis=1)
        if estimator == "leave_one_out":
            gd = _resampled_mean_of_ratios(along, groups, counts, norms > 0)
        else:
            # The plugin asks for GM's interval only; this costs it next to nothing.
            gd = _resampled_ratio_of_means(along, weights, own)
        parts.append((gd, np.log(magnitudes), own))
    return _Replicates(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _draw_counts(
    groups: Sequence[Group], has_gradient: NDArray[np.bool_], resamples: int, seed: int
) -> Iterator[Array]:
    """Yield counts ``(batches, resamples of this chunk)``; the draws do not depend on the chunk's size."""
    rows_in_total = len(has_gradient)
    cells = _resampling_cells(groups)
    generators = [np.random.default_rng([seed, number]) for number in range(len(cells))]
    chunk = max(1, _WORK_BYTES // (8 * rows_in_total * max(1, len(groups))))
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        counts = np.zeros((rows_in_total, size))
        for rows, generator in zip(cells, generators, strict=True):
            counts[rows] = _draw_cell(has_gradient[rows], size, generator).T
        yield counts


def _resampling_cells(groups: Sequence[Group]) -> list[NDArray[np.intp]]:
    """Rows that are exchangeable: of one dataset, and in the same groups where groups overlap."""
    memberships: dict[int, list[tuple[int, int]]] = {}
    for group_number, group in enumerate(groups):
        for stratum_number, stratum in enumerate(group.strata):
            for row in stratum.rows.tolist():
                memberships.setdefault(row, []).append((group_number, stratum_number))
    cells: dict[tuple[tuple[int, int], ...], list[int]] = {}
    for row, membership in memberships.items():
        cells.setdefault(tuple(membership), []).append(row)
    return [np.array(rows, dtype=np.intp) for rows in cells.values()]


def _draw_cell(has_gradient: NDArray[np.bool_], size: int, generator: np.random.Generator) -> NDArray[np.int64]:
    batches = len(has_gradient)
    required = min(2, int(has_gradient.sum()))
    uniform = np.full(batches, 1 / batches)
    accepted: list[NDArray[np.int64]] = []
    # One draw at a time is accepted or rejected, in order, whatever the size of the chunk.
    while len(accepted) < size:
        drawn = generator.multinomial(batches, uniform, size=size - len(accepted))
        distinct = (drawn[:, has_gradient] > 0).sum(axis=1)
        accepted.extend(drawn[distinct >= required])
    return np.array(accepted)


def _resampled_weights(group: Group, counts: Array) -> Array:
    """Weight of every row in the group's resampled mean, ``(batches, resamples)``; columns sum to 1."""
    return group.weights(len(counts))[:, np.newaxis] * counts


def _along_resampled(unit: Array, group: Group, counts: Array) -> Array:
    """``U_aj`` for one group ``j``, ``(batches, resamples)``, members left out with all their copies."""
    along = np.zeros_like(counts)
    for stratum in group.strata:
        along += _along_stratum(unit, stratum, counts) / len(group.strata)
    return along


def _along_stratum(unit: Array, stratum: Stratum, counts: Array) -> Array:
    rows = stratum.rows
    drawn = counts[rows]
    sums = unit[:, rows] @ drawn
    means = sums / len(rows)
    own = unit[rows, rows][:, np.newaxis]
    # A stratum drawn as copies of one batch alone has nothing left; only cells without gradients can do that.
    remaining = np.maximum(len(rows) - drawn, 1)
    means[rows] = (sums[rows] - drawn * own) / remaining
    return means


def _resampled_ratio_of_means(along: Sequence[Array], weights: Sequence[Array], own: Array) -> Array:
    gd = np.ones((len(own), len(along), len(along)))
    denominators = _nan_where_zero(own)
    for i, weight in enumerate(weights):
        for j, value in enumerate(along):
            if i != j:
                gd[:, i, j] = (weight * value).sum(axis=0) / denominators[:, i]
    return gd


def _resampled_mean_of_ratios(
    along: Sequence[Array], groups: Sequence[Group], counts: Array, has_gradient: NDArray[np.bool_]
) -> Array:
    gd = np.ones((counts.shape[1], len(groups), len(groups)))
    for i, group in enumerate(groups):
        weights = _weights_of_ratios(group, counts, has_gradient)
        rows = group.rows
        denominators = _nan_where_zero(along[i][rows])
        quotients = np.where(weights[rows] > 0, weights[rows] / denominators, 0.0)
        for j, value in enumerate(along):
            if i != j:
                gd[:, i, j] = (quotients * value[rows]).sum(axis=0)
    return gd


def _nan_where_zero(denominators: Array) -> Array:
    """A resample without a denominator has no ratio: NaN, which ``_percentiles`` counts and leaves out."""
    return np.where(denominators == 0, np.nan, denominators)


def _weights_of_ratios(group: Group, counts: Array, has_gradient: NDArray[np.bool_]) -> Array:
    """Like ``_resampled_weights``, but only over batches whose ratio is not 0/0."""
    weights = np.zeros_like(counts)
    for stratum in group.strata:
        rows = stratum.rows[has_gradient[stratum.rows]]
        weights[rows] = counts[rows] / (counts[rows].sum(axis=0) * len(group.strata))
    return weights


def _percentiles(values: Array, level: float) -> Bounds:
    """Percentile interval over the first axis, leaving out resamples in which the value does not exist."""
    tail = (1 - level) / 2
    share = np.isnan(values).mean(axis=0).max()
    if share > tail:
        raise UserError(
            f"There is no interval: the value does not exist in {share:.0%} of the resamples, "
            "because its denominator "
            "is exactly zero there; record more batches."
        )
    low, high = np.nanquantile(values, [tail, 1 - tail], axis=0)
    return Bounds(low, high)


def _log_ratios(log_magnitude: Array) -> Array:
    return log_magnitude[:, :, np.newaxis] - log_magnitude[:, np.newaxis, :]


def _similarity(log_ratio: Array) -> Array:
    """Eq. 3 of ``log(m_i / m_j)``: ``2 / (r + 1/r) = 1 / cosh(log r)``."""
    return 1 / np.cosh(log_ratio)


def _similarity_bounds(log_magnitude: Array, level: float) -> Bounds:
    ratio = _percentiles(_log_ratios(log_magnitude), level)
    ends = np.stack([_similarity(ratio.low), _similarity(ratio.high)])
    spans_zero = (ratio.low <= 0) & (ratio.high >= 0)
    return Bounds(ends.min(axis=0), np.where(spans_zero, 1.0, ends.max(axis=0)))


def _normalised_bounds(index: Array, point: Array, level: float) -> Bounds | None:
    """Intervals of ``I_i / max_j I_j``; None where the maximum is not (reliably) positive.

    The quotient is ``min(1, I_i / max_{j != i} I_j)``, an increasing function of an unbounded ratio, so
    that its percentiles are those of the ratio, mapped.
    """
    largest = index.max(axis=1, keepdims=True)
    positive = largest > 0
    if point.max() <= 0 or (~positive).mean() > (1 - level) / 2:
        return None
    return _percentiles(index / np.where(positive, largest, np.nan), level)


def _sign_uncertain(own: Array, groups: Sequence[Group], level: float) -> tuple[str, ...]:
    bounds = _percentiles(own, level)
    uncertain = (bounds.low <= 0) & (bounds.high >= 0)
    return tuple(group.name for group, flag in zip(groups, uncertain, strict=True) if flag)
