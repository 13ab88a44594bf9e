"""Trustworthiness against scikit-learn, overlap by hand, and what chance gives."""

from itertools import pairwise

import numpy as np
import pytest
from sklearn.manifold import trustworthiness as scikit_learns

from tugofwar.features import distances
from tugofwar.features.faithfulness import (
    chance_overlap,
    chance_trustworthiness,
    neighbour_overlap,
    picture_neighbours,
    trustworthiness,
)

K = 7


@pytest.mark.parametrize("cells", [4_000_000, 300])
def test_trustworthiness_is_scikit_learns(monkeypatch, cells):
    monkeypatch.setattr(distances, "_CELLS", cells)
    rng = np.random.default_rng(0)
    points = rng.normal(size=(60, 9)) + 5
    pictures = [points[:, :2], points[:, :3], rng.normal(size=(60, 2))]
    found = trustworthiness(points.astype(np.float32), [picture_neighbours(each, K) for each in pictures])
    expected = [scikit_learns(points, each, n_neighbors=K) for each in pictures]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert trustworthiness(points, [picture_neighbours(points, K)]) == [1]


def test_overlap_is_the_share_of_common_neighbours():
    one = np.array([[1, 2], [0, 2], [0, 1], [0, 1]])
    other = np.array([[2, 1], [2, 3], [3, 0], [2, 2]])
    assert neighbour_overlap(one, one) == 1
    assert neighbour_overlap(one, other) == (2 + 1 + 1 + 0) / 8


def test_chance_levels_are_what_random_pictures_give():
    rng = np.random.default_rng(1)
    points = rng.normal(size=(40, 5))
    thrown = [picture_neighbours(rng.normal(size=(40, 2)), K) for _ in range(300)]
    assert np.mean(trustworthiness(points, thrown)) == pytest.approx(chance_trustworthiness(40, K), abs=0.005)
    overlaps = [neighbour_overlap(one, other) for one, other in pairwise(thrown)]
    assert np.mean(overlaps) == pytest.approx(chance_overlap(40, K), abs=0.005)
