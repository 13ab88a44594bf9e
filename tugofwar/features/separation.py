"""How far apart labels lie in a space of features: silhouette and purity of nearest neighbours, with intervals.

* ``silhouette``: ``s(i) = (b - a) / max(a, b)``, ``a`` the mean Euclidean distance of point ``i`` to the others of its
  label, ``b`` that to the points of the nearest other label; 0 for a label's only point (P. Rousseeuw 1987).
* ``knn_purity``: the share of a point's ``k`` nearest other points that have its label.

A label's value is the mean over its points, and that of ``all`` the mean over all points. Distances are those of the
features as they are, without standardising: what t-SNE starts from.

The intervals are a jackknife's over samples within datasets (``tugofwar.jackknife``), in which a sample that is left
out is missing as a point and as everybody's neighbour. They say what other samples of the same datasets would give
with the same model and as many samples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tugofwar.features.distances import centred, distance_blocks, nearest
from tugofwar.features.jackknife import Estimate, jackknife_interval

ALL = "all"
SILHOUETTE, KNN_PURITY = "silhouette", "knn_purity"
BOUNDS = {SILHOUETTE: (-1.0, 1.0), KNN_PURITY: (0.0, 1.0)}
_SHUFFLES = 10

Floats = NDArray[np.float64]
Codes = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Separation:
    """One measure of one label's points, or of all.

    Attributes:
        label: the kind of label, such as ``task``.
        name: the label, or ``all``.
        measure: ``silhouette`` or ``knn_purity``.
        estimate: value and interval.
        chance: what it would be if labels had nothing to do with features: exact for purity, the mean over some
            shuffles of the labels for the silhouette.
    """

    label: str
    name: str
    measure: str
    estimate: Estimate
    chance: float


def separation(
    features: NDArray[np.floating],
    labels: Mapping[str, Sequence[str]],
    datasets: Sequence[str],
    neighbours: int,
    level: float = 0.95,
    seed: int = 0,
) -> list[Separation]:
    """Silhouette and purity of nearest neighbours of every kind of label.

    Distances are taken a block of rows at a time, once for everything: 10,000 points need some hundred megabytes.

    Args:
        features: (samples, width), finite.
        labels: kind of label -> the label of every sample; a kind with a single label has no results.
        datasets: dataset of every sample: what is resampled within.
        neighbours: ``k``, at most ``samples - 2``.
        level: probability of the intervals.
        seed: of the shuffles behind the silhouette's chance level.

    Returns:
        Per kind and measure ``all`` and every label in order of appearance; a label with one sample has no
        value of its own.
    """
    points = centred(features)
    kinds = {kind: _Label.of(names) for kind, names in labels.items() if len(set(names)) > 1}
    rng = np.random.default_rng(seed)
    silhouettes = {kind: _Silhouettes(label, rng) for kind, label in kinds.items()}
    near = np.empty((len(points), neighbours + 1), np.intp)
    for rows, distances in distance_blocks(points) if kinds else ():
        near[rows] = nearest(distances, rows, neighbours + 1)
        for silhouette in silhouettes.values():
            silhouette.add(rows, distances)
    strata = _Label.of(datasets).codes
    found: list[Separation] = []
    for kind, label in kinds.items():
        for measure, scores in ((SILHOUETTE, silhouettes[kind].scores()), (KNN_PURITY, _purity(near, label))):
            found += _results(kind, label, measure, scores, strata, level)
    return found


@dataclass(frozen=True, eq=False)
class _Label:
    """Names of a label in order of appearance, their number per sample, and who has which, (samples, names)."""

    names: tuple[str, ...]
    codes: Codes

    @classmethod
    def of(cls, names: Sequence[str]) -> "_Label":
        order = {name: number for number, name in enumerate(dict.fromkeys(names))}
        return cls(tuple(order), np.array([order[name] for name in names], np.intp))

    @property
    def counts(self) -> Floats:
        return np.bincount(self.codes).astype(np.float64)

    @property
    def members(self) -> Floats:
        return np.eye(len(self.names))[self.codes]


@dataclass(frozen=True, eq=False)
class _Scores:
    """A measure's value per point, and what the labels' sums become when a sample is left out.

    Attributes:
        values: (samples,).
        sums: (names, samples): over a name's points but the one left out.
        chance: (names,) chance level of each name's mean.
        overall_chance: that of the mean over all points.
    """

    values: Floats
    sums: Floats
    chance: Floats
    overall_chance: float


def _results(kind: str, label: _Label, measure: str, scores: _Scores, strata: Codes, level: float) -> list[Separation]:
    samples = len(label.codes)
    rows = [(ALL, float(scores.values.mean()), scores.sums.sum(axis=0) / (samples - 1), scores.overall_chance)]
    for code, name in enumerate(label.names):
        own = label.codes == code
        if own.sum() > 1:
            rows.append(
                (name, float(scores.values[own].mean()), scores.sums[code] / (own.sum() - own), scores.chance[code])
            )
    return [
        Separation(
            kind, name, measure, jackknife_interval(value, left_out, strata, level, BOUNDS[measure]), float(chance)
        )
        for name, value, left_out, chance in rows
    ]


def _purity(near: Codes, label: _Label) -> _Scores:
    """Purity from every point's ``k + 1`` nearest neighbours: the last one takes the place of one that is left out."""
    samples, neighbours = len(near), near.shape[1] - 1
    same = (label.codes[near] == label.codes[:, None]).astype(np.float64)
    values = same[:, :neighbours].mean(axis=1)
    sums = np.repeat((label.members.T @ values)[:, None], samples, axis=1)
    sums[label.codes, np.arange(samples)] -= values
    changes = (same[:, neighbours:] - same[:, :neighbours]) / neighbours
    np.add.at(sums, (label.codes[:, None], near[:, :neighbours]), changes)
    chance = (label.counts - 1) / (samples - 1)
    return _Scores(values, sums, chance, float(chance @ label.counts / samples))


class _Silhouettes:
    """Silhouettes, block by block of distances."""

    def __init__(self, label: _Label, rng: np.random.Generator) -> None:
        samples = len(label.codes)
        self.label, self.counts, self.members = label, label.counts, label.members
        self.values = np.zeros(samples)
        self.sums = np.zeros((len(label.names), samples))
        self.shuffled = [rng.permutation(label.codes) for _ in range(_SHUFFLES)]
        self.shuffled_members = np.concatenate([np.eye(len(label.names))[codes] for codes in self.shuffled], axis=1)
        self.shuffled_sums = np.zeros(len(label.names))

    def add(self, rows: slice, distances: Floats) -> None:
        """Take in the distances (rows, samples) of some points to all."""
        sums = distances @ self.members
        self.values[rows] = _silhouette(sums, self.counts, self.label.codes[rows])
        self.sums += self.members[rows].T @ self._left_out(rows, distances, sums)
        width = len(self.counts)
        shuffled = distances @ self.shuffled_members
        for number, codes in enumerate(self.shuffled):
            own = codes[rows]
            values = _silhouette(shuffled[:, number * width : (number + 1) * width], self.counts, own)
            self.shuffled_sums += np.bincount(own, values, minlength=width)

    def scores(self) -> _Scores:
        """What was taken in."""
        chance = self.shuffled_sums / (_SHUFFLES * self.counts)
        overall = float(self.shuffled_sums.sum() / (_SHUFFLES * len(self.values)))
        return _Scores(self.values, self.sums, chance, overall)

    def _left_out(self, rows: slice, distances: Floats, sums: Floats) -> Floats:
        """Silhouettes (rows, samples) of a block's points without each of the samples; 0 without the point itself."""
        codes, counts, own = self.label.codes, self.counts, self.label.codes[rows]
        to_own, others = _own_and_others(sums, counts, own)
        order = np.argsort(others, axis=1)
        here = np.arange(len(own))
        best = others[here, order[:, 0]]
        # the nearest of the other labels, should that of the column drop out
        elsewhere = np.repeat(best[:, None], len(counts), axis=1)
        elsewhere[here, order[:, 0]] = others[here, order[:, 1]]
        with np.errstate(divide="ignore", invalid="ignore"):
            between = (sums[:, codes] - distances) / (counts[codes] - 1)
            between[:, counts[codes] == 1] = np.inf
            np.minimum(between, elsewhere[:, codes], out=between)
            within = np.repeat(to_own[:, None], len(codes), axis=1)
            mine = own[:, None] == codes
            np.copyto(within, (sums[here, own, None] - distances) / (counts[own, None] - 2), where=mine)
            np.copyto(between, best[:, None], where=mine)
            values = _of_distances(within, between)
        values[counts[own] == 1] = 0
        values[mine & (counts[own, None] == 2)] = 0
        values[here, np.arange(rows.start, rows.stop)] = 0
        return values


def _silhouette(sums: Floats, counts: Floats, own: Codes) -> Floats:
    """Silhouettes of points from their summed distances (rows, names) to the points of every name."""
    within, others = _own_and_others(sums, counts, own)
    values = _of_distances(within, others.min(axis=1))
    values[counts[own] == 1] = 0
    return values


def _own_and_others(sums: Floats, counts: Floats, own: Codes) -> tuple[Floats, Floats]:
    """Mean distances to the others of the own name, (rows,), and to every name, (rows, names), infinite to the own."""
    here = np.arange(len(own))
    within = sums[here, own] / np.maximum(counts[own] - 1, 1)
    others = sums / counts
    others[here, own] = np.inf
    return within, others


def _of_distances(within: Floats, between: Floats) -> Floats:
    """``(b - a) / max(a, b)``; 0 where both are 0, and where there is nothing to be between."""
    larger = np.maximum(within, between)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = (between - within) / larger
    return np.where((larger > 0) & np.isfinite(larger), values, 0.0)
