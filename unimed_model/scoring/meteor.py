"""The corpus score of METEOR 1.5 from statistics that add up over samples."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

COLUMNS = 23
"""What the program states of a pair: lengths of candidate and reference, their function words, then for each of four
kinds of match the candidate's and the reference's content words and function words, then chunks and matched words."""

_LENGTHS, _FUNCTION_WORDS, _MATCHES, _CHUNKS, _MATCHED = slice(0, 2), slice(2, 4), slice(4, 20), 20, slice(21, 23)

# METEOR 1.5's parameters for English
ALPHA, BETA, GAMMA, DELTA = 0.85, 0.20, 0.60, 0.75
MATCH_WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])
"""Of equal words, equal stems, synonyms and paraphrases."""


def additive(stated: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Return (pairs, COLUMNS) statistics that may be summed, of what the program stated of each pair.

    A candidate that is its reference in one piece adds no chunk to its corpus: the program counts so too.
    """
    values = np.array(stated, dtype=np.float64).reshape(-1, COLUMNS)
    whole = (values[:, _MATCHED] == values[:, _LENGTHS]).all(axis=1) & (values[:, _CHUNKS] == 1)
    values[whole, _CHUNKS] = 0
    return values


def corpus_meteor(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the score of a corpus: weighted harmonic mean of precision and recall, less a penalty for chunks.

    Args:
        sums: (..., COLUMNS) statistics, as `additive` returns them, summed over the samples of a corpus.
    """
    lengths, functions = sums[..., _LENGTHS], sums[..., _FUNCTION_WORDS]
    matches = sums[..., _MATCHES].reshape(*sums.shape[:-1], 4, 2, 2)  # kind, content or function word, side
    of_kind = DELTA * matches[..., 0, :] + (1 - DELTA) * matches[..., 1, :]
    matched = np.einsum("k,...ks->...s", MATCH_WEIGHTS, of_kind)
    total = DELTA * (lengths - functions) + (1 - DELTA) * functions
    with np.errstate(divide="ignore", invalid="ignore"):
        precision, recall = np.moveaxis(matched / total, -1, 0)
        mean = 1 / ((1 - ALPHA) / precision + ALPHA / recall)
        scattered = sums[..., _CHUNKS] / sums[..., _MATCHED].mean(axis=-1)
        score = mean * (1 - GAMMA * scattered**BETA)
    return np.where(np.isfinite(score), score, 0.0)
