"""Bootstrap intervals of routing measures, and the null of no relation between task and expert."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tugofwar.routing.capture import SampleSums
from tugofwar.routing.measures import Array, mutual_information
from tugofwar.simultaneous import Bounds, percentile_bounds


@dataclass(frozen=True)
class Level:
    """Names at one level, and what each pools.

    Attributes:
        level: ``all``, ``dataset`` or ``task``.
        members: name -> its datasets, which have the same weight.
    """

    level: str
    members: Mapping[str, Sequence[str]]

    @property
    def names(self) -> tuple[str, ...]:
        """The names, in order."""
        return tuple(self.members)

    def mixing(self, datasets: Sequence[str]) -> Array:
        """Weight of each dataset in each name's mean, ``(names, datasets)``; rows sum to 1."""
        rows = [[(name in pooled) / len(pooled) for name in datasets] for pooled in self.members.values()]
        return np.array(rows, dtype=np.float64)


def levels_of(datasets: Sequence[str], tasks: Mapping[str, str]) -> list[Level]:
    """``all``, ``dataset`` and, where every dataset's task is known, ``task``, in the order of the datasets.

    Args:
        datasets: names.
        tasks: task of each dataset; empty when there are none.
    """
    levels = [Level("all", {"all": list(datasets)}), Level("dataset", {name: [name] for name in datasets})]
    if all(name in tasks for name in datasets):
        names = dict.fromkeys(tasks[name] for name in datasets)
        levels.append(Level("task", {task: [name for name in datasets if tasks[name] == task] for task in names}))
    return levels


@dataclass(frozen=True)
class DatasetMeans:
    """Means over the tokens of each dataset, as measured or of every resample.

    Attributes:
        weights: ``(..., datasets, experts)``.
        load: ``(..., datasets, experts)``, share of tokens whose largest weight is this expert's.
        entropy: ``(..., datasets)``, of single tokens' weights, in bits.
    """

    weights: Array
    load: Array
    entropy: Array

    def at(self, mixing: Array) -> "DatasetMeans":
        """The same of pooled names, ``mixing`` ``(names, datasets)``."""
        return DatasetMeans(mixing @ self.weights, mixing @ self.load, self.entropy @ mixing.T)


def dataset_means(samples: Mapping[str, SampleSums]) -> DatasetMeans:
    """Means as measured, in the order of the datasets."""
    return _means([_columns(each).sum(axis=0) for each in samples.values()])


def resampled_means(samples: Mapping[str, SampleSums], resamples: int, seed: int) -> DatasetMeans:
    """Means of every bootstrap resample of the samples within each dataset, first axis ``resamples``.

    Args:
        samples: by dataset.
        resamples: number of draws.
        seed: with the dataset's name it decides the draws, so that routers and checkpoints are resampled alike.
    """
    return _means([draw_counts(name, len(each), resamples, seed) @ _columns(each) for name, each in samples.items()])


def draw_counts(name: str, size: int, resamples: int, seed: int) -> Array:
    """How often each of ``size`` units of a dataset is drawn in each resample, ``(resamples, size)``."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return rng.multinomial(size, np.full(size, 1 / size), size=resamples).astype(np.float64)


def information_null(
    samples: Mapping[str, SampleSums], mixings: Sequence[Array], permutations: int, seed: int
) -> list[Array]:
    """Mutual information of name and expert when the samples' datasets are shuffled, per level.

    Every dataset keeps its number of samples; the tokens of a sample stay together.

    Args:
        samples: by dataset.
        mixings: ``(names, datasets)`` of every level.
        permutations: number of shuffles.
        seed: of the shuffles.

    Returns:
        Per level ``(permutations,)``, in bits.
    """
    rows = np.concatenate([np.column_stack([each.weights, each.tokens]) for each in samples.values()])
    starts = np.cumsum([0, *(len(each) for each in samples.values())])[:-1]
    rng = np.random.default_rng(seed)
    sums = np.stack([np.add.reduceat(rows[rng.permutation(len(rows))], starts, axis=0) for _ in range(permutations)])
    weights = sums[..., :-1] / sums[..., -1:]
    return [mutual_information(mixing @ weights) for mixing in mixings]


def p_value(value: float, null: Array) -> float:
    """Share of ``value`` and its null that is at least as large: ``(1 + #{null >= value}) / (1 + n)``."""
    rounding = 1e-12
    return float((1 + (null >= value - rounding).sum()) / (1 + len(null)))


def mean_bounds(replicates: Array, point: Array, level: float, sizes: NDArray[np.int64]) -> Bounds:
    """Percentile intervals of shares: means, which resampling does not bias.

    Args:
        replicates: ``(resamples, ...)``.
        point: ``(...)``, as measured; where nothing scatters, both ends, whatever rounding says.
        level: probability that each interval should cover its truth.
        sizes: units of the smallest dataset behind each cell, broadcast to ``(...)``.
    """
    bounds = percentile_bounds(replicates, level, sizes)
    return Bounds(np.minimum(np.maximum(bounds.low, 0), point), np.maximum(np.minimum(bounds.high, 1), point))


def curved_bounds(replicates: Array, point: Array, largest: float, level: float, sizes: NDArray[np.int64]) -> Bounds:
    """Intervals of measures that noise biases to one side: entropies of means (down), information and divergence (up).

    A resample adds the bias ``b`` once more. The replicates are therefore moved back by ``b``, their mean's distance
    from the point, and the interval's end towards which an unbiased value would lie by another ``b``: it holds the
    value as printed and the value without its bias.

    Args:
        replicates: ``(resamples, ...)``.
        point: ``(...)``, as measured.
        largest: the largest possible value; the smallest is 0.
        level: probability that each interval should cover its truth.
        sizes: units of the smallest dataset behind each cell, broadcast to ``(...)``.
    """
    bias = replicates.mean(axis=0) - point
    bounds = percentile_bounds(replicates, level, sizes)
    low = bounds.low - bias - np.maximum(bias, 0)
    high = bounds.high - bias - np.minimum(bias, 0)
    return Bounds(np.clip(np.minimum(low, point), 0, largest), np.clip(np.maximum(high, point), 0, largest))


def _columns(samples: SampleSums) -> Array:
    return np.column_stack([samples.weights, samples.largest, samples.entropy, samples.tokens])


def _means(sums: list[Array]) -> DatasetMeans:
    """Of sums ``(..., 2 * experts + 2)`` per dataset, the number of tokens last."""
    stacked = np.stack(sums, axis=-2)
    means = stacked[..., :-1] / stacked[..., -1:]
    experts = (means.shape[-1] - 1) // 2
    return DatasetMeans(means[..., :experts], means[..., experts:-1], means[..., -1])
