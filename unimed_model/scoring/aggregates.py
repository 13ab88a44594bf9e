"""From summed statistics to a score: what makes a score of any set of samples, a bootstrap's draws included."""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from .bleu import corpus_bleu
from .meteor import corpus_meteor

Aggregate = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""(..., k) summed statistics -> (...) scores in [0, 1]; NaN where no sample counts."""


def mean(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean score of the samples that count: statistics are the score, and 1 if the sample counts."""
    with np.errstate(invalid="ignore"):
        return np.asarray(sums[..., 0] / sums[..., 1])


_CORPUS: dict[str, Aggregate] = {
    "bleu_1": partial(corpus_bleu, n=1),
    "bleu_4": partial(corpus_bleu, n=4),
    "meteor": corpus_meteor,
}


def aggregate_of(task: str, metric: str, flavour: str) -> Aggregate:
    """Return how a metric's summed statistics become a score; only the released scores of reports are a corpus's."""
    return _CORPUS.get(metric, mean) if (task, flavour) == ("RG", "released") else mean
