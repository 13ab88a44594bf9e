"""Pairs of recordings whose true GD, GM and index are known."""

import numpy as np

from tugofwar.recording import Block, Recording, upper_triangle

DIMENSION = 300
TRUTH = 0.3


def recording_of(gradients, datasets, **options):
    triangle = upper_triangle(gradients @ gradients.T)
    block = Block("shared", {"shared.weight": gradients.shape[1]})
    return Recording((block,), {"shared": triangle}, list(datasets), np.ones(len(gradients)), **options)


def mean_directions(count, direction=TRUTH):
    """Unit means; all but the first lie at ``direction`` to the first."""
    means = np.zeros((count, DIMENSION))
    means[0, 0] = 1
    for k in range(1, count):
        means[k, [0, k]] = direction, np.sqrt(1 - direction**2)
    return means


def measures_of(means, sizes):
    """True GD, GM, index and normalised index."""
    gd = means @ means.T
    gm = 2 * np.outer(sizes, sizes) / np.add.outer(sizes**2, sizes**2)
    index = (gd * gm).sum(axis=1)
    return {"gd": gd, "gm": gm, "index": index, "index_normalised": index / index.max()}


def draw_pair(rng, means, sizes, batches, cosine, shared, spread=0.4):
    """Two recordings of ``batches`` per dataset.

    ``means`` and ``sizes`` are those of both runs; ``cosine`` is that of two batches of one dataset; ``shared`` is the
    correlation of the runs' noise, of direction and of length (whose logarithm has the standard deviation ``spread``).
    """
    rows = len(means[0]) * batches
    noise = np.sqrt((1 / cosine - 1) / DIMENSION)
    first, length = rng.normal(size=(rows, DIMENSION)), rng.normal(size=(rows, 1))
    pair = []
    for number, (mean, size) in enumerate(zip(means, sizes, strict=True)):
        if number:
            own = np.sqrt(1 - shared**2)
            first = shared * first + own * rng.normal(size=first.shape)
            length = shared * length + own * rng.normal(size=length.shape)
        gradients = (np.repeat(mean, batches, axis=0) + noise * first) * np.exp(spread * length)
        gradients *= np.repeat(size, batches)[:, np.newaxis]
        pair.append(recording_of(gradients, np.repeat([f"d{k}" for k in range(len(mean))], batches)))
    return pair
