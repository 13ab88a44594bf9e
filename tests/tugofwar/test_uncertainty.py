"""Oracle: every bootstrap replicate recomputed from its resampled batches by a loop; then coverage."""

import numpy as np
import pytest

from tugofwar import resampling
from tugofwar.errors import UserError
from tugofwar.metrics import gradient_direction, gradient_magnitude_similarity, tug_of_war_index
from tugofwar.strata import build_groups
from tugofwar.uncertainty import bootstrap_intervals


def loop_replicate(gradients, counts, groups, datasets, estimator):
    """GD of one resample: batches repeated as drawn, all copies of a batch left out with it."""

    def strata(rows):
        return [[a for a in rows if datasets[a] == d] for d in dict.fromkeys(datasets[a] for a in rows)]

    def mean_unit(rows, left_out):
        means = []
        for stratum in strata(rows):
            drawn = [b for b in stratum for _ in range(int(counts[b])) if b != left_out]
            means.append(np.mean([gradients[b] / np.linalg.norm(gradients[b]) for b in drawn], axis=0))
        return np.mean(means, axis=0)

    result = np.ones((len(groups), len(groups)))
    for i, row in enumerate(groups.values()):
        for j, column in enumerate(groups.values()):
            if i == j:
                continue
            numerators, denominators, ratios = [], [], []
            for stratum in strata(row):
                drawn = [a for a in stratum for _ in range(int(counts[a]))]
                tops = [gradients[a] @ mean_unit(column, None) for a in drawn]
                bottoms = [gradients[a] @ mean_unit(row, a) for a in drawn]
                numerators.append(np.mean(tops))
                denominators.append(np.mean(bottoms))
                ratios.append(np.mean(np.divide(tops, bottoms)))
            of_means = np.mean(numerators) / np.mean(denominators)
            result[i, j] = of_means if estimator == "ratio_of_means" else np.mean(ratios)
    return result


@pytest.mark.parametrize("estimator", ["leave_one_out", "ratio_of_means"])
def test_replicates_equal_the_loop(estimator):
    rng = np.random.default_rng(0)
    datasets = list("aaaabbbbbccccc")
    gradients = rng.normal(size=(14, 6)) + 1.5
    groups = {"ab": range(9), "c": range(9, 14)}
    members = build_groups(groups, 14, datasets)
    drawn = np.concatenate(list(resampling.draw_counts(members, np.ones(14, bool), 20, 7)), axis=1)
    assert (drawn[:4].sum(axis=0) == 4).all()
    ours = resampling.replicates(gradients @ gradients.T, members, estimator, [drawn])
    for number in range(20):
        expected = loop_replicate(gradients, drawn[:, number], groups, datasets, estimator)
        np.testing.assert_allclose(ours.gd[number], expected, rtol=1e-9)


def test_chunks_do_not_change_the_draws(monkeypatch):
    gradients = np.random.default_rng(1).normal(size=(6, 5)) + 1
    arguments = (gradients @ gradients.T, {"a": range(3), "b": range(3, 6)})
    whole = bootstrap_intervals(*arguments, resamples=50)
    monkeypatch.setattr(resampling, "_WORK_BYTES", 8 * 6 * 2 * 7)
    chunked = bootstrap_intervals(*arguments, resamples=50)
    np.testing.assert_allclose(chunked.gd.low, whole.gd.low, rtol=1e-12)
    np.testing.assert_allclose(chunked.index.high, whole.index.high, rtol=1e-12)


def test_seeds_repeat_and_differ():
    gradients = np.random.default_rng(2).normal(size=(20, 8)) + 1
    arguments = (gradients @ gradients.T, {"a": range(10), "b": range(10, 20)})
    first, again, other = (bootstrap_intervals(*arguments, resamples=100, seed=seed) for seed in (0, 0, 1))
    assert (first.gd.low == again.gd.low).all()
    assert (first.gd.low != other.gd.low).any()


def two_datasets(rng, direction, batches=100, dimension=1000, cosine=0.05):
    noise = np.sqrt((1 / cosine - 1) / dimension)
    means = np.zeros((2, dimension))
    means[0, 0] = 1
    means[1, :2] = direction, np.sqrt(1 - direction**2)
    gradients = np.repeat(means, batches, axis=0) + noise * rng.normal(size=(2 * batches, dimension))
    return gradients @ gradients.T, {"a": range(batches), "b": range(batches, 2 * batches)}


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(3)
    covered = {"leave_one_out": [], "ratio_of_means": []}
    magnitude = []
    for _ in range(120):
        gram, groups = two_datasets(rng, 0.3)
        for estimator, hits in covered.items():
            intervals = bootstrap_intervals(gram, groups, estimator, resamples=300, level=0.9)
            hits.append(intervals.gd.low[0, 1] <= 0.3 <= intervals.gd.high[0, 1])
        magnitude.append(intervals.gm.low[0, 1] <= 1 <= intervals.gm.high[0, 1])
    # Two standard errors of a share of 120 draws around 85 to 95 %.
    assert 0.80 <= np.mean(covered["ratio_of_means"]) <= 0.98
    assert 0.80 <= np.mean(covered["leave_one_out"]) <= 0.98
    assert np.mean(magnitude) >= 0.80


def test_the_plugin_gets_no_interval_of_its_own():
    gram, groups = two_datasets(np.random.default_rng(4), 0.3, batches=20)
    intervals = bootstrap_intervals(gram, groups, "plugin", resamples=50)
    assert intervals.gd is None
    assert intervals.index is None
    assert intervals.index_normalised is None
    assert intervals.gd_simultaneous is intervals.index_simultaneous is None
    assert intervals.gd_p_values is intervals.index_p_values is None
    assert (intervals.gm.low <= intervals.gm.high).all()


def test_a_dataset_without_a_direction_is_flagged():
    rng = np.random.default_rng(5)
    gradients = np.concatenate([rng.normal(size=(30, 200)), rng.normal(size=(30, 200)) + 1])
    groups = {"noise": range(30), "signal": range(30, 60)}
    intervals = bootstrap_intervals(gradients @ gradients.T, groups, resamples=200)
    assert intervals.sign_uncertain == ("noise",)


def test_nothing_is_tested_where_the_sign_is_uncertain():
    rng = np.random.default_rng(5)
    gradients = np.concatenate([rng.normal(size=(30, 200)) + k for k in (0, 1, 1)])
    groups = {"noise": range(30), "one": range(30, 60), "two": range(60, 90)}
    intervals = bootstrap_intervals(gradients @ gradients.T, groups, resamples=200)
    assert intervals.gd_p_values[0].tolist() == [0, 1, 1]
    assert intervals.index_p_values[0] == 1
    assert (intervals.gd_p_values[[1, 2], [2, 1]] == 1 / 201).all()
    assert (intervals.index_p_values[1:] == 1 / 201).all()


def test_simultaneous_intervals_are_wider_and_keep_the_bounds():
    gram, groups = two_datasets(np.random.default_rng(10), 0.3)
    intervals = bootstrap_intervals(gram, groups, resamples=400)
    for single, together in (
        (intervals.gd, intervals.gd_simultaneous),
        (intervals.index, intervals.index_simultaneous),
    ):
        assert ((together.high - together.low) >= 0.95 * (single.high - single.low)).all()
    assert (np.diagonal(intervals.gd_simultaneous.low) == 1).all()
    assert (intervals.gm_simultaneous.high <= 1).all()
    assert (intervals.gm_simultaneous.low > 0).all()
    assert (np.diagonal(intervals.gm_p_values) == 1).all()
    assert (intervals.gm_p_values == intervals.gm_p_values.T).all()


def test_magnitudes_that_differ_are_told_apart():
    gram, groups = two_datasets(np.random.default_rng(11), 0.3)
    scale = np.repeat([1.0, 3.0], 100)
    intervals = bootstrap_intervals(gram * np.outer(scale, scale), groups, resamples=400)
    assert intervals.gm_p_values[0, 1] == 1 / 401
    assert intervals.gm_simultaneous.low[0, 1] <= 0.6 <= intervals.gm_simultaneous.high[0, 1] < 0.7


def test_magnitude_interval_away_from_its_bound():
    rng = np.random.default_rng(6)
    gradients = rng.normal(size=(40, 50)) + 1
    gradients[20:] *= 3
    groups = {"a": range(20), "b": range(20, 40)}
    bounds = bootstrap_intervals(gradients @ gradients.T, groups, resamples=200).gm
    assert 0.4 < bounds.low[0, 1] < 0.6 < bounds.high[0, 1] < 0.8
    assert bounds.low[0, 0] == bounds.high[0, 0] == 1


def test_normalised_index_is_undefined_without_a_positive_maximum():
    gradients = np.random.default_rng(7).normal(size=(10, 5)) * 0.1 + 1
    both = np.concatenate([gradients, -3 * gradients, -3 * gradients])
    groups = {"a": range(10), "b": range(10, 20), "c": range(20, 30)}
    assert bootstrap_intervals(both @ both.T, groups, resamples=50).index_normalised is not None
    opposed = np.concatenate([gradients, -1.05 * gradients])
    pair = {"a": range(10), "b": range(10, 20)}
    assert bootstrap_intervals(opposed @ opposed.T, pair, resamples=50).index_normalised is None


def test_two_batches_survive_resampling():
    gradients = np.random.default_rng(8).normal(size=(4, 5)) + 2
    intervals = bootstrap_intervals(gradients @ gradients.T, {"a": [0, 1], "b": [2, 3]}, resamples=100)
    assert np.isfinite(intervals.gd.low).all()


def test_a_batch_without_gradient_is_resampled_too():
    gradients = np.random.default_rng(9).normal(size=(8, 5)) + 2
    gradients[1] = 0
    groups = {"a": range(4), "b": range(4, 8)}
    for estimator in ("leave_one_out", "ratio_of_means"):
        bounds = bootstrap_intervals(gradients @ gradients.T, groups, estimator, resamples=200).gd
        assert np.isfinite(bounds.low).all()
        assert bounds.low[0, 1] < bounds.high[0, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": 1.0}, "between 0 and 1"),
        ({"resamples": 1}, "at least 2"),
        ({"estimator": "x"}, "no estimator"),
        ({"seed": -1}, "from 0"),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(UserError, match=message):
        bootstrap_intervals(np.ones((4, 4)), {"a": [0, 1], "b": [2, 3]}, **options)


def test_denominators_that_vanish_in_many_resamples_are_an_error():
    gradients = np.array([[1.0, 0], [1, 0], [0, 1], [1, 1], [1, 2], [2, 1]])
    with pytest.raises(UserError, match="does not exist in"):
        bootstrap_intervals(gradients @ gradients.T, {"a": [0, 1, 2], "b": [3, 4, 5]}, resamples=300)


def test_of_two_batches_nothing_is_sure():
    """Every usable resample of two batches holds both: what does not vary is no evidence, but looks like it."""
    rng = np.random.default_rng(14)
    gradients = rng.normal(size=(8, 5)) + np.repeat([[3, 0, 0, 0, 0], [0, 9, 0, 0, 0]], [2, 6], axis=0)
    groups = {"few": [0, 1], "b": [2, 3, 4], "c": [5, 6, 7]}
    found = bootstrap_intervals(gradients @ gradients.T, groups, resamples=100)
    assert "few" in found.sign_uncertain
    cells = [(0, 1), (0, 2), (1, 0), (2, 0)]
    for row, column in cells:
        assert found.gd_p_values[row, column] == found.gm_p_values[row, column] == 1
        for bounds in (found.gm, found.gm_simultaneous):
            assert (bounds.low[row, column], bounds.high[row, column]) == (0, 1)
    assert (found.index_p_values == 1).all()
    assert found.index_normalised is None
    assert found.gm.low[1, 2] > 0


# Seeds that bring the denominator of the dataset without a direction near 0: its row of GD is 20 to 110.
@pytest.mark.parametrize("seed", [2, 4, 22, 31])
def test_the_interval_of_a_row_of_uncertain_sign_holds_its_point_and_zero(seed):
    """Such a point is larger than its replicates, which must not be drawn towards it."""
    gradients = np.random.default_rng(seed).normal(size=(40, 30))
    gradients[20:, 0] += 3
    gram, groups = gradients @ gradients.T, {"noise": range(20), "b": range(20, 40)}
    found = bootstrap_intervals(gram, groups, resamples=200)
    gd = gradient_direction(gram, groups)
    index = tug_of_war_index(gd, gradient_magnitude_similarity(gram, groups))
    assert found.sign_uncertain == ("noise",)
    assert found.gd.low[0, 1] < 0 < gd[0, 1] <= found.gd.high[0, 1]
    assert found.index.low[0] < 0 < index[0] <= found.index.high[0]
