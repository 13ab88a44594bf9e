"""Corpus BLEU as pycocoevalcap computes it, from statistics that add up over samples."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

ORDERS = 4
COLUMNS = 2 * ORDERS + 2
"""Matched and proposed n-grams of orders 1 to 4, then the lengths of candidate and reference in words."""

# pycocoevalcap adds these so that nothing is divided by zero
_SMALL, _TINY = 1e-9, 1e-15


def statistics(candidate: Sequence[str], reference: Sequence[str]) -> list[float]:
    """Return the `COLUMNS` statistics of one pair of word lists."""
    matched, proposed = [], []
    for n in range(1, ORDERS + 1):
        ours, theirs = (
            Counter(tuple(found[i : i + n]) for i in range(len(found) - n + 1)) for found in (candidate, reference)
        )
        matched.append(float((ours & theirs).total()))
        proposed.append(float(ours.total()))
    return [*matched, *proposed, float(len(candidate)), float(len(reference))]


def corpus_bleu(sums: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Return BLEU-n: the geometric mean of the precisions of orders 1 to n, times the brevity penalty.

    Args:
        sums: (..., COLUMNS) statistics summed over the samples of a corpus.
        n: highest order of n-grams.
    """
    matched, proposed = sums[..., :n], sums[..., ORDERS : ORDERS + n]
    precision = np.prod((matched + _TINY) / (proposed + _SMALL), axis=-1) ** (1 / n)
    ratio = (sums[..., -2] + _TINY) / (sums[..., -1] + _SMALL)
    return precision * np.where(ratio < 1, np.exp(np.minimum(1 - 1 / ratio, 0.0)), 1.0)
