"""Tallies with chosen scores."""

import numpy as np

from unimed_model.scoring import PRIMARY, Tally


def made(scores, clusters=None, dataset="D", task="VQA", ids=None, metric=None):
    """A tally whose primary metric is the mean of the scores."""
    values = np.asarray(scores, dtype=float)
    names = tuple(map(str, range(len(values)))) if ids is None else tuple(ids)
    groups = names if clusters is None else tuple(map(str, clusters))
    statistics = {(metric or PRIMARY[task], "paper"): np.stack([values, np.ones_like(values)], axis=1)}
    return Tally(dataset, task, names, groups, statistics)


def constant(score, samples=4, **others):
    return made(np.full(samples, score), **others)
