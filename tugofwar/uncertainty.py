"""Bootstrap over batches within datasets, for every measure of interference (eq. 2 to 4).

A resample is a vector of counts, how often each batch was drawn, so that all resamples together are matrix
products with the Gram matrix and no gradient is touched again. ``simultaneous.py`` makes intervals of them.
"""

from collections.abc import Iterator, Sequence
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
from tugofwar.simultaneous import (
    Bounds,
    adjusted_p_values,
    narrowed,
    noise_between,
    noise_within,
    percentile_bounds,
    simultaneous_bounds,
)
from tugofwar.strata import Group, Stratum, build_groups

# Bounds one work array of (batches, resamples) float64 numbers; there are a handful of them at a time.
_WORK_BYTES = 64 * 2**20


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
    any value, and have p-value 1.
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
    draws = _replicates(matrix, members, estimator, resamples, seed)
    log_ratio = _log_ratios(draws.log_magnitude)
    log_ratio_point = _log_ratios(_log_magnitudes(matrix, members)[np.newaxis])[0]
    sizes = np.array([group.fewest for group in members])
    fewest = np.minimum.outer(sizes, sizes)
    uncertain = _sign_uncertain(matrix, members, draws.own, level, sizes)
    without_direction = Intervals(
        names=tuple(group.name for group in members),
        estimator=estimator,
        level=level,
        resamples=resamples,
        gd=None,
        gm=_similarity_bounds(percentile_bounds(log_ratio, level, fewest)),
        index=None,
        index_normalised=None,
        sign_uncertain=tuple(group.name for group, flag in zip(members, uncertain, strict=True) if flag),
        gm_simultaneous=_similarity_bounds(simultaneous_bounds(log_ratio, log_ratio_point, level, fewest)),
        gm_p_values=adjusted_p_values(log_ratio, log_ratio_point, 0.0, fewest),
    )
    if estimator == "plugin":
        return without_direction
    gd = gradient_direction(matrix, groups, estimator, datasets)
    gm = gradient_magnitude_similarity(matrix, groups, datasets)
    noise = _noise_of_ratios(matrix, members, estimator)
    return _with_direction(without_direction, draws, gd, gm, noise, uncertain, fewest)


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
    draws: "_Replicates",
    gd: Array,
    gm: Array,
    noise: Array,
    uncertain: NDArray[np.bool_],
    fewest: NDArray[np.int64],
) -> Intervals:
    """``intervals`` with those of GD and the index; ``noise`` is what ``_noise_of_ratios`` returns."""
    level = intervals.level
    own = np.diagonal(noise)
    diagonal = np.eye(len(noise), dtype=bool)
    between = np.where(diagonal, 0.0, noise)
    index = tug_of_war_index(gd, gm)
    gd_draws = narrowed(draws.gd, gd, np.where(diagonal, 0.0, between + gd**2 * own[:, np.newaxis]))
    # The index less its own 1 is a sum of ratios over one denominator.
    index_draws = narrowed(draws.index(), index, (between * gm**2).sum(axis=1) + (index - 1) ** 2 * own)
    return replace(
        intervals,
        gd=percentile_bounds(gd_draws, level, fewest),
        index=percentile_bounds(index_draws, level, fewest.min()),
        index_normalised=_normalised_bounds(index_draws, index, level, fewest.min()),
        gd_simultaneous=simultaneous_bounds(gd_draws, gd, level, fewest),
        gd_p_values=np.where(uncertain[:, np.newaxis] & ~diagonal, 1.0, adjusted_p_values(gd_draws, gd, 0.0, fewest)),
        index_simultaneous=simultaneous_bounds(index_draws, index, level, fewest.min()),
        index_p_values=np.where(uncertain, 1.0, adjusted_p_values(index_draws, index, 1.0, fewest.min())),
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
    for counts in draw_counts(groups, norms > 0, resamples, seed):
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


def draw_counts(groups: Sequence[Group], has_gradient: NDArray[np.bool_], resamples: int, seed: int) -> Iterator[Array]:
    """Yield how often each batch is drawn, ``(batches, resamples of this chunk)``, whatever the chunk's size.

    Args:
        groups: whose strata are resampled, each to its own number of batches.
        has_gradient: false for batches with a zero gradient; at least two others are drawn of each stratum.
        resamples: number of draws over all chunks.
        seed: seed of the draws.
    """
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
    """A resample without a denominator has no ratio: NaN, which ``percentile_bounds`` counts and leaves out."""
    return np.where(denominators == 0, np.nan, denominators)


def _weights_of_ratios(group: Group, counts: Array, has_gradient: NDArray[np.bool_]) -> Array:
    """Like ``_resampled_weights``, but only over batches whose ratio is not 0/0."""
    weights = np.zeros_like(counts)
    for stratum in group.strata:
        rows = stratum.rows[has_gradient[stratum.rows]]
        weights[rows] = counts[rows] / (counts[rows].sum(axis=0) * len(group.strata))
    return weights


def _log_ratios(log_magnitude: Array) -> Array:
    return log_magnitude[:, :, np.newaxis] - log_magnitude[:, np.newaxis, :]


def _similarity(log_ratio: Array) -> Array:
    """Eq. 3 of ``log(m_i / m_j)``: ``2 / (r + 1/r) = 1 / cosh(log r)``."""
    return 1 / np.cosh(log_ratio)


def _log_magnitudes(gram: Array, groups: Sequence[Group]) -> Array:
    norms = np.sqrt(np.diagonal(gram))
    return np.log([group.weights(len(gram)) @ norms for group in groups])


def _similarity_bounds(log_ratio: Bounds) -> Bounds:
    """Bounds of ``log(m_i / m_j)`` mapped to GM, whose upper end is 1 where they span 0."""
    ends = np.stack([_similarity(log_ratio.low), _similarity(log_ratio.high)])
    spans_zero = (log_ratio.low <= 0) & (log_ratio.high >= 0)
    return Bounds(ends.min(axis=0), np.where(spans_zero, 1.0, ends.max(axis=0)))


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


def _sign_uncertain(
    gram: Array, groups: Sequence[Group], own: Array, level: float, sizes: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether the interval of a group's mean leave-one-out product with itself spans 0, ``(T,)``."""
    unit = unit_products(gram)
    point = np.array([group.weights(len(unit)) @ along_group(unit, group, leave_out=True) for group in groups])
    noise = np.array([noise_within(unit, group) for group in groups])
    bounds = percentile_bounds(narrowed(own, point, noise), level, sizes)
    return (bounds.low <= 0) & (bounds.high >= 0)


def _noise_of_ratios(gram: Array, groups: Sequence[Group], estimator: str) -> Array:
    """Variance that pairs of batches alone give to GD's numerators, and on the diagonal to its denominators.

    ``(T, T)``, both in units of the denominator: entry ``(i, j)`` is that of
    ``mean_{a in S_i} U_aj / D_a``, with ``D_a`` the mean denominator or, for ``leave_one_out``, ``U_ai``.
    """
    unit = unit_products(gram)
    noise = np.empty((len(groups), len(groups)))
    for i, group in enumerate(groups):
        own = along_group(unit, group, leave_out=True)
        mean = np.full(len(unit), group.weights(len(unit)) @ own)
        denominators = mean if estimator == "ratio_of_means" else own
        divisors = denominators[:, np.newaxis]
        ratios = np.divide(unit, divisors, out=np.zeros_like(unit), where=divisors != 0)
        noise[i] = [noise_between(ratios, group, other) for other in groups]
        noise[i, i] = noise_within(ratios, group)
    return noise
