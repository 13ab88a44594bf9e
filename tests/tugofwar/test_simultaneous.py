"""Oracles: scipy's Student quantiles, numpy's quantiles, Sidak's bound for independent cells, Monte Carlo."""

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tugofwar.errors import UserError
from tugofwar.simultaneous import (
    adjusted_p_values,
    expanded,
    narrowed,
    noise_between,
    noise_within,
    percentile_bounds,
    simultaneous_bounds,
)
from tugofwar.strata import build_groups

MANY = 10**9


@pytest.mark.parametrize("batches", [6, 10, 30, 1000])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_expansion_is_students_quantile(batches, level):
    normal, student = stats.norm.ppf((1 + level) / 2), stats.t.ppf((1 + level) / 2, batches - 1)
    assert expanded(normal, batches) == pytest.approx(student * np.sqrt(batches / (batches - 1)), rel=0.01)


def test_percentiles_of_many_batches_are_plain_percentiles():
    values = np.random.default_rng(0).normal(size=(501, 2, 3))
    bounds = percentile_bounds(values, 0.9, MANY)
    np.testing.assert_allclose(bounds.low, np.quantile(values, 0.05, axis=0), atol=1e-6)
    np.testing.assert_allclose(bounds.high, np.quantile(values, 0.95, axis=0), atol=1e-6)


def test_cells_of_fewer_batches_get_wider_intervals():
    values = np.repeat(np.random.default_rng(1).normal(size=(2000, 1)), 3, axis=1)
    bounds = percentile_bounds(values, 0.9, np.array([5, 20, MANY]))
    assert (np.diff(bounds.high - bounds.low) < 0).all()
    alone = percentile_bounds(values[:, :1], 0.9, 5)
    assert bounds.low[0] == alone.low[0]


def test_the_bootstrap_of_a_mean_of_few_covers_like_students_interval():
    rng = np.random.default_rng(2)
    covered = []
    for _ in range(400):
        sample = rng.normal(size=8)
        means = sample[rng.integers(8, size=(600, 8))].mean(axis=1)
        bounds = percentile_bounds(means[:, np.newaxis], 0.9, 8)
        covered.append(bounds.low[0] <= 0 <= bounds.high[0])
    # The plain percentile interval covers 83 % here.
    assert 0.865 <= np.mean(covered) <= 0.935


def test_resamples_without_a_value_are_left_out_until_they_are_too_many():
    values = np.arange(1000.0)[:, np.newaxis].copy()
    values[:20] = np.nan
    assert percentile_bounds(values, 0.95, MANY).low[0] == pytest.approx(np.quantile(values[20:], 0.025), abs=1e-3)
    values[:30] = np.nan
    with pytest.raises(UserError, match="does not exist in 3%"):
        percentile_bounds(values, 0.95, MANY)


@pytest.mark.parametrize("cells", [1, 10, 100])
def test_independent_cells_meet_sidak(cells):
    replicates = np.random.default_rng(3).normal(size=(20_000, cells)) * np.linspace(1, 5, cells)
    bounds = simultaneous_bounds(replicates, np.zeros(cells), 0.9, MANY)
    sidak = NormalDist().inv_cdf((1 + 0.9 ** (1 / cells)) / 2)
    np.testing.assert_allclose(bounds.high, sidak * np.linspace(1, 5, cells), rtol=0.03)
    np.testing.assert_allclose(bounds.low, -bounds.high, rtol=1e-12)


def test_equal_cells_cost_nothing():
    replicates = np.repeat(np.random.default_rng(4).normal(size=(500, 1)), 50, axis=1)
    together = simultaneous_bounds(replicates, np.zeros(50), 0.9, 30)
    alone = simultaneous_bounds(replicates[:, :1], np.zeros(1), 0.9, 30)
    np.testing.assert_allclose(together.high, alone.high[0], rtol=1e-12)


@given(seed=st.integers(0, 2**31), cells=st.integers(1, 8), batches=st.integers(2, 200))
def test_p_values_agree_with_the_intervals(seed, cells, batches):
    rng = np.random.default_rng(seed)
    replicates = rng.normal(size=(400, cells)) @ rng.normal(size=(cells, cells))
    point = 3 * rng.normal(size=cells)
    replicates += point
    sizes = rng.integers(2, batches + 1, size=cells)
    bounds = simultaneous_bounds(replicates, point, 0.9, sizes)
    p_values = adjusted_p_values(replicates, point, 0.0, sizes)
    excluded = (bounds.low > 0) | (bounds.high < 0)
    # One resample's worth of leeway on either side, which the quantile's definition takes.
    assert excluded[p_values < 0.1 - 2 / 400].all()
    assert not excluded[p_values > 0.1 + 2 / 400].any()
    assert (p_values >= 1 / 401).all()
    assert (p_values <= 1).all()


def test_p_values_are_uniform_in_the_smallest_under_the_null():
    rng = np.random.default_rng(5)
    replicates = rng.normal(size=(2000, 12))
    points = rng.normal(size=(600, 12))
    smallest = np.array([adjusted_p_values(replicates + point, point, 0.0, MANY).min() for point in points])
    for level in (0.05, 0.1, 0.5):
        assert np.mean(smallest <= level) == pytest.approx(level, abs=3.5 * np.sqrt(level * (1 - level) / 600))


def test_a_cell_without_spread_is_known():
    replicates = np.random.default_rng(6).normal(size=(300, 3))
    replicates[:, 1:] = 1.0 + 1e-15
    point = np.array([0.0, 1.0, 1.0])
    bounds = simultaneous_bounds(replicates, point, 0.9, 20)
    assert bounds.low[1] == bounds.high[1] == 1
    alone = simultaneous_bounds(replicates[:, :1], point[:1], 0.9, 20)
    assert bounds.high[0] == pytest.approx(alone.high[0], rel=1e-12)
    assert adjusted_p_values(replicates, point, 0.0, 20)[1:].tolist() == [0, 0]
    assert adjusted_p_values(replicates, point, 1.0, 20)[1:].tolist() == [1, 1]


def test_a_resample_without_a_value_counts_as_extreme():
    point = np.array([50.0, 60.0])
    replicates = np.random.default_rng(7).normal(size=(199, 2)) + point
    replicates[:50, 0] = np.nan
    assert adjusted_p_values(replicates, point, 0.0, 20).tolist() == [51 / 200, 51 / 200]


def test_narrowing_takes_out_twice_the_pair_noise():
    replicates = np.random.default_rng(8).normal(size=(1000, 3)) + 5
    point = np.full(3, 5.0)
    variance = replicates.var(axis=0)
    after = narrowed(replicates, point, variance * [0, 0.25, 9])
    np.testing.assert_allclose(after.var(axis=0) / variance, [1, 0.5, 1 / 3], rtol=1e-9)


def noise_products(rng, sizes, width=40):
    """Products of pure noise: pairs vary by ``1 / width``, batches alone add nothing."""
    rows = rng.normal(size=(sum(sizes), width)) / width**0.5
    return rows @ rows.T


def test_pair_noise_is_the_variance_of_means_of_pure_noise():
    rng = np.random.default_rng(9)
    datasets = list("aaaaabbbbbbbbccccccc")
    one, two = build_groups({"ab": range(13), "c": range(13, 20)}, 20, datasets)
    weights_one, weights_two = one.weights(20), two.weights(20)
    between, within, estimates = [], [], []
    for _ in range(3000):
        products = noise_products(rng, [20])
        between.append(weights_one @ products @ weights_two)
        inner = [products[np.ix_(s.rows, s.rows)] for s in one.strata]
        own = sum((block.sum() - np.trace(block)) / (len(block) * (len(block) - 1)) for block in inner)
        within.append((own + 2 * products[:5, 5:13].mean()) / 4)
        estimates.append((noise_between(products, one, two), noise_within(products, one)))
    expected_between, expected_within = np.mean(estimates, axis=0)
    assert np.var(between) == pytest.approx(expected_between, rel=0.1)
    assert np.var(within) == pytest.approx(expected_within, rel=0.1)


def test_batch_effects_are_no_pair_noise():
    rows, columns = np.random.default_rng(10).normal(size=(2, 9))
    # The squared norms on the diagonal must not count either.
    products = rows[:, np.newaxis] + columns + np.diag(np.arange(9.0))
    (group,) = build_groups({"a": range(9)}, 9)
    other = build_groups({"b": range(4, 9)}, 9)[0]
    mine = build_groups({"a": range(4)}, 9)[0]
    assert noise_between(products, mine, other) == pytest.approx(0, abs=1e-25)
    assert noise_within(products, group) == pytest.approx(0, abs=1e-25)
    assert noise_between(products, group, other) == 0, "groups that share batches are left as they are"
