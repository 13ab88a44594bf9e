"""Euclidean distances between all points, a bounded number of rows at a time."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_CELLS = 4_000_000
"""Cells of a block of rows, 32 MB in float64."""


def centred(points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Points (samples, width) less their mean, in float64: distances stay, and rounding is that of their spread."""
    exact = points.astype(np.float64)
    exact -= exact.mean(axis=0)
    return exact


def row_blocks(samples: int) -> Iterator[slice]:
    """Slices that cover ``samples`` rows, each of so few that a block of (rows, samples) stays small."""
    step = max(1, _CELLS // max(1, samples))
    for start in range(0, samples, step):
        yield slice(start, min(start + step, samples))


def distance_blocks(points: NDArray[np.float64]) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Euclidean distances of some points to all, block by block.

    Args:
        points: (samples, width), as ``centred`` returns them.

    Yields:
        Rows, and the distances (rows, samples) of these points to every point; exactly 0 to itself.
    """
    squares = np.einsum("ij,ij->i", points, points)
    for rows in row_blocks(len(points)):
        block = points[rows] @ points.T
        block *= -2
        block += squares[rows, None]
        block += squares
        # rounding may leave a tiny negative square
        np.maximum(block, 0, out=block)
        block[np.arange(len(block)), np.arange(rows.start, rows.stop)] = 0
        yield rows, np.sqrt(block, out=block)


def nearest(distances: NDArray[np.float64], rows: slice, neighbours: int) -> NDArray[np.intp]:
    """The nearest other points of a block's points, nearest first; of equally near ones the first.

    Args:
        distances: (rows, samples), a block of ``distance_blocks``.
        rows: which points they are of.
        neighbours: how many, at most ``samples - 1``.

    Returns:
        (rows, neighbours) indices of points.
    """
    others = distances.copy()
    others[np.arange(len(others)), np.arange(rows.start, rows.stop)] = np.inf
    wanted = np.sort(np.argpartition(others, neighbours - 1, axis=1)[:, :neighbours], axis=1)
    order = np.argsort(np.take_along_axis(others, wanted, axis=1), axis=1, kind="stable")
    return np.take_along_axis(wanted, order, axis=1)
