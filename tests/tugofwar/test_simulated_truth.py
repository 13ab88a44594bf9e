"""Estimators and intervals against simulated gradients whose true GD, GM and index are known.

Batches of a dataset are its mean gradient plus noise; ``cosine`` is that of two batches of one dataset. With
unit means ``e_1`` and ``d e_1 + sqrt(1 - d^2) e_2`` the true GD is ``d`` both ways.
"""

import numpy as np
import pytest

from tugofwar.metrics import ESTIMATORS, gradient_direction, unstable_groups
from tugofwar.uncertainty import bootstrap_intervals

TRUTH = 0.3
LENGTHS = ("equal", "one loss three times the other", "lognormal", "heavy-tailed noise")


def draw(rng, cosine, dimension=1000, batches=100, lengths="equal", count=2, direction=TRUTH):
    """Gram matrix and groups of ``count`` datasets; all but the first lie at ``direction`` to the first."""
    noise = np.sqrt((1 / cosine - 1) / dimension)
    gradients = noise * rng.standard_normal((count * batches, dimension), dtype=np.float32)
    if lengths == "heavy-tailed noise":
        gradients *= np.sqrt(3 / rng.chisquare(5, size=(len(gradients), 1))).astype(np.float32)
    gradients[:batches, 0] += 1
    for k in range(1, count):
        rows = slice(k * batches, (k + 1) * batches)
        gradients[rows, 0] += direction
        gradients[rows, k] += np.sqrt(1 - direction**2)
    if lengths == "one loss three times the other":
        gradients[batches:] *= 3
    if lengths == "lognormal":
        gradients *= np.exp(0.7 * rng.normal(size=(len(gradients), 1))).astype(np.float32)
    gram = (gradients @ gradients.T).astype(np.float64)
    return gram, {str(k): range(k * batches, (k + 1) * batches) for k in range(count)}


@pytest.mark.parametrize(("cosine", "plugin"), [(0.05, 0.25), (0.2, 0.288)])
def test_bias_of_the_estimators(cosine, plugin):
    rng = np.random.default_rng(0)
    readings = {estimator: [] for estimator in ESTIMATORS}
    for _ in range(200):
        gram, groups = draw(rng, cosine)
        for estimator, values in readings.items():
            values.append(gradient_direction(gram, groups, estimator)[[0, 1], [1, 0]])
    means = {estimator: np.mean(values) for estimator, values in readings.items()}
    assert means["ratio_of_means"] == pytest.approx(TRUTH, abs=0.005)
    assert means["leave_one_out"] == pytest.approx(TRUTH, abs=0.005)
    # U_aa / |S_i| adds |g| / 100 = 1 / (100 sqrt(cosine)) to a denominator of sqrt(cosine).
    assert plugin == pytest.approx(TRUTH / (1 + (1 / cosine - 1) / 100), abs=0.004)
    assert means["plugin"] == pytest.approx(plugin, abs=0.005)


@pytest.mark.slow
@pytest.mark.parametrize(("cosine", "lengths"), [(0.05, LENGTHS[0]), (0.2, LENGTHS[2]), (0.05, LENGTHS[3])])
def test_single_intervals_cover_the_truth_as_often_as_they_say(cosine, lengths):
    rng = np.random.default_rng(1)
    direction = {"leave_one_out": [], "ratio_of_means": []}
    magnitude = []
    for _ in range(400):
        gram, groups = draw(rng, cosine, lengths=lengths)
        for estimator, hits in direction.items():
            intervals = bootstrap_intervals(gram, groups, estimator, resamples=400, level=0.9)
            hits.append(intervals.gd.low[0, 1] <= TRUTH <= intervals.gd.high[0, 1])
        magnitude.append(intervals.gm.high[0, 1] == 1)
    assert 0.85 <= np.mean(direction["leave_one_out"]) <= 0.95
    assert 0.85 <= np.mean(direction["ratio_of_means"]) <= 0.95
    assert np.mean(magnitude) >= 0.85


def test_few_batches_in_strong_noise_do_not_make_intervals_too_wide():
    """Resampling counts the noise of pairs three times: 96 % at this size before it is taken out again."""
    rng = np.random.default_rng(2)
    covered = []
    for _ in range(400):
        gram, groups = draw(rng, 0.05, batches=30)
        bounds = bootstrap_intervals(gram, groups, resamples=300, level=0.9).gd
        covered.append((bounds.low <= TRUTH) & (bounds.high >= TRUTH))
    assert 0.86 <= np.mean(covered, axis=0)[[0, 1], [1, 0]].mean() <= 0.935


@pytest.mark.slow
@pytest.mark.parametrize("direction", [0.3, 0.0])
def test_simultaneous_intervals_cover_all_cells_together(direction):
    rng = np.random.default_rng(3)
    truth = np.full((4, 4), direction**2)
    truth[0], truth[:, 0] = direction, direction
    np.fill_diagonal(truth, 1)
    covered = {"gd": [], "gm": [], "index": []}
    rejected = []
    for _ in range(200):
        gram, groups = draw(rng, 0.05, count=4, direction=direction)
        result = bootstrap_intervals(gram, groups, resamples=400, level=0.9)
        for measure, expected in (("gd", truth), ("gm", 1.0), ("index", truth.sum(axis=1))):
            bounds = getattr(result, f"{measure}_simultaneous")
            covered[measure].append(((bounds.low <= expected) & (bounds.high >= expected)).all())
        rejected.append((result.gd_p_values[~np.eye(4, dtype=bool)] <= 0.1).any())
    for hits in covered.values():
        assert 0.84 <= np.mean(hits) <= 0.96
    assert np.mean(rejected) == 1 if direction else 0.04 <= np.mean(rejected) <= 0.16


@pytest.mark.parametrize("lengths", LENGTHS[:3])
def test_a_mean_of_ratios_is_flagged_where_it_is_heavy_tailed(lengths):
    rng = np.random.default_rng(4)
    wide = [len(unstable_groups(*draw(rng, 0.05, 200, lengths=lengths))) for _ in range(40)]
    narrow = [len(unstable_groups(*draw(rng, 0.05, 1000, lengths=lengths))) for _ in range(40)]
    assert np.mean(np.array(wide) > 0) == 1
    assert np.max(narrow) == 0


def test_what_is_flagged_is_spread_out():
    """The spread of readings, relative to that of the ratio of means, which has a finite variance."""
    rng = np.random.default_rng(5)

    def spread(dimension):
        readings = {"leave_one_out": [], "ratio_of_means": []}
        for _ in range(150):
            gram, groups = draw(rng, 0.05, dimension)
            for estimator, values in readings.items():
                values.append(gradient_direction(gram, groups, estimator)[0, 1])
        return np.std(readings["leave_one_out"]) / np.std(readings["ratio_of_means"])

    assert spread(200) > 1.5
    assert spread(1000) < 1.15
