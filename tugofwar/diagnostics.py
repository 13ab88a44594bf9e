"""What else the Gram matrix of batch gradients knows: cosines, conflicting pairs, noise, Fisher spectra.

``gram``, ``groups`` and ``datasets`` are those of ``metrics.py``. With ``datasets`` every mean over a group
gives its datasets equal weight. A product of two batches' gradients is free of sampling noise only when the
batches differ, so that all means below are over pairs of distinct batches.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from tugofwar.errors import UserError
from tugofwar.estimation import LabelledBounds, idle_datasets, label_bounds, rows_of_groups
from tugofwar.metrics import Array, Groups, check_gram, check_leave_one_out
from tugofwar.recording import Recording
from tugofwar.resampling import draw_counts
from tugofwar.simultaneous import percentile_bounds
from tugofwar.strata import Group, build_groups
from tugofwar.uncertainty import check_bootstrap

# Eigenvalues below this share of the largest are rounding errors of a rank-deficient Gram matrix.
_ROUNDING = 1e-12


class Spectrum(NamedTuple):
    """Spectrum of an empirical Fisher matrix.

    Attributes:
        eigenvalues: the at most ``n`` that are not zero by construction, largest first, ``(n,)``; squared
            units of loss per unit of parameter.
        entropy: ``-sum p ln p / ln n`` with ``p`` the eigenvalues over their sum; 1 when ``n`` samples pull in
            ``n`` orthogonal directions alike, 0 when all pull along one.
        dominant_ratio: largest eigenvalue over the sum of all.
        effective_rank: ``exp(-sum p ln p)``, from 1 to ``n`` (O. Roy and M. Vetterli 2007).
    """

    eigenvalues: Array
    entropy: float
    dominant_ratio: float
    effective_rank: float


@dataclass(frozen=True, eq=False)
class Diagnostics:
    """Labelled diagnostics of a recording; no table holds an undefined cell.

    Attributes:
        cosine: bias-corrected cosine of mean gradients, over the groups that have a mean gradient.
        conflict: share of conflicting pairs of batches within (diagonal) and between groups.
        noise: per group with a mean gradient, ``squared_norm`` of it, ``variance`` of a batch's gradient around
            it, ``signal_to_noise``, ``noise_scale_batches`` and, with a batch size, ``noise_scale_samples``.
        spectra: per group and for ``overall``, ``entropy``, ``dominant_ratio`` and ``effective_rank`` of the
            empirical Fisher matrix; None unless the batch size is 1.
        intervals: percentile bootstrap intervals of ``cosine`` and ``conflict``; empty without resamples.
        level: probability that an interval should cover the truth.
        undefined: groups whose mean gradient cannot be told from 0 (or whose batches have no noise at all), so
            that cosine and noise scale do not exist for them.
        batch_size: samples per batch, None when unknown.
    """

    cosine: pd.DataFrame
    conflict: pd.DataFrame
    noise: pd.DataFrame
    spectra: pd.DataFrame | None
    intervals: Mapping[str, LabelledBounds]
    level: float
    undefined: tuple[str, ...]
    batch_size: int | None


def mean_gradient_products(gram: ArrayLike, groups: Groups, datasets: Sequence[str] | None = None) -> Array:
    """Unbiased ``<E g_i, E g_j>``: the mean of ``K_ab`` over ``a`` in ``S_i``, ``b`` in ``S_j``, ``a != b``.

    Returns:
        ``(T, T)``, symmetric; the diagonal estimates ``|E g_i|^2`` and can be negative.

    Raises:
        UserError: invalid input, or a dataset with one batch.
    """
    matrix, members = _checked(gram, groups, datasets)
    return _pair_means(matrix, members)


def mean_gradient_cosine(
    gram: ArrayLike, groups: Groups, datasets: Sequence[str] | None = None
) -> tuple[Array, NDArray[np.bool_]]:
    """Cosine of mean gradients, ``<E g_i, E g_j> / (|E g_i| |E g_j|)``, sampling noise removed from the norms.

    The cosine of the sampled means shrinks towards 0 as ``tr(Sigma) / n`` adds to their norms; here all
    products are ``mean_gradient_products``. An estimate can therefore exceed 1 by its own sampling error.

    Returns:
        ``(cosine, undefined)``: ``(T, T)`` with diagonal 1, and ``(T,)``, true for groups whose unbiased
        squared norm is not positive; their rows and columns are NaN, to be left out.

    Raises:
        UserError: invalid input, or a dataset with one batch.
    """
    cosine = _cosines(mean_gradient_products(gram, groups, datasets)[np.newaxis])[0]
    return cosine, np.isnan(np.diagonal(cosine))


def conflicting_pairs(gram: ArrayLike, groups: Groups, datasets: Sequence[str] | None = None) -> Array:
    """Share of pairs of distinct batches, one of ``i`` and one of ``j``, with ``K_ab < 0``.

    Returns:
        ``(T, T)``, symmetric, from 0 to 1; noise without any signal gives 1/2, between and within groups.

    Raises:
        UserError: invalid input, or a dataset with one batch.
    """
    matrix, members = _checked(gram, groups, datasets)
    return _pair_means((matrix < 0).astype(np.float64), members)


def gradient_noise(gram: ArrayLike, groups: Groups, datasets: Sequence[str] | None = None) -> tuple[Array, Array]:
    """Signal ``|E g_i|^2`` and noise ``tr Cov(g_i) = E |g_i|^2 - |E g_i|^2`` of a batch gradient, both unbiased.

    For a group that pools datasets a batch is one of any of them with equal probability, so that the noise
    includes what sets the datasets apart.

    Returns:
        ``(signal, noise)``, both ``(T,)``; the signal can be negative, the noise only by rounding.

    Raises:
        UserError: invalid input, or a dataset with one batch.
    """
    matrix, members = _checked(gram, groups, datasets)
    signal = np.diagonal(_pair_means(matrix, members)).copy()
    power = np.array([group.weights(len(matrix)) @ np.diagonal(matrix) for group in members])
    return signal, power - signal


def signal_to_noise(
    gram: ArrayLike, groups: Groups, datasets: Sequence[str] | None = None
) -> tuple[Array, NDArray[np.bool_]]:
    """Signal-to-noise of a batch gradient, ``|E g_i|^2 / tr Cov(g_i)``.

    Returns:
        ``(ratio, undefined)``, both ``(T,)``; NaN, to be left out, where the signal is not positive or there is
        no noise.

    Raises:
        UserError: invalid input, or a dataset with one batch.
    """
    signal, noise = gradient_noise(gram, groups, datasets)
    # Batches that are equal up to rounding have no noise to speak of.
    undefined = (signal <= 0) | (noise <= _ROUNDING * np.abs(signal))
    return np.divide(signal, noise, out=np.full(len(signal), np.nan), where=~undefined), undefined


def noise_scale(
    gram: ArrayLike, groups: Groups, datasets: Sequence[str] | None = None, batch_size: int = 1
) -> tuple[Array, NDArray[np.bool_]]:
    """Simple noise scale ``tr(Sigma) / |G|^2`` (S. McCandlish et al. 2018), ``Sigma`` that of one sample.

    A batch is the mean of ``batch_size`` independent samples, so that ``Sigma`` is ``batch_size`` times the
    covariance of batch gradients. With ``batch_size=1`` the result is in batches, otherwise in samples: how
    many of them a step needs before its signal equals its noise.

    Returns:
        ``(scale, undefined)``, as ``signal_to_noise``.

    Raises:
        UserError: invalid input, a dataset with one batch, or a batch size below 1.
    """
    _check_batch_size(batch_size)
    ratio, undefined = signal_to_noise(gram, groups, datasets)
    return batch_size / ratio, undefined


def fisher_spectra(
    gram: ArrayLike, groups: Groups, batch_size: int, datasets: Sequence[str] | None = None
) -> tuple[dict[str, Spectrum], Spectrum]:
    """Spectrum of the empirical Fisher matrix ``F = sum_a w_a g_a g_a^T`` of each group, and overall.

    ``g_a`` are gradients of single samples: those of larger batches average the noise away and flatter the
    dominant direction. ``w_a`` are the weights of the group's mean (1/n without ``datasets``), overall the mean
    of the groups' weights. The eigenvalues are those of ``sqrt(w_a) K_ab sqrt(w_b)``, ``K / n`` for equal
    weights.

    Args:
        gram: inner products of per-sample gradients, ``(samples, samples)``.
        groups: rows of each of the ``T`` datasets or tasks.
        batch_size: samples per row of ``gram``; must be 1.
        datasets: dataset of each row, for equal weight per dataset.

    Returns:
        The spectrum of each group by name, and the overall one.

    Raises:
        UserError: a batch size other than 1, a dataset with one sample, a group whose gradients are all zero.
    """
    if batch_size != 1:
        raise UserError(
            f"The empirical Fisher spectrum needs the gradients of single samples, but batches hold {batch_size}; "
            "record with a batch size of 1."
        )
    matrix, members = _checked(gram, groups, datasets)
    weights = np.stack([group.weights(len(matrix)) for group in members])
    spectra = {group.name: _spectrum(matrix, w, group.name) for group, w in zip(members, weights, strict=True)}
    return spectra, _spectrum(matrix, weights.mean(axis=0), "overall")


def diagnose(
    recording: Recording,
    groups: Mapping[str, Sequence[str] | Sequence[int]] | None = None,
    batch_size: int | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Diagnostics:
    """All of this module for a recording, labelled, with bootstrap intervals over batches within datasets.

    The intervals of cosines are somewhat too wide where the noise of a batch is much stronger than its signal,
    because resampling batches counts what pairs of them share three times.

    Args:
        recording: what ``record`` returned, or a selection of its blocks.
        groups: name to dataset names (or to row numbers); by default one group per dataset.
        batch_size: samples per batch; by default the recording's own ``metadata["batch_size"]``, if any.
        resamples: bootstrap draws; 0 for no intervals.
        level: probability that an interval should cover the truth.
        seed: seed of the bootstrap.

    Raises:
        UserError: a group that names an unknown or untouched dataset, a dataset with one batch, or settings
            out of range.
    """
    size = recording.metadata.get("batch_size") if batch_size is None else batch_size
    if size is not None:
        _check_batch_size(size)
    gram = recording.gram
    rows = rows_of_groups(recording, groups, idle_datasets(recording, gram))
    names = pd.Index(list(rows))
    arguments = (gram, rows, recording.datasets)
    fewest = _fewest(*arguments)
    cosine, without_signal = mean_gradient_cosine(*arguments)
    conflict = conflicting_pairs(*arguments)
    bounds: dict[str, LabelledBounds] = {}
    if resamples:
        cosines, conflict_draws = _resampled(*arguments, resamples, level, seed)
        # A cosine needs both groups: half of the share each that an interval leaves out on one side.
        without_signal |= np.isnan(np.diagonal(cosines, axis1=1, axis2=2)).mean(axis=0) > (1 - level) / 4
        bounds["conflict"] = label_bounds(percentile_bounds(conflict_draws, level, fewest), names)
    undefined = without_signal | signal_to_noise(*arguments)[1]
    kept = np.flatnonzero(~undefined)
    cells = np.ix_(kept, kept)
    if resamples and len(kept):
        ends = percentile_bounds(cosines[:, kept][:, :, kept], level, fewest[cells])
        bounds["cosine"] = label_bounds(ends, names[kept])
    return Diagnostics(
        cosine=pd.DataFrame(cosine[cells], index=names[kept], columns=names[kept]),
        conflict=pd.DataFrame(conflict, index=names, columns=names),
        noise=_noise_table(arguments, size, names, kept),
        spectra=_spectra_table(gram, rows, recording.datasets) if size == 1 else None,
        intervals=bounds,
        level=level,
        undefined=tuple(str(name) for name in names[undefined]),
        batch_size=size,
    )


def _check_batch_size(batch_size: object) -> None:
    if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
        raise UserError(f"`batch_size` is the number of samples per batch, a whole number from 1; got {batch_size!r}.")


def _checked(gram: ArrayLike, groups: Groups, datasets: Sequence[str] | None) -> tuple[Array, list[Group]]:
    matrix = check_gram(gram)
    members = build_groups(groups, len(matrix), datasets)
    check_leave_one_out(members)
    return matrix, members


def _fewest(gram: Array, groups: Groups, datasets: Sequence[str] | None) -> NDArray[np.int64]:
    """Batches of the smallest dataset behind each cell, ``(T, T)``."""
    sizes = np.array([group.fewest for group in build_groups(groups, len(gram), datasets)])
    return np.minimum.outer(sizes, sizes)


def _pair_means(matrix: Array, groups: Sequence[Group]) -> Array:
    """Mean of ``matrix[a, b]`` over distinct pairs of each two groups, ``(T, T)``."""
    return _resampled_pair_means(matrix, groups, np.ones((len(matrix), 1)))[0]


def _resampled_pair_means(matrix: Array, groups: Sequence[Group], counts: Array) -> Array:
    """The same per resample, ``(resamples, T, T)``; copies of one batch are no distinct pair."""
    means = np.zeros((counts.shape[1], len(groups), len(groups)))
    for j, other in enumerate(groups):
        for theirs in other.strata:
            along = matrix[:, theirs.rows] @ counts[theirs.rows]
            for i, group in enumerate(groups[: j + 1]):
                for mine in group.strata:
                    shared = np.intersect1d(mine.rows, theirs.rows)
                    copies = counts[shared] ** 2
                    total = (counts[mine.rows] * along[mine.rows]).sum(axis=0) - matrix[shared, shared] @ copies
                    pairs = len(mine.rows) * len(theirs.rows) - copies.sum(axis=0)
                    share = np.divide(total, pairs, out=np.full_like(total, np.nan), where=pairs > 0)
                    means[:, i, j] += share / (len(group.strata) * len(other.strata))
            means[:, j, :j] = means[:, :j, j]
    return means


def _cosines(products: Array) -> Array:
    """Cosines of ``mean_gradient_products`` per resample; NaN where a squared norm is not positive."""
    squared = np.diagonal(products, axis1=1, axis2=2)
    norms = np.sqrt(np.where(squared > 0, squared, np.nan))
    return products / (norms[:, :, np.newaxis] * norms[:, np.newaxis, :])


def _resampled(
    gram: Array, groups: Groups, datasets: Sequence[str], resamples: int, level: float, seed: int
) -> tuple[Array, Array]:
    """Cosines and shares of conflicting pairs of every resample, both ``(resamples, T, T)``."""
    check_bootstrap(resamples, level, seed)
    matrix, members = _checked(gram, groups, datasets)
    negative = (matrix < 0).astype(np.float64)
    cosines, conflicts = [], []
    for counts in draw_counts(members, np.diagonal(matrix) > 0, resamples, seed):
        cosines.append(_cosines(_resampled_pair_means(matrix, members, counts)))
        conflicts.append(_resampled_pair_means(negative, members, counts))
    return np.concatenate(cosines), np.concatenate(conflicts)


def _spectrum(matrix: Array, weights: Array, name: str) -> Spectrum:
    rows = np.flatnonzero(weights)
    roots = np.sqrt(weights[rows])
    eigenvalues = np.linalg.eigvalsh(matrix[np.ix_(rows, rows)] * np.outer(roots, roots))[::-1]
    if not eigenvalues[0] > 0:
        raise UserError(f"Group {name!r} has only zero gradients on the selected parameters; leave it out.")
    eigenvalues = np.where(eigenvalues > _ROUNDING * eigenvalues[0], eigenvalues, 0.0)
    shares = eigenvalues / eigenvalues.sum()
    positive = shares[shares > 0]
    # The sum is -0.0 for a single direction; entropies start at 0.
    entropy = max(0.0, float(-(positive * np.log(positive)).sum()))
    return Spectrum(eigenvalues, entropy / float(np.log(len(rows))), float(shares[0]), float(np.exp(entropy)))


def _noise_table(
    arguments: tuple[Array, Groups, Sequence[str]], size: int | None, names: pd.Index, kept: NDArray[np.intp]
) -> pd.DataFrame:
    signal, noise = gradient_noise(*arguments)
    columns = {"squared_norm": signal, "variance": noise, "signal_to_noise": signal_to_noise(*arguments)[0]}
    columns["noise_scale_batches"] = noise_scale(*arguments)[0]
    if size is not None:
        columns["noise_scale_samples"] = noise_scale(*arguments, batch_size=size)[0]
    return pd.DataFrame({name: values[kept] for name, values in columns.items()}, index=names[kept])


def _spectra_table(gram: Array, groups: Groups, datasets: Sequence[str]) -> pd.DataFrame:
    spectra, overall = fisher_spectra(gram, groups, 1, datasets)
    table = [(s.entropy, s.dominant_ratio, s.effective_rank) for s in (*spectra.values(), overall)]
    return pd.DataFrame(table, index=[*spectra, "overall"], columns=["entropy", "dominant_ratio", "effective_rank"])
