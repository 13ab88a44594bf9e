"""How far to trust a picture of features: trustworthiness, and whether another start shows the same neighbours."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tugofwar.features.distances import centred, distance_blocks


def picture_neighbours(picture: NDArray[np.floating], neighbours: int) -> NDArray[np.intp]:
    """Every point's nearest other points in a picture.

    Args:
        picture: (samples, dimensions).
        neighbours: ``k``.

    Returns:
        (samples, k) indices.
    """
    from sklearn.neighbors import NearestNeighbors

    found: NDArray[np.intp] = NearestNeighbors(n_neighbors=neighbours).fit(picture).kneighbors(return_distance=False)
    return found


def neighbour_overlap(one: NDArray[np.intp], other: NDArray[np.intp]) -> float:
    """Share of the ``k`` nearest neighbours that two pictures of the same points have in common.

    Args:
        one: (samples, k), as ``picture_neighbours`` returns them.
        other: the same of the other picture.
    """
    return float((one[:, :, None] == other[:, None, :]).any(axis=2).mean())


def trustworthiness(features: NDArray[np.floating], pictures: Sequence[NDArray[np.intp]]) -> list[float]:
    """Are neighbours in a picture neighbours in the features? 1: always (J. Venna and S. Kaski 2001).

    ``1 - 2 / (n k (2 n - 3 k - 1)) sum_i sum_{j in picture's k nearest of i} max(0, r(i, j) - k)``, ``r(i, j)`` the
    rank of ``j`` among the points by their distance from ``i`` in the features. As scikit-learn's, but a block of
    rows at a time, and of several pictures at once.

    Args:
        features: (samples, width).
        pictures: per picture (samples, k), as ``picture_neighbours`` returns them; ``k`` under half of the samples.

    Returns:
        One number per picture.
    """
    penalties = np.zeros(len(pictures))
    for rows, distances in distance_blocks(centred(features)):
        distances[np.arange(len(distances)), np.arange(rows.start, rows.stop)] = np.inf
        for number, near in enumerate(pictures):
            penalties[number] += _intrusion(distances, near[rows])
    samples, k = len(features), pictures[0].shape[1]
    return [1 - 2 * float(each) / (samples * k * (2 * samples - 3 * k - 1)) for each in penalties]


def chance_trustworthiness(samples: int, neighbours: int) -> float:
    """Expected trustworthiness of points that are thrown onto a picture at random."""
    n, k = samples, neighbours
    return 1 - (n - 1 - k) * (n - k) / ((n - 1) * (2 * n - 3 * k - 1))


def chance_overlap(samples: int, neighbours: int) -> float:
    """Expected overlap of two pictures that have nothing to do with each other."""
    return neighbours / (samples - 1)


def _intrusion(distances: NDArray[np.float64], near: NDArray[np.intp]) -> float:
    """Sum over a block's points and their neighbours in a picture of the ranks beyond ``k``."""
    neighbours = near.shape[1]
    total = 0.0
    for column in near.T:
        reach = np.take_along_axis(distances, column[:, None], axis=1)
        ranks = 1 + (distances < reach).sum(axis=1)
        total += float(np.maximum(0, ranks - neighbours).sum())
    return total
