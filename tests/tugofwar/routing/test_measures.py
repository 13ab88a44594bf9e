"""Measures of routing against closed forms, and against scipy where it is installed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tugofwar.errors import UserError
from tugofwar.routing import measures as routing

POSITIVE = st.floats(0.01, 1)


def distributions(rows=3, experts=4):
    return arrays(float, (rows, experts), elements=POSITIVE).map(lambda a: a / a.sum(axis=1, keepdims=True))


def test_equal_weights_have_the_largest_entropy_and_one_expert_alone_none():
    assert routing.entropy([0.25] * 4) == 2
    assert routing.entropy([0, 1, 0]) == 0
    assert routing.entropy([0.5, 0.25, 0.25]) == 1.5
    assert routing.share_of_largest_entropy([1 / 5] * 5) == pytest.approx(1, abs=1e-15)
    assert routing.share_of_largest_entropy([[1.0, 0.0], [0.25, 0.75]]) == pytest.approx([0, 0.8112781244591328])


def test_tasks_with_experts_of_their_own_tell_all_about_the_task():
    assert routing.mutual_information(np.eye(4)) == 2
    assert routing.mutual_information(np.full((4, 5), 0.2)) == 0
    # two of three tasks share an expert: H(1/3, 2/3)
    shared = routing.mutual_information([[1, 0], [1, 0], [0, 1]])
    assert shared == pytest.approx(np.log2(3) - 2 / 3)


def test_a_mixture_of_uniform_and_own_expert_has_the_closed_form_information():
    # weight 1/2 + 1/2 on the own expert of two: I = 1 - H(3/4)
    assert routing.mutual_information([[0.75, 0.25], [0.25, 0.75]]) == pytest.approx(1 - 0.8112781244591328)


def test_divergence_is_1_without_a_common_expert_and_0_between_equals():
    np.testing.assert_allclose(
        routing.jensen_shannon([[1, 0, 0], [0, 0.5, 0.5], [1, 0, 0]]), [[0, 1, 0], [1, 0, 1], [0, 1, 0]], atol=1e-15
    )


@given(distributions(rows=2))
def test_divergence_of_two_tasks_is_their_information(weights):
    assert routing.jensen_shannon(weights)[0, 1] == pytest.approx(routing.mutual_information(weights), abs=1e-12)


@given(distributions())
def test_divergence_is_scipys_squared_distance(weights):
    distance = pytest.importorskip("scipy.spatial.distance")
    for row in range(3):
        for column in range(3):
            expected = distance.jensenshannon(weights[row], weights[column], base=2) ** 2
            assert routing.jensen_shannon(weights)[row, column] == pytest.approx(expected, abs=1e-9)


@given(distributions(), st.permutations(range(3)), st.permutations(range(4)))
def test_the_order_of_tasks_and_experts_does_not_matter(weights, tasks, experts):
    moved = weights[tasks][:, experts]
    assert routing.mutual_information(moved) == pytest.approx(routing.mutual_information(weights), abs=1e-12)
    np.testing.assert_allclose(
        routing.jensen_shannon(moved), routing.jensen_shannon(weights)[np.ix_(tasks, tasks)], atol=1e-12
    )
    np.testing.assert_allclose(routing.entropy(moved), routing.entropy(weights)[tasks], atol=1e-12)


@given(distributions())
def test_measures_stay_within_their_range_and_are_symmetric(weights):
    divergence = routing.jensen_shannon(weights)
    assert (divergence == divergence.T).all()
    assert (divergence >= 0).all()
    assert (divergence <= 1).all()
    assert 0 <= routing.mutual_information(weights) <= np.log2(3)


def test_resamples_are_one_call():
    many = np.random.default_rng(0).dirichlet(np.ones(4), size=(7, 3))
    for measure in (
        routing.entropy,
        routing.share_of_largest_entropy,
        routing.mutual_information,
        routing.jensen_shannon,
    ):
        np.testing.assert_array_equal(measure(many), np.stack([measure(each) for each in many]))


def test_an_expert_under_a_hundredth_of_a_fair_share_is_dead():
    weights = [0.0024, 0.0026, 0.495, 0.5]
    assert routing.dead_experts(weights).tolist() == [True, False, False, False]


@pytest.mark.parametrize("weights", [[0.5, 0.6], [1.5, -0.5], [np.nan, 1.0], 1.0])
def test_rows_that_are_no_distributions_are_refused(weights):
    with pytest.raises(UserError, match="Routing weights"):
        routing.entropy(weights)


def test_one_expert_has_no_share_of_entropy():
    with pytest.raises(UserError, match="one expert has no entropy"):
        routing.share_of_largest_entropy([[1.0]])
