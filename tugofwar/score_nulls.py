"""What noise alone would make of the statistics score (eq. 5): resampled means, and two nulls.

Averaging few noisy batches pushes the means of datasets apart, so that eq. 5 falls short of 1 without any
conflict. Adding a resample's noise to the observed means would have that noise twice. Here the observed means
``M`` (datasets x parameters) are first mapped linearly to ``A M`` whose inner products are those of the *true*
means, as estimated without bias from the block's Gram matrix; then noise of the right size is added once:

* replicates: ``A M`` keeps how the datasets agree and conflict;
* no conflict: ``A M`` has every dataset along one common direction, with its own true size.

A third draw needs no noise: the magnitudes of the means with random signs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray

from tugofwar.metrics import Array
from tugofwar.statistics import TEN, Counts, group_means

NULL_DRAWS = 20
# Columns worked on at a time: a (replicates, columns) array should stay in the processor's cache.
_COLUMNS = 256
# Directions in which the means hold less than this part of their size are rounding.
_NEGLIGIBLE = 1e-6

Levels = Mapping[str, Mapping[str, Sequence[int]]]
Single = NDArray[np.float32]


@dataclass(frozen=True)
class Design:
    """How noise is drawn: per dataset its rows, and weights on them whose sums are draws of the mean's noise.

    The weights of a draw sum to 0 over a dataset, and their expected squares make the draws' covariance the
    unbiased estimate of the mean's. ``bootstrap`` are ``(replicates, n_i)`` from batches drawn with
    replacement, ``wild`` are ``(NULL_DRAWS, n_i)`` from random signs. All blocks share one design, so that
    they can be summed replicate by replicate.
    """

    rows: tuple[NDArray[np.intp], ...]
    bootstrap: tuple[Single, ...]
    wild: tuple[Single, ...]


@dataclass(frozen=True)
class Resampled:
    """Counts of the sampled parameters at one level; see ``statistics.BlockScores``."""

    null_signs: Counts
    null_no_conflict: Counts | None
    replicates: NDArray[np.int32] | None


def draw_design(rows: Sequence[NDArray[np.intp]], replicates: int, seed: int) -> Design:
    """Draw the weights; every dataset needs at least two rows."""
    bootstrap, wild = [], []
    for number, members in enumerate(rows):
        batches = len(members)
        generator = np.random.default_rng([seed, number])
        counts = generator.multinomial(batches, np.full(batches, 1 / batches), size=replicates)
        signs = generator.choice([-1.0, 1.0], size=(NULL_DRAWS, batches))
        scale = 1 / np.sqrt(batches * (batches - 1))
        bootstrap.append(((counts - 1) * scale).astype(np.float32))
        wild.append(((signs - signs.mean(axis=1, keepdims=True)) * scale).astype(np.float32))
    return Design(tuple(rows), tuple(bootstrap), tuple(wild))


def sampled_columns(block: str, block_size: int, rows: int, sample_bytes: int, seed: int) -> NDArray[np.intp]:
    """Sorted columns of a block that stand for it: one at random in each of as many equal stretches.

    All columns of a block of up to 2,048; then 1 in 64 but at least 2,048, and never more than ``rows``
    float64 values each can hold in ``sample_bytes``.
    """
    affordable = max(1, sample_bytes // (8 * rows))
    size = min(block_size, affordable, max(2048, block_size // 64))
    bounds = np.arange(size + 1) * block_size // size
    return _generator(seed, block, 0).integers(bounds[:-1], bounds[1:])


def resample_block(
    block: str,
    sample: Array,
    means: Array,
    gram: Array,
    design: Design | None,
    levels: Levels,
    seed: int,
) -> dict[str, Resampled]:
    """Replicates and nulls of one block from its sampled columns.

    Args:
        block: the block's name, which seeds its random signs.
        sample: gradients of all batches at the sampled parameters, ``(batches, sampled)``.
        means: mean gradients of the datasets there, ``(datasets, sampled)``.
        gram: inner products of the batches' gradients over the whole block, ``(batches, batches)``.
        design: None if a dataset has one batch: only signs are drawn then.
        levels: per level the groups, as numbers of datasets.
        seed: seed of the signs.
    """
    # A score does not change with its parameter's scale, and float32 is enough once the scale is out.
    scale = np.abs(sample).max(axis=0)
    scale[scale == 0] = 1.0
    chunks = [slice(start, start + _COLUMNS) for start in range(0, sample.shape[1], _COLUMNS)]
    maps = None if design is None else _maps(gram, design.rows)
    generator = _generator(seed, block, 1)
    parts: dict[str, list[tuple[Counts, ...]]] = {level: [] for level in levels}
    for columns in chunks:
        chunk_means = (means[:, columns] / scale[columns]).astype(np.float32)
        noisy = []
        if design is not None and maps is not None:
            rows = (sample[:, columns] / scale[columns]).astype(np.float32)
            for weights, mapping in zip((design.wild, design.bootstrap), maps, strict=True):
                noisy.append(_noisy_means(rows, chunk_means, design.rows, weights, mapping))
        for level, groups in levels.items():
            signed = _random_signs(np.stack(group_means(chunk_means, groups)), generator)
            parts[level].append((_counts(list(signed)), *(_counts(group_means(draw, groups)) for draw in noisy)))
    return {level: _collect(counts) for level, counts in parts.items()}


def true_products(gram: Array, rows: Sequence[NDArray[np.intp]]) -> tuple[Array, Array]:
    """Inner products of the observed mean gradients, and unbiased estimates of those of the true ones.

    They differ on the diagonal, where the observed mean's own noise is in the product; ``(datasets, datasets)``
    each. An estimate can be negative.
    """
    weights = np.zeros((len(rows), len(gram)))
    for number, members in enumerate(rows):
        weights[number, members] = 1 / len(members)
    observed = weights @ gram @ weights.T
    true = observed.copy()
    for number, members in enumerate(rows):
        within = gram[np.ix_(members, members)]
        true[number, number] = (within.sum() - np.trace(within)) / (len(members) * (len(members) - 1))
    return observed, true


def agreement_map(observed: Array, true: Array) -> Array:
    """``A`` with ``A observed A' = true``, the one that moves the means least; ``(datasets, datasets)``.

    This is the optimal transport map between two Gaussians of these covariances. What is negative in ``true``
    is taken as 0.
    """
    root, inverse = _power(observed, 0.5), _power(observed, -0.5)
    positive = _power(true, 1.0)
    return inverse @ _power(root @ positive @ root, 0.5) @ inverse


def common_direction_map(observed: Array, true: Array) -> Array:
    """``A`` that puts every dataset's mean along one direction, with its own true size; ``(datasets, datasets)``.

    The direction is the datasets' first principal one, which exists also where their sum cancels.
    """
    _, vectors = np.linalg.eigh(true)
    loadings = vectors[:, -1]
    length = np.sqrt(loadings @ observed @ loadings)
    sizes = np.sqrt(np.clip(np.diagonal(true), 0, None))
    return np.outer(sizes, loadings / length) if length > 0 else np.zeros_like(true)


def _maps(gram: Array, rows: Sequence[NDArray[np.intp]]) -> tuple[Single, Single]:
    """Maps of the means for the no-conflict null and for the replicates, in this order."""
    observed, true = true_products(gram, rows)
    # Datasets on one scale, so that rounding is judged per dataset and a small one is not lost beside a big one.
    size = np.sqrt(np.diagonal(observed).clip(0))
    size[size == 0] = 1.0
    products = np.outer(size, size)
    observed, true = observed / products, true / products
    back = size[:, np.newaxis] / size
    no_conflict, agreement = common_direction_map(observed, true) * back, agreement_map(observed, true) * back
    return no_conflict.astype(np.float32), agreement.astype(np.float32)


def _power(matrix: Array, exponent: float) -> Array:
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    kept = values > _NEGLIGIBLE * np.abs(values).max()
    powers = np.zeros_like(values)
    powers[kept] = values[kept] ** exponent
    return np.asarray((vectors * powers) @ vectors.T)


def _noisy_means(
    sample: Single,
    means: Single,
    rows: Sequence[NDArray[np.intp]],
    weights: Sequence[Single],
    mapping: Single,
) -> Single:
    """Mapped means with noise added once, ``(datasets, draws, columns)``."""
    # torch's product, because the caller sets its threads.
    noise = [
        (torch.from_numpy(weight) @ torch.from_numpy(sample[members])).numpy()
        for weight, members in zip(weights, rows, strict=True)
    ]
    return np.stack(noise) + (mapping @ means)[:, np.newaxis]


def _random_signs(means: Single, generator: np.random.Generator) -> Single:
    """Magnitudes of ``(groups, columns)`` under independent signs, ``(groups, NULL_DRAWS, columns)``."""
    shape = (len(means), NULL_DRAWS, means.shape[1])
    signs = generator.integers(0, 2, size=shape, dtype=np.int8) * np.float32(2) - np.float32(1)
    return signs * means[:, np.newaxis]


def _counts(means: Sequence[NDArray[Any]]) -> Counts:
    """Scores (eq. 5) of ``(draws, columns)`` means of each group, counted per draw: ``(draws, 10)``."""
    total, absolute = np.zeros_like(means[0]), np.zeros_like(means[0])
    for mean in means:
        total += mean
        absolute += np.abs(mean)
    defined = absolute > 0
    score = np.divide(np.abs(total), absolute, out=np.zeros_like(total), where=defined)
    interval = np.minimum((score * TEN).astype(np.int64), TEN - 1)
    interval += TEN * np.arange(len(total))[:, np.newaxis]
    return np.bincount(interval[defined], minlength=TEN * len(total)).reshape(-1, TEN)


def _collect(chunks: Sequence[tuple[Counts, ...]]) -> Resampled:
    signs, *noisy = (np.sum(counts, axis=0) for counts in zip(*chunks, strict=True))
    if not noisy:
        return Resampled(signs.sum(axis=0), None, None)
    no_conflict, replicates = noisy
    return Resampled(signs.sum(axis=0), no_conflict.sum(axis=0), replicates.astype(np.int32))


def _generator(seed: int, block: str, purpose: int) -> np.random.Generator:
    return np.random.default_rng([seed, crc32(block.encode()), purpose])
