"""Closed forms of the plugin estimator, the paper's equations as printed (eq. 1 to 4)."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tugofwar import metrics

SEEDS = st.integers(0, 2**31)
BATCHES = st.integers(1, 12)
DIMENSIONS = st.integers(1, 30)


def gradients_that_share_a_direction(seed, batches, dimension):
    """Random gradients, none of which is orthogonal to the mean unit gradient, where ratios do not exist."""
    gradients = np.random.default_rng(seed).normal(size=(batches, dimension))
    norms = np.linalg.norm(gradients, axis=1)
    assume(norms.min() > 1e-3)
    along = gradients @ (gradients / norms[:, np.newaxis]).mean(axis=0)
    assume((abs(along) / norms).min() > 1e-3)
    return gradients


def measures(first, second):
    stacked = np.concatenate([first, second])
    groups = {"a": range(len(first)), "b": range(len(first), len(stacked))}
    gram = stacked @ stacked.T
    direction = metrics.gradient_direction(gram, groups, "plugin")
    similarity = metrics.gradient_magnitude_similarity(gram, groups)
    return direction, similarity, metrics.tug_of_war_index(direction, similarity)


@given(seed=SEEDS, batches=BATCHES, dimension=DIMENSIONS)
def test_the_same_batches_pull_alike(seed, batches, dimension):
    gradients = gradients_that_share_a_direction(seed, batches, dimension)
    direction, similarity, index = measures(gradients, gradients)
    np.testing.assert_allclose(direction, 1, atol=1e-9)
    np.testing.assert_allclose(similarity, 1, atol=1e-12)
    np.testing.assert_allclose(index, 2, atol=1e-9)


@given(seed=SEEDS, batches=BATCHES, dimension=DIMENSIONS, scale=st.floats(1e-6, 1e6))
def test_a_scaled_loss_changes_the_magnitude_only(seed, batches, dimension, scale):
    gradients = gradients_that_share_a_direction(seed, batches, dimension)
    direction, similarity, _ = measures(gradients, scale * gradients)
    np.testing.assert_allclose(direction, 1, atol=1e-9)
    assert similarity[0, 1] == pytest.approx(2 * scale / (1 + scale**2), rel=1e-9)


@given(seed=SEEDS, batches=BATCHES, others=BATCHES, dimension=DIMENSIONS, scale=st.floats(1e-3, 1e3))
def test_scaling_a_loss_leaves_all_directions_as_they_were(seed, batches, others, dimension, scale):
    first = gradients_that_share_a_direction(seed, batches, dimension)
    second = gradients_that_share_a_direction(seed + 1, others, dimension)
    before, _, _ = measures(first, second)
    after, _, _ = measures(first, scale * second)
    np.testing.assert_allclose(after, before, rtol=1e-8, atol=1e-9)


@given(seed=SEEDS, batches=BATCHES, dimension=DIMENSIONS)
def test_the_opposite_loss_pulls_apart(seed, batches, dimension):
    gradients = gradients_that_share_a_direction(seed, batches, dimension)
    direction, similarity, index = measures(gradients, -gradients)
    np.testing.assert_allclose(direction, [[1, -1], [-1, 1]], atol=1e-9)
    np.testing.assert_allclose(similarity, 1, atol=1e-12)
    np.testing.assert_allclose(index, 0, atol=1e-9)


@given(seed=SEEDS, batches=BATCHES, others=BATCHES, dimension=DIMENSIONS)
def test_orthogonal_gradients_leave_each_other_alone(seed, batches, others, dimension):
    first = gradients_that_share_a_direction(seed, batches, dimension)
    second = gradients_that_share_a_direction(seed + 1, others, dimension)
    direction, similarity, index = measures(
        np.pad(first, ((0, 0), (0, dimension))), np.pad(second, ((0, 0), (dimension, 0)))
    )
    assert (direction == np.eye(2)).all()
    assert (index == 1).all()
    assert 0 < similarity[0, 1] <= 1


@given(seed=SEEDS, batches=st.integers(2, 6), groups=st.integers(1, 4), dimension=st.integers(1, 12))
def test_permutations_of_datasets_batches_and_parameters_permute_the_tables(seed, batches, groups, dimension):
    rng = np.random.default_rng(seed)
    sets = [gradients_that_share_a_direction(seed + k, batches, dimension) for k in range(groups)]
    order, columns = rng.permutation(groups), rng.permutation(dimension)
    shuffled = [sets[k][rng.permutation(batches)][:, columns] for k in order]

    def tables(parts):
        stacked = np.concatenate(parts)
        rows = {str(k): range(k * batches, (k + 1) * batches) for k in range(groups)}
        gram = stacked @ stacked.T
        direction = metrics.gradient_direction(gram, rows, "plugin")
        return direction, metrics.gradient_magnitude_similarity(gram, rows)

    for before, after in zip(tables(sets), tables(shuffled), strict=True):
        np.testing.assert_allclose(after, before[np.ix_(order, order)], rtol=1e-7, atol=1e-9)


@given(seed=SEEDS, dimension=st.integers(2, 12))
def test_a_rotation_of_the_parameters_changes_nothing(seed, dimension):
    rng = np.random.default_rng(seed)
    first = gradients_that_share_a_direction(seed, 5, dimension)
    second = gradients_that_share_a_direction(seed + 1, 4, dimension)
    rotation, _ = np.linalg.qr(rng.normal(size=(dimension, dimension)))
    for before, after in zip(measures(first, second), measures(first @ rotation, second @ rotation), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-7, atol=1e-9)
