"""From the replicates of two runs to the uncertainty of their differences, as arrays."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tugofwar.differences.bounded import Uncertainty, normalised_change, similarity_change, unbounded_normalised
from tugofwar.metrics import (
    Array,
    Groups,
    gradient_direction,
    gradient_magnitude_similarity,
    tug_of_war_index,
)
from tugofwar.resampling import (
    Replicates,
    draw_counts,
    log_magnitudes,
    log_ratios,
    noise_of_ratios,
    ratios_by_group,
    replicates,
)
from tugofwar.simultaneous import adjusted_p_values, narrowed, percentile_bounds, simultaneous_bounds
from tugofwar.strata import Group
from tugofwar.uncertainty import sign_uncertain


@dataclass(frozen=True)
class Batches:
    """Where the batches of both runs are: ``rows`` of each group, ``datasets`` of each row, and the groups' strata."""

    rows: Groups
    datasets: Sequence[str]
    members: Sequence[Group]

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Number of batches of the smallest dataset of each group, ``(T,)``."""
        return np.array([group.fewest for group in self.members])


@dataclass(frozen=True)
class RunMeasures:
    """GD, GM and ``log(m_i / m_j)``, ``(T, T)``, indexes ``(T,)`` of one run, and their replicates.

    ``uncertain``: groups whose GD denominator may have either sign, ``(T,)``.
    """

    gd: Array
    gm: Array
    index: Array
    log_ratio: Array
    draws: Replicates
    uncertain: NDArray[np.bool_]


@dataclass(frozen=True)
class PairNoise:
    """What pairs of batches alone give to the runs' GD: variances and covariance, ``(T, T)``.

    Off the diagonal of GD's numerators, on it of its denominators; see ``resampling.noise_of_ratios``.
    """

    a: Array
    b: Array
    both: Array

    def direction(self, a: Array, b: Array) -> Array:
        """Of a difference of GD, which is ``a`` and ``b`` in the runs, ``(T, T)``."""
        noise = self._numerators(np.ones_like(a), np.ones_like(b)) + self._denominators(a, b)
        np.fill_diagonal(noise, 0.0)
        return noise

    def index(self, a: RunMeasures, b: RunMeasures) -> Array:
        """Of a difference of indexes, ``(T,)``: each less its own 1 is a sum of ratios over one denominator."""
        denominators = self._denominators(a.index[:, np.newaxis] - 1, b.index[:, np.newaxis] - 1)
        return self._numerators(a.gm, b.gm).sum(axis=1) + denominators[:, 0]

    def _numerators(self, weight_a: Array, weight_b: Array) -> Array:
        noise = weight_a**2 * self.a - 2 * weight_a * weight_b * self.both + weight_b**2 * self.b
        return np.where(np.eye(len(noise), dtype=bool), 0.0, noise)

    def _denominators(self, weight_a: Array, weight_b: Array) -> Array:
        a, b, both = (np.diagonal(part)[:, np.newaxis] for part in (self.a, self.b, self.both))
        return weight_a**2 * a - 2 * weight_a * weight_b * both + weight_b**2 * b


def draw_for_both(
    grams: Sequence[Array], members: Sequence[Group], resamples: int, seed: int, paired: bool
) -> list[list[Array]]:
    """How often each batch of each run is drawn: the same for both when they are paired.

    Args:
        grams: inner products of both runs, ``(batches, batches)`` each.
        members: the groups.
        resamples: number of draws.
        seed: seed of the draws.
        paired: whether batch ``k`` is the same in both.
    """
    masks = [np.diagonal(gram) > 0 for gram in grams]
    if paired:
        # A draw that either run cannot use is drawn again for both.
        return [list(draw_counts(members, np.stack(masks), resamples, seed))] * 2
    return [list(draw_counts(members, mask, resamples, seed, stream)) for stream, mask in enumerate(masks)]


def measure_run(gram: Array, batches: Batches, estimator: str, counts: Sequence[Array], level: float) -> RunMeasures:
    """Measures of one run, with replicates of these counts.

    Raises:
        UserError: a measure that does not exist.
    """
    draws = replicates(gram, batches.members, estimator, counts)
    gd = gradient_direction(gram, batches.rows, estimator, batches.datasets)
    gm = gradient_magnitude_similarity(gram, batches.rows, batches.datasets)
    return RunMeasures(
        gd=gd,
        gm=gm,
        index=tug_of_war_index(gd, gm),
        log_ratio=log_ratios(log_magnitudes(gram, batches.members)[np.newaxis])[0],
        draws=draws,
        uncertain=sign_uncertain(gram, batches.members, draws.own, level, batches.sizes),
    )


def pair_noise(grams: Sequence[Array], members: Sequence[Group], estimator: str, paired: bool) -> PairNoise:
    """Pair noise of both runs' GD, and what they share of it when their batches are the same."""
    a, b = (noise_of_ratios(ratios_by_group(gram, members, estimator), members) for gram in grams)
    if not paired:
        return PairNoise(a, b, np.zeros_like(a))
    # A quadratic form of the ratios, so that the covariance follows from the variance of their difference.
    apart = noise_of_ratios(_apart(grams, members, estimator), members)
    return PairNoise(a, b, (a + b - apart) / 2)


def _apart(grams: Sequence[Array], members: Sequence[Group], estimator: str) -> Iterator[Array]:
    each = [ratios_by_group(gram, members, estimator) for gram in grams]
    return (other - one for one, other in zip(*each, strict=True))


@dataclass(frozen=True)
class Comparison:
    """Two runs measured alike: the uncertainty of each difference, ``b - a``."""

    a: RunMeasures
    b: RunMeasures
    noise: PairNoise
    sizes: NDArray[np.int64]
    level: float

    @property
    def uncertain(self) -> NDArray[np.bool_]:
        """Groups whose GD denominator may have either sign in either run, ``(T,)``."""
        return self.a.uncertain | self.b.uncertain

    def direction(self) -> Uncertainty:
        """Of GD (eq. 2)."""
        point = self.b.gd - self.a.gd
        draws = narrowed(self.b.draws.gd - self.a.draws.gd, point, self.noise.direction(self.a.gd, self.b.gd))
        return self._uncertainty(draws, point, np.minimum.outer(self.sizes, self.sizes), self.uncertain[:, np.newaxis])

    def magnitude(self) -> Uncertainty:
        """Of GM (eq. 3)."""
        draws = log_ratios(self.a.draws.log_magnitude), log_ratios(self.b.draws.log_magnitude)
        points = self.a.log_ratio, self.b.log_ratio
        return similarity_change(draws, points, self.level, np.minimum.outer(self.sizes, self.sizes))

    def index(self) -> Uncertainty:
        """Of the tug-of-war index (eq. 4)."""
        point = self.b.index - self.a.index
        draws = self.b.draws.index() - self.a.draws.index()
        draws = narrowed(draws, point, self.noise.index(self.a, self.b))
        return self._uncertainty(draws, point, self.sizes.min(), self.uncertain)

    def normalised(self) -> Uncertainty | None:
        """Of the index divided by its maximum; None where a maximum is not reliably positive."""
        nothing = PairNoise(*(np.zeros_like(self.noise.a) for _ in range(3)))
        alone = PairNoise(self.noise.a, nothing.b, nothing.both), PairNoise(nothing.a, self.noise.b, nothing.both)
        points, draws = [], []
        for run, noise in zip((self.a, self.b), alone, strict=True):
            point = unbounded_normalised(run.index)
            replicates = unbounded_normalised(narrowed(run.draws.index(), run.index, noise.index(self.a, self.b)))
            if np.isnan(point).any() or np.isnan(replicates).any(axis=1).mean() > (1 - self.level) / 2:
                return None
            points.append(point)
            draws.append(replicates)
        found = normalised_change((draws[0], draws[1]), (points[0], points[1]), self.level, self.sizes.min())
        # An index that may have any value may also be the largest, which divides all.
        untested = np.ones_like(found.p_values)
        return Uncertainty(found.interval, found.simultaneous, untested if self.uncertain.any() else found.p_values)

    def _uncertainty(self, draws: Array, point: Array, batches: ArrayLike, untested: ArrayLike) -> Uncertainty:
        """Cells that are not tested are no part of the family either: their heavy tails would hide the others."""
        sizes = np.broadcast_to(batches, point.shape)
        tested = np.broadcast_to(~np.asarray(untested), point.shape)
        together = simultaneous_bounds(draws, point, self.level, sizes)
        p_values = np.ones(point.shape)
        if tested.any():
            family = draws[:, tested], point[tested]
            among = simultaneous_bounds(*family, self.level, sizes[tested])
            together.low[tested], together.high[tested] = among.low, among.high
            p_values[tested] = adjusted_p_values(*family, 0.0, sizes[tested])
        return Uncertainty(percentile_bounds(draws, self.level, sizes), together, p_values)
