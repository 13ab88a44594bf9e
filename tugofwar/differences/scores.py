"""How the distribution of statistics scores (eq. 5) differs between two runs."""

import numpy as np
import pandas as pd

from tugofwar.statistics import Statistics


def comparable_scores(a: Statistics, b: Statistics) -> bool:
    """Whether both count scores between the same datasets and tasks: a score over others is another quantity."""
    return {level: set(names) for level, names in a.groups.items()} == {
        level: set(names) for level, names in b.groups.items()
    }


def resampled_alike(a: Statistics, b: Statistics) -> bool:
    """Whether replicate ``r`` of both was drawn with the same counts, which follow from seed and order of datasets."""
    if a.seed != b.seed or a.groups["dataset"] != b.groups["dataset"]:
        return False
    shapes = [None if shares is None else shares.shape for shares in (s.replicate_shares("dataset") for s in (a, b))]
    return shapes[0] == shapes[1]


def score_difference(
    a: Statistics, b: Statistics, level: str, paired: bool, confidence: float = 0.95, seed: int = 0
) -> pd.DataFrame | None:
    """Ten rows: the share of parameters in each interval of the score in both runs, and its difference.

    An interval is the difference plus the spread of its replicates about their own mean, as in
    ``Statistics.table``.

    Args:
        a: scores of the first run.
        b: scores of the second, between the same datasets and tasks (``comparable_scores``).
        level: ``"dataset"`` or ``"task"``.
        paired: whether both were resampled alike (``resampled_alike``) from the same batches. Otherwise replicates
            are set against each other in random order.
        confidence: probability that an interval should cover the expected difference.
        seed: seed of that order.

    Returns:
        Columns ``interval_low``, ``interval_high`` (of the score), ``a``, ``b``, ``difference`` (b - a), ``low``,
        ``high``; None where there are no replicates.

    Raises:
        UserError: an unknown level, or a run in which no parameter has a score.
    """
    tables = [each.table(level, confidence=confidence) for each in (a, b)]
    shares = [table["share"].to_numpy() for table in tables]
    replicates = [each.replicate_shares(level) for each in (a, b)]
    one, other = replicates
    if one is None or other is None:
        return None
    if not paired:
        fewest = min(len(one), len(other))
        one, other = one[:fewest], np.random.default_rng(seed).permutation(other)[:fewest]
    change = shares[1] - shares[0]
    draws = other - one
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail], axis=0) - draws.mean(axis=0)
    return pd.DataFrame(
        {
            "interval_low": tables[0]["interval_low"],
            "interval_high": tables[0]["interval_high"],
            "a": shares[0],
            "b": shares[1],
            "difference": change,
            # A few skewed replicates can leave both quantiles on one side of the mean; the point belongs inside.
            "low": np.clip(change + np.minimum(low, 0), -1, 1),
            "high": np.clip(change + np.maximum(high, 0), -1, 1),
        }
    )
