"""Draws of a score: bootstrap over clusters of samples, and over training seeds where there are several runs.

A cluster is an image with all its samples, or a sample without an image. One run: clusters are drawn with replacement
(multinomial counts), and a score is computed from the summed statistics of what was drawn, corpus scores too. Several
runs of one arm: the mean over runs, the same clusters drawn for all of them, plus a deviation for the seeds that is
multivariate t: with run scores m_1 ... m_S of mean m and standard normal z,

    1/sqrt(S) sum_s z_s (m_s - m) / sqrt(S - 1) * sqrt((S - 1) / chi2_{S - 1}),

whose scale is the standard error of m over seeds. z and chi2 are the same for all datasets of an arm, so that a run
that was lucky on two datasets at once is drawn as such.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from unimed_model.errors import UserError

from .aggregates import aggregate_of
from .answers import by_itself
from .statistics import Metric
from .tally import Tally

REPLICATES = 2000
_CHUNK = 4_000_000
"""Cluster counts held at once, which bounds memory."""

Array = NDArray[np.float64]


def aligned(runs: Sequence[Tally]) -> list[Tally]:
    """Return tallies of one dataset with their samples in the order of the first, and with the same images.

    A run that does not tell of a sample's image takes it from one that does: other people's predictions may lack it.

    Raises:
        UserError: they are not of one dataset, or differ in their samples or in which of these belong together.
    """
    if not runs:
        raise UserError("there is no run to score.")
    ordered = [_reordered(run, runs[0]) for run in runs]
    clusters = _shared_clusters(ordered)
    return [run if run.clusters == clusters else replace(run, clusters=clusters) for run in ordered]


def paired(a: Sequence[Tally], b: Sequence[Tally]) -> tuple[list[Tally], list[Tally]]:
    """Return the aligned runs of two arms on one dataset; raises as `aligned` does."""
    if not a or not b:
        raise UserError("there is no run to score.")
    both = aligned([*a, *b])
    return both[: len(a)], both[len(a) :]


def _reordered(run: Tally, like: Tally) -> Tally:
    if (run.dataset, run.task) != (like.dataset, like.task):
        raise UserError(f"{run.dataset} ({run.task}) cannot be compared with {like.dataset} ({like.task}).")
    if run.ids == like.ids:
        return run
    place = {name: index for index, name in enumerate(run.ids)}
    alone = sorted(place.keys() ^ set(like.ids))
    if alone:
        shown = ", ".join(map(repr, alone[:3])) + (f" and {len(alone) - 3} more" if len(alone) > 3 else "")
        raise UserError(f"{run.dataset}: only one of two compared runs has the samples {shown}.")
    order = [place[name] for name in like.ids]
    clusters = tuple(run.clusters[index] for index in order)
    found = {metric: values[order] for metric, values in run.statistics.items()}
    return replace(run, ids=like.ids, clusters=clusters, statistics=found)


def _shared_clusters(runs: Sequence[Tally]) -> tuple[str, ...]:
    """The clusters of runs whose samples are in one order: of each sample its image, if any run tells it."""
    first = runs[0].clusters
    if all(run.clusters == first for run in runs):
        return first
    return tuple(
        _shared_cluster(runs[0].dataset, name, named)
        for name, *named in zip(runs[0].ids, *(run.clusters for run in runs), strict=True)
    )


def _shared_cluster(dataset: str, sample: str, named: Sequence[str]) -> str:
    images = [image for image in dict.fromkeys(named) if image != by_itself(sample)]
    if len(images) > 1:
        raise UserError(
            f"{dataset}: sample {sample!r} belongs to image {images[0]!r} in one run, {images[1]!r} in another."
        )
    return images[0] if images else by_itself(sample)


def cluster_sums(tally: Tally, values: Array) -> Array:
    """Return (clusters, k) statistics summed over the samples of each cluster, clusters in the order of their names."""
    _, index = np.unique(np.asarray(tally.clusters), return_inverse=True)
    sums = np.zeros((index.max() + 1, values.shape[1]))
    np.add.at(sums, index, values)
    return sums


def bootstrap_counts(clusters: int, dataset: str, seed: int, replicates: int = REPLICATES) -> Iterator[Array]:
    """Yield (rows, clusters) arrays of how often each cluster is drawn, `replicates` rows in all.

    The counts depend on nothing but the arguments: whatever shares a dataset's samples is drawn alike.
    """
    random = generator(seed, dataset)
    for rows in chunk_sizes(clusters, replicates):
        drawn = random.integers(0, clusters, (rows, clusters), dtype=np.int32)
        drawn += np.arange(rows, dtype=np.int32)[:, None] * np.int32(clusters)
        yield np.bincount(drawn.ravel(), minlength=rows * clusters).reshape(rows, clusters).astype(np.float64)


def chunk_sizes(clusters: int, replicates: int = REPLICATES) -> Iterator[int]:
    """Yield how many replicates to hold at once, until there are `replicates`."""
    rows = max(1, _CHUNK // clusters)
    for start in range(0, replicates, rows):
        yield min(rows, replicates - start)


def generator(seed: int, name: str) -> np.random.Generator:
    """Return a random generator for a purpose, independent of those for others under the same seed."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def run_draws(runs: Sequence[Tally], metrics: Sequence[Metric], seed: int) -> dict[Metric, Array]:
    """Return metric -> (runs, replicates) scores of resampled clusters, the same clusters for all runs and metrics.

    Args:
        runs: aligned tallies of one dataset.
        metrics: (name, flavour) of what to score.
        seed: of the bootstrap.
    """
    tables = [cluster_sums(run, run.of(*metric)) for metric in metrics for run in runs]
    ends = np.cumsum([table.shape[1] for table in tables])
    stacked = np.concatenate(tables, axis=1)
    chunks = bootstrap_counts(len(stacked), runs[0].dataset, seed)
    columns = np.split(np.concatenate([counts @ stacked for counts in chunks]), ends[:-1], axis=1)
    found = {}
    for place, (name, flavour) in enumerate(metrics):
        score = aggregate_of(runs[0].task, name, flavour)
        ours = columns[place * len(runs) : (place + 1) * len(runs)]
        found[name, flavour] = np.stack([score(sums) for sums in ours])
    return found


def seed_deviations(values: Sequence[float], arm: str, seed: int) -> Array:
    """Return (replicates,) deviations of the mean over runs that the choice of training seeds explains.

    Args:
        values: score of each run; a single one has no deviation.
        arm: name of the arm: the same deviations of runs for all its datasets, others for another arm.
        seed: of the draws.
    """
    runs = len(values)
    if runs == 1:
        return np.zeros(REPLICATES)
    random = generator(seed, f"runs of {arm}")
    normal = random.standard_normal((REPLICATES, runs))
    chi_square = random.chisquare(runs - 1, REPLICATES)
    deviations = np.asarray(values) - np.mean(values)
    return normal @ deviations / np.sqrt(runs * chi_square)


def mean_draws(runs: Sequence[Tally], metrics: Sequence[Metric], seed: int, arm: str = "") -> dict[Metric, Array]:
    """Return metric -> (replicates,) draws of the mean over aligned runs, clusters and seeds both drawn."""
    found = {}
    for metric, scores in run_draws(runs, metrics, seed).items():
        values = [run.value(*metric) for run in runs]
        found[metric] = scores.mean(axis=0) + seed_deviations(values, arm, seed)
    return found
