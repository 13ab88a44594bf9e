"""Oracle: the equations as double loops over gradients; closed forms, invariances, simulated truth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tugofwar import metrics
from tugofwar.errors import UserError


def naive_direction(gradients, groups, estimator, datasets):
    """Equation 2 batch by batch, from gradients and not from inner products; shares nothing with the code."""
    names = list(groups)

    def strata(name):
        return [[a for a in groups[name] if datasets[a] == d] for d in dict.fromkeys(datasets[a] for a in groups[name])]

    def unit(b):
        norm = np.linalg.norm(gradients[b])
        return gradients[b] / norm if norm > 0 else np.zeros_like(gradients[b])

    def mean_unit(name, left_out):
        means = []
        for rows in strata(name):
            kept = [b for b in rows if b != left_out]
            means.append(sum(unit(b) for b in kept) / len(kept))
        return sum(means) / len(means)

    result = np.empty((len(names), len(names)))
    for i, row in enumerate(names):
        for j, column in enumerate(names):
            per_stratum = []
            for rows in strata(row):
                pairs = []
                for a in rows:
                    left_out = None if estimator == "plugin" else a
                    denominator = gradients[a] @ mean_unit(row, left_out)
                    numerator = denominator if i == j else gradients[a] @ mean_unit(column, None)
                    pairs.append((numerator, denominator))
                per_stratum.append(pairs)
            if estimator == "ratio_of_means":
                numerator = np.mean([np.mean([n for n, _ in pairs]) for pairs in per_stratum])
                denominator = np.mean([np.mean([d for _, d in pairs]) for pairs in per_stratum])
                result[i, j] = numerator / denominator
            else:
                ratios = [np.mean([n / d for n, d in pairs if not n == d == 0]) for pairs in per_stratum]
                result[i, j] = np.mean(ratios)
    return result


@pytest.fixture
def pooled():
    """Three tasks, of which one pools two datasets of different sizes and one batch has no gradient."""
    rng = np.random.default_rng(0)
    sizes = {"a": 4, "b": 7, "c": 5, "d": 3}
    datasets = [name for name, size in sizes.items() for _ in range(size)]
    gradients = rng.normal(size=(len(datasets), 12)) + 1.5
    gradients[2] = 0
    groups = {"ab": range(11), "c": range(11, 16), "d": range(16, 19)}
    return gradients, groups, datasets


@pytest.mark.parametrize("estimator", metrics.ESTIMATORS)
def test_direction_equals_the_double_loop_for_pooled_tasks(pooled, estimator):
    gradients, groups, datasets = pooled
    ours = metrics.gradient_direction(gradients @ gradients.T, groups, estimator, datasets)
    np.testing.assert_allclose(ours, naive_direction(gradients, groups, estimator, datasets), rtol=1e-10)
    assert (np.diagonal(ours) == 1).all()


@pytest.mark.parametrize("estimator", metrics.ESTIMATORS)
def test_direction_without_datasets_weighs_every_batch_alike(pooled, estimator):
    gradients, groups, datasets = pooled
    one_stratum = [next(name for name, rows in groups.items() if a in rows) for a in range(len(datasets))]
    ours = metrics.gradient_direction(gradients @ gradients.T, groups, estimator)
    np.testing.assert_allclose(ours, naive_direction(gradients, groups, estimator, one_stratum), rtol=1e-10)
    pooled_by_dataset = metrics.gradient_direction(gradients @ gradients.T, groups, estimator, datasets)
    assert abs(ours - pooled_by_dataset).max() > 1e-3


def test_magnitude_equals_the_formula_for_pooled_tasks(pooled):
    gradients, groups, datasets = pooled
    norms = np.linalg.norm(gradients, axis=1)
    means = np.array([(norms[:4].mean() + norms[4:11].mean()) / 2, norms[11:16].mean(), norms[16:].mean()])
    expected = [[2 * p * q / (p**2 + q**2) for q in means] for p in means]
    ours = metrics.gradient_magnitude_similarity(gradients @ gradients.T, groups, datasets)
    np.testing.assert_allclose(ours, expected, rtol=1e-12)
    assert (ours == ours.T).all()
    assert (np.diagonal(ours) == 1).all()


def two_copies(scale):
    gradients = np.random.default_rng(1).normal(size=(6, 9)) + 1
    both = np.concatenate([gradients, scale * gradients])
    return both @ both.T, {"a": range(6), "b": range(6, 12)}


def test_same_batches_interfere_fully():
    gram, groups = two_copies(1.0)
    np.testing.assert_allclose(metrics.gradient_direction(gram, groups, "plugin"), 1, atol=1e-12)
    np.testing.assert_allclose(metrics.gradient_magnitude_similarity(gram, groups), 1, atol=1e-12)


@pytest.mark.parametrize("c", [0.01, 0.5, 3.0])
def test_a_scaled_loss_changes_magnitude_only(c):
    gram, groups = two_copies(c)
    np.testing.assert_allclose(metrics.gradient_direction(gram, groups, "plugin"), 1, atol=1e-12)
    similarity = metrics.gradient_magnitude_similarity(gram, groups)[0, 1]
    assert similarity == pytest.approx(2 * c / (1 + c**2), rel=1e-12)


def test_the_opposite_loss_has_direction_minus_one_and_index_zero():
    gram, groups = two_copies(-1.0)
    direction = metrics.gradient_direction(gram, groups, "plugin")
    np.testing.assert_allclose(direction, [[1, -1], [-1, 1]], atol=1e-12)
    index = metrics.tug_of_war_index(direction, metrics.gradient_magnitude_similarity(gram, groups))
    np.testing.assert_allclose(index, 0, atol=1e-12)


@pytest.mark.parametrize("estimator", metrics.ESTIMATORS)
def test_orthogonal_gradients_do_not_interfere(estimator):
    gradients = np.zeros((8, 6))
    gradients[:4, :3] = np.random.default_rng(2).uniform(1, 2, (4, 3))
    gradients[4:, 3:] = np.random.default_rng(3).uniform(1, 2, (4, 3))
    direction = metrics.gradient_direction(gradients @ gradients.T, {"a": range(4), "b": range(4, 8)}, estimator)
    assert (direction == np.eye(2)).all()


SEEDS = st.integers(0, 2**31)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, estimator=st.sampled_from(metrics.ESTIMATORS))
def test_permuting_batches_datasets_and_parameters_permutes_the_result(seed, estimator):
    rng = np.random.default_rng(seed)
    gradients = rng.normal(size=(12, 7)) + 2
    groups = {"a": range(4), "b": range(4, 8), "c": range(8, 12)}
    before = metrics.gradient_direction(gradients @ gradients.T, groups, estimator)
    batches, names, columns = rng.permutation(12), rng.permutation(3), rng.permutation(7)
    moved = gradients[batches][:, columns]
    place = np.argsort(batches)
    renamed = {name: place[list(groups[name])] for name in np.array(list(groups))[names]}
    after = metrics.gradient_direction(moved @ moved.T, renamed, estimator)
    np.testing.assert_allclose(after, before[np.ix_(names, names)], rtol=1e-9, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, scale=st.floats(1e-6, 1e6), estimator=st.sampled_from(metrics.ESTIMATORS))
def test_scaling_one_datasets_loss_leaves_direction_unchanged(seed, scale, estimator):
    gradients = np.random.default_rng(seed).normal(size=(12, 7)) + 2
    groups = {"a": range(6), "b": range(6, 12)}
    before = metrics.gradient_direction(gradients @ gradients.T, groups, estimator)
    gradients[:6] *= scale
    after = metrics.gradient_direction(gradients @ gradients.T, groups, estimator)
    np.testing.assert_allclose(after, before, rtol=1e-9, atol=1e-12)


def draw_with_known_direction(rng, dimension=1000, batches=100, direction=0.3, cosine=0.05):
    """Two datasets whose true GD is ``direction``, with pairs of batches of one at cosine ``cosine``."""
    noise = np.sqrt((1 / cosine - 1) / dimension)
    means = np.zeros((2, dimension))
    means[0, 0] = 1
    means[1, :2] = direction, np.sqrt(1 - direction**2)
    gradients = np.repeat(means, batches, axis=0) + noise * rng.normal(size=(2 * batches, dimension))
    return gradients @ gradients.T, {"a": range(batches), "b": range(batches, 2 * batches)}


def test_estimators_against_simulated_truth():
    rng = np.random.default_rng(4)
    readings = {estimator: [] for estimator in metrics.ESTIMATORS}
    for _ in range(60):
        gram, groups = draw_with_known_direction(rng)
        for estimator, values in readings.items():
            values.append(metrics.gradient_direction(gram, groups, estimator)[[0, 1], [1, 0]].mean())
    means = {estimator: np.mean(values) for estimator, values in readings.items()}
    assert means["ratio_of_means"] == pytest.approx(0.3, abs=0.01)
    assert means["leave_one_out"] == pytest.approx(0.3, abs=0.01)
    # The bias of the paper's equation as printed: U_aa / |S_i| in the denominator.
    assert means["plugin"] == pytest.approx(0.25, abs=0.015)


def test_statistics_score_and_its_undefined_parameters():
    score, undefined = metrics.statistics_score([np.array([1.0, 2.0, 1.0, 0.0]), np.array([-1.0, 2.0, 0.0, 0.0])])
    assert undefined.tolist() == [False, False, False, True]
    assert score[:3].tolist() == [0, 1, 1]
    assert np.isnan(score[3])


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, count=st.integers(1, 6))
def test_statistics_score_is_in_the_unit_interval(seed, count):
    gradients = np.random.default_rng(seed).normal(size=(count, 50))
    score, undefined = metrics.statistics_score(list(gradients))
    assert not undefined.any()
    assert ((score >= 0) & (score <= 1)).all()


def test_maximum_normalised_needs_a_positive_maximum():
    assert metrics.maximum_normalised([1.0, -2.0, 4.0]).tolist() == [0.25, -0.5, 1]
    with pytest.raises(ValueError, match="not positive"):
        metrics.maximum_normalised([0.0, -1.0])


EYE = np.eye(4)
PAIR = {"a": [0, 1], "b": [2, 3]}


@pytest.mark.parametrize(
    ("gram", "groups", "options", "message"),
    [
        (np.ones((2, 3)), PAIR, {}, "square"),
        (np.full((4, 4), np.nan), PAIR, {}, "not finite"),
        (-EYE, PAIR, {}, "negative diagonal"),
        (np.triu(np.ones((4, 4))), PAIR, {}, "not symmetric"),
        (EYE, {}, {}, "no groups"),
        (EYE, {"a": []}, {}, "'a' has no rows"),
        (EYE, {"a": [0, 4]}, {}, "row 4"),
        (EYE, {"a": [-1, 0]}, {}, "row -1"),
        (EYE, {"a": [0, 0]}, {}, "twice"),
        (EYE, {"a": [0.5, 1]}, {}, "row numbers"),
        (EYE, PAIR, {"datasets": ["x"]}, "1 rows"),
        (EYE, PAIR, {"estimator": "mean"}, "no estimator 'mean'"),
        (np.ones((4, 4)), {"a": [0], "b": [1, 2]}, {}, "'a' has one batch"),
        (EYE, PAIR, {}, "share no direction"),
        (EYE, PAIR, {"estimator": "leave_one_out"}, "mean of ratios"),
        (np.diag([1.0, 1.0, 0.0, 0.0]), PAIR, {"estimator": "plugin"}, "only zero gradients"),
    ],
)
def test_bad_input_is_one_clear_sentence(gram, groups, options, message):
    with pytest.raises(UserError, match=message):
        metrics.gradient_direction(gram, groups, **options)


def test_magnitude_of_a_group_without_gradient_is_an_error():
    with pytest.raises(UserError, match="'b' has only zero gradients"):
        metrics.gradient_magnitude_similarity(np.diag([1.0, 1.0, 0.0, 0.0]), PAIR)


def test_a_single_batch_is_enough_for_the_plugin():
    direction = metrics.gradient_direction(np.ones((2, 2)), {"a": [0], "b": [1]}, "plugin")
    assert (direction == 1).all()
