"""Blocks of distances against all distances at once."""

import numpy as np
import pytest

from tugofwar.features import distances
from tugofwar.features.distances import centred, distance_blocks, nearest, row_blocks


@pytest.mark.parametrize("cells", [10, 100, 10_000])
def test_blocks_are_the_rows_of_all_distances(monkeypatch, cells):
    monkeypatch.setattr(distances, "_CELLS", cells)
    points = np.random.default_rng(0).normal(size=(23, 4)) + 1000
    points[7] = points[3]
    expected = np.linalg.norm(points[:, None] - points, axis=2)
    blocks = list(distance_blocks(centred(points)))
    assert np.concatenate([np.arange(23)[rows] for rows, _ in blocks]).tolist() == list(range(23))
    np.testing.assert_allclose(np.concatenate([block for _, block in blocks]), expected, atol=1e-6)
    near = np.concatenate([nearest(block, rows, 5) for rows, block in blocks])
    order = np.argsort(expected + np.diag([np.inf] * 23), axis=1)[:, :5]
    np.testing.assert_array_equal(near, order)
    assert near[7, 0] == 3


def test_a_block_stays_small():
    assert all((rows.stop - rows.start) * 10_000 <= 4_000_000 for rows in row_blocks(10_000))
    assert [rows.stop - rows.start for rows in row_blocks(5_000_000)][:2] == [1, 1]
