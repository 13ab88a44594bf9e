"""Paired permutation test of two runs on the same samples."""

import numpy as np

from .aggregates import aggregate_of
from .draws import REPLICATES, chunk_sizes, cluster_sums, generator
from .tally import Tally

_ROUNDING = 1e-12
"""Differences that are equal but for rounding count as equal."""


def permutation_p(a: Tally, b: Tally, metric: str, flavour: str, seed: int = 0) -> float:
    """Return the two-sided p-value of exchanging the answers of two runs, image by image; never 0.

    Under the hypothesis that the runs do not differ, each image's answers might as well be the other run's. The
    p-value is the share of such exchanges, the actual assignment included, with a difference at least as large.

    Args:
        a: tally of one run.
        b: tally of another, its samples in the same order.
        metric: its name.
        flavour: paper or released.
        seed: of the exchanges.
    """
    score = aggregate_of(a.task, metric, flavour)
    first, second = (cluster_sums(run, run.of(metric, flavour)) for run in (a, b))
    ours, theirs = first.sum(axis=0), second.sum(axis=0)
    observed = abs(float(score(ours) - score(theirs)))
    random, extreme = generator(seed, f"exchanges in {a.dataset}"), 0
    for rows in chunk_sizes(len(first)):
        exchanged = random.integers(0, 2, (rows, len(first)), dtype=np.int8).astype(np.float64)
        moved = exchanged @ (second - first)
        differences = np.abs(score(ours + moved) - score(theirs - moved))
        extreme += int(np.count_nonzero(differences >= observed - _ROUNDING))
    return (1 + extreme) / (1 + REPLICATES)
