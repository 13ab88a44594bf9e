"""Intervals from leaving out one sample at a time, within datasets.

A bootstrap draws samples twice: copies of a point are its own nearest neighbours and lie at distance 0, so that
every measure of nearness rises. Leaving samples out makes no copies.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from tugofwar.simultaneous import expanded


@dataclass(frozen=True, eq=False)
class Estimate:
    """A number and its interval.

    Attributes:
        value: the number.
        low: lower end.
        high: upper end.
    """

    value: float
    low: float
    high: float


def jackknife_interval(
    value: float,
    left_out: NDArray[np.float64],
    strata: NDArray[np.intp],
    level: float,
    bounds: tuple[float, float],
) -> Estimate:
    """The interval ``value -+ t s`` of a stratified delete-one jackknife, cut at the measure's bounds.

    ``s^2 = sum_h (n_h - 1) / n_h sum_{j in h} (v_(-j) - mean_h v_(-j))^2`` with ``v_(-j)`` the measure without sample
    ``j`` and ``h`` the strata (J. Shao and D. Tu 1995, section 5.3); Student's t has Welch and Satterthwaite's degrees
    of freedom. A stratum of one sample says nothing about its spread, and adds nothing.

    Args:
        value: the measure of all samples.
        left_out: (samples,) the measure without each of them.
        strata: (samples,) which stratum each is of, 0, 1, ...
        level: probability that the interval should cover the truth.
        bounds: smallest and largest value that the measure can have.
    """
    sizes = np.bincount(strata).astype(np.float64)
    means = np.bincount(strata, left_out) / np.maximum(sizes, 1)
    squares = np.bincount(strata, (left_out - means[strata]) ** 2)
    parts = squares * (sizes - 1) / np.maximum(sizes, 1)
    variance = float(parts.sum())
    if variance == 0:
        return Estimate(value, value, value)
    freedom = variance**2 / float((parts[sizes > 1] ** 2 / (sizes[sizes > 1] - 1)).sum())
    reach = _student(level, freedom) * float(np.sqrt(variance))
    return Estimate(value, max(bounds[0], value - reach), min(bounds[1], value + reach))


def _student(level: float, freedom: float) -> float:
    """Student's two-sided quantile, by the expansion that the intervals of gradients use."""
    normal = NormalDist().inv_cdf(0.5 + level / 2)
    return float(expanded(normal, freedom + 1) * np.sqrt(freedom / (freedom + 1)))
