"""The jackknife of a mean is its standard error, stratum by stratum."""

import numpy as np
import pytest

from tugofwar.features.jackknife import jackknife_interval

FREE = (-np.inf, np.inf)


def left_out_means(values):
    return (values.sum() - values) / (len(values) - 1)


def test_the_interval_of_a_mean_is_students():
    values = np.random.default_rng(0).normal(size=12)
    found = jackknife_interval(values.mean(), left_out_means(values), np.zeros(12, int), 0.95, FREE)
    reach = 2.200985 * values.std(ddof=1) / np.sqrt(12)  # Student's t with 11 degrees of freedom
    assert found.high - found.value == pytest.approx(reach, rel=1e-3)
    assert found.value - found.low == pytest.approx(reach, rel=1e-3)


def test_strata_do_not_differ_by_chance():
    values = np.random.default_rng(1).normal(size=40) + np.repeat([0, 100], 20)
    strata = np.repeat([0, 1], 20)
    found = jackknife_interval(values.mean(), left_out_means(values), strata, 0.95, FREE)
    expected = np.sqrt(sum(values[strata == each].var(ddof=1) / 20 for each in (0, 1))) / 2
    assert found.high - found.value == pytest.approx(2.03 * expected, rel=0.04)


def test_ends_stay_within_the_measures_bounds_and_a_constant_has_no_width():
    values = np.array([1.0, 1, 1, 1, 0, 1])
    found = jackknife_interval(values.mean(), left_out_means(values), np.zeros(6, int), 0.95, (0, 1))
    assert found.high == 1
    assert 0 < found.low < found.value
    same = jackknife_interval(0.5, np.full(4, 0.5), np.array([0, 0, 1, 1]), 0.95, (0, 1))
    assert (same.low, same.high) == (0.5, 0.5)


def test_a_stratum_of_one_adds_nothing():
    values = np.random.default_rng(2).normal(size=10)
    one = jackknife_interval(0.0, values, np.zeros(10, int), 0.95, FREE)
    other = jackknife_interval(0.0, np.append(values, 50), np.append(np.zeros(10, int), 1), 0.95, FREE)
    assert (one.low, one.high) == (other.low, other.high)
