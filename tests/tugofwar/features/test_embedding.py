"""Principal components against numpy; which points are drawn; pictures that repeat."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tugofwar.features.embedding import embed, iterations_for, perplexity_for, principal_components, stratified


def test_components_and_their_share_are_those_of_the_singular_values():
    points = np.random.default_rng(0).normal(size=(40, 60)) * np.exp(-np.arange(60) / 5) + 3
    found = principal_components(points.astype(np.float32))
    values = np.linalg.svd(points - points.mean(0), compute_uv=False)
    assert found.scores.shape == (40, 39)
    assert found.share == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(found.scores.std(0), values[:39] / values[0], atol=1e-4)
    wide = principal_components(np.random.default_rng(1).normal(size=(300, 400)).astype(np.float32))
    assert wide.scores.shape == (300, 50)
    assert 0.2 < wide.share < 0.6


def test_huge_and_tiny_features_are_drawn_alike():
    points = np.random.default_rng(0).normal(size=(20, 5))
    one, other = (principal_components((points * scale).astype(np.float32)).scores for scale in (1e30, 1e-20))
    np.testing.assert_allclose(abs(one), abs(other), atol=1e-4)


def test_few_points_have_a_smaller_perplexity_and_settle_sooner():
    assert perplexity_for(10) == 3
    assert perplexity_for(91) == perplexity_for(10_000) == 30
    assert iterations_for(400) < iterations_for(10_000)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_pictures_repeat_keep_clusters_and_depend_on_the_seed(dimensions):
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(3), 20)
    points = (rng.normal(size=(3, 8))[codes] * 8 + rng.normal(size=(60, 8))).astype(np.float32)
    scores = principal_components(points).scores
    one, again, other = (embed(scores, dimensions, seed, "random") for seed in (1, 1, 2))
    assert one.shape == (60, dimensions)
    np.testing.assert_array_equal(one, again)
    assert not np.allclose(one, other)
    first = embed(scores, dimensions, 0)
    near = np.argsort(np.linalg.norm(first[:, None] - first, axis=2), axis=1)[:, 1:6]
    assert (codes[near] == codes[:, None]).mean() > 0.95


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8), st.integers(8, 60), st.integers(0, 3))
def test_drawn_rows_keep_every_dataset_and_its_share(sizes, limit, seed):
    datasets = [f"d{number}" for number, size in enumerate(sizes) for _ in range(size)]
    rows = stratified(datasets, limit, seed)
    assert len(rows) == min(limit, len(datasets))
    assert (np.diff(rows) > 0).all()
    drawn = np.array([sum(datasets[row] == name for row in rows) for name in dict.fromkeys(datasets)])
    assert (drawn >= 1).all()
    assert (drawn <= sizes).all()
    shares = np.array(sizes) * len(rows) / len(datasets)
    # only datasets that would have had less than one row take from the others
    assert (abs(drawn - shares) <= 1 + (shares < 1).sum()).all()
    np.testing.assert_array_equal(rows, stratified(datasets, limit, seed))
