"""Bootstrap replicates of GD, GM and the index (eq. 2 to 4): batches drawn again within datasets.

A resample is a vector of counts, how often each batch was drawn, so that all resamples together are matrix
products with the Gram matrix and no gradient is touched again. ``uncertainty.py`` makes intervals of them for
one recording, ``differences.py`` for the difference of two.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tugofwar.metrics import Array, along_group, unit_products
from tugofwar.simultaneous import noise_between, noise_within
from tugofwar.strata import Group, Stratum

# Bounds one work array of (batches, resamples) float64 numbers; there are a handful of them at a time.
_WORK_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Replicates:
    """One entry per resample: GD ``(R, T, T)``, ``log m`` and GD's denominators ``(R, T)``."""

    gd: Array
    log_magnitude: Array
    own: Array

    def index(self) -> Array:
        """Tug-of-war indexes of the resamples, ``(R, T)``."""
        return (self.gd * similarity(log_ratios(self.log_magnitude))).sum(axis=2)


def replicates(gram: Array, groups: Sequence[Group], estimator: str, draws: Iterable[Array]) -> Replicates:
    """GD, mean norms and denominators of every resample.

    Args:
        gram: inner products of batch gradients, ``(batches, batches)``.
        groups: the ``T`` datasets or tasks.
        estimator: which GD; see ``metrics.gradient_direction``.
        draws: counts, ``(batches, resamples)`` at a time, as ``draw_counts`` yields them.
    """
    unit = unit_products(gram)
    norms = np.sqrt(np.diagonal(gram))
    parts = []
    for counts in draws:
        along = [_along_resampled(unit, group, counts) for group in groups]
        weights = [_resampled_weights(group, counts) for group in groups]
        magnitudes = np.stack([norms @ weight for weight in weights], axis=1)
        own = np.stack([(w * u).sum(axis=0) for w, u in zip(weights, along, strict=True)], axis=1)
        if estimator == "leave_one_out":
            gd = _resampled_mean_of_ratios(along, groups, counts, norms > 0)
        else:
            # The plugin asks for GM's interval only; this costs it next to nothing.
            gd = _resampled_ratio_of_means(along, groups, weights, own)
        parts.append((gd, np.log(magnitudes), own))
    return Replicates(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def draw_counts(
    groups: Sequence[Group], has_gradient: NDArray[np.bool_], resamples: int, seed: int, stream: int = 0
) -> Iterator[Array]:
    """Yield how often each batch is drawn, ``(batches, resamples of this chunk)``, whatever the chunk's size.

    Args:
        groups: whose strata are resampled, each to its own number of batches.
        has_gradient: false for batches with a zero gradient, ``(batches,)``, or one row per run that shares the
            draws; at least two others are drawn of each stratum, for every run.
        resamples: number of draws over all chunks.
        seed: seed of the draws.
        stream: draws of one seed and different streams are independent of each other.
    """
    with_gradient = np.atleast_2d(has_gradient)
    rows_in_total = with_gradient.shape[1]
    cells = _resampling_cells(groups)
    generators = [np.random.default_rng([seed, number, stream]) for number in range(len(cells))]
    chunk = max(1, _WORK_BYTES // (8 * rows_in_total * max(1, len(groups))))
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        counts = np.zeros((rows_in_total, size))
        for rows, generator in zip(cells, generators, strict=True):
            counts[rows] = _draw_cell(with_gradient[:, rows], size, generator).T
        yield counts


def log_ratios(log_magnitude: Array) -> Array:
    """``log(m_i / m_j)``, ``(R, T, T)``, of ``log m``, ``(R, T)``."""
    return log_magnitude[:, :, np.newaxis] - log_magnitude[:, np.newaxis, :]


def similarity(log_ratio: Array) -> Array:
    """Eq. 3 of ``log(m_i / m_j)``: ``2 / (r + 1/r) = 1 / cosh(log r)``."""
    return 1 / np.cosh(log_ratio)


def log_magnitudes(gram: Array, groups: Sequence[Group]) -> Array:
    """``log m`` of every group, ``(T,)``."""
    norms = np.sqrt(np.diagonal(gram))
    return np.log([group.weights(len(gram)) @ norms for group in groups])


def ratios_by_group(gram: Array, groups: Sequence[Group], estimator: str) -> Iterator[Array]:
    """Per group ``i`` what GD's numerators are means of, in units of its denominator, ``(batches, batches)``.

    ``V_ab / D_a`` for batches ``a`` of the group and 0 in other rows, with ``D_a`` the mean denominator or, for
    ``leave_one_out``, ``U_ai``.
    """
    unit = unit_products(gram)
    for group in groups:
        own = along_group(unit, group, leave_out=True)
        mean = np.full(len(unit), group.weights(len(unit)) @ own)
        rows = group.rows
        divisors = (mean if estimator == "ratio_of_means" else own)[rows, np.newaxis]
        # Unlike zeros_like, this leaves rows that are not written to unallocated.
        ratios = np.zeros(unit.shape)
        ratios[rows] = np.divide(unit[rows], divisors, out=np.zeros((len(rows), len(unit))), where=divisors != 0)
        yield ratios


def noise_of_ratios(ratios: Iterable[Array], groups: Sequence[Group]) -> Array:
    """Variance that pairs of batches alone give to GD's numerators, and on the diagonal to its denominators.

    Args:
        ratios: one matrix per group; see ``ratios_by_group``.
        groups: the ``T`` datasets or tasks.

    Returns:
        ``(T, T)``, in units of the denominator.
    """
    noise = np.empty((len(groups), len(groups)))
    for i, (group, products) in enumerate(zip(groups, ratios, strict=True)):
        noise[i] = [
            noise_within(products, group) if j == i else noise_between(products, group, other)
            for j, other in enumerate(groups)
        ]
    return noise


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
    batches = has_gradient.shape[1]
    required = np.minimum(2, has_gradient.sum(axis=1))
    uniform = np.full(batches, 1 / batches)
    accepted: list[NDArray[np.int64]] = []
    # One draw at a time is accepted or rejected, in order, whatever the size of the chunk.
    while len(accepted) < size:
        drawn = generator.multinomial(batches, uniform, size=size - len(accepted))
        distinct = np.stack([(drawn[:, mask] > 0).sum(axis=1) for mask in has_gradient], axis=1)
        accepted.extend(drawn[(distinct >= required).all(axis=1)])
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


def _resampled_ratio_of_means(
    along: Sequence[Array], groups: Sequence[Group], weights: Sequence[Array], own: Array
) -> Array:
    gd = np.ones((len(own), len(along), len(along)))
    denominators = _nan_where_zero(own)
    for i, group in enumerate(groups):
        rows = group.rows
        weight = weights[i][rows]
        for j, value in enumerate(along):
            if i != j:
                gd[:, i, j] = np.einsum("ar,ar->r", weight, value[rows]) / denominators[:, i]
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
