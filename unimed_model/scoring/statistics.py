"""Statistics of samples that add up to those of a dataset, or of any draw of its samples."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Metric = tuple[str, str]
"""Name and flavour."""
Statistics = dict[Metric, NDArray[np.float64]]
"""Metric -> (samples, k) statistics that add up over samples."""
Reasons = dict[Metric, str]
"""Metric that cannot be computed -> why, in one clause."""


def counted(scores: Sequence[float] | NDArray[np.float64] | NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the (samples, 2) statistics of a mean: the score, and that the sample counts."""
    values = np.asarray(scores, dtype=np.float64)
    return np.stack([values, np.ones_like(values)], axis=1)


def spread(values: NDArray[np.float64], kept: Sequence[int], samples: int) -> NDArray[np.float64]:
    """Return (samples, k) statistics from those of some samples; the others add nothing."""
    found = np.zeros((samples, values.shape[1]))
    found[kept] = values
    return found
