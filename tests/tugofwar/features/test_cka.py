"""Debiased linear CKA against the formula on whole kernels, and its interval against simulated samples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tugofwar.features import distances
from tugofwar.features.cka import linear_cka


def hsic(one, other):
    """Song et al. (2012), equation 5, on whole kernels."""
    n = len(one)
    one, other = (kernel - np.diag(np.diag(kernel)) for kernel in (one, other))
    ones = np.ones(n)
    corrected = np.trace(one @ other) + one.sum() * other.sum() / ((n - 1) * (n - 2))
    return (corrected - 2 / (n - 2) * ones @ one @ other @ ones) / (n * (n - 3))


def cka(x, y):
    one, other = x @ x.T, y @ y.T
    return hsic(one, other) / np.sqrt(hsic(one, one) * hsic(other, other))


def plain_cka(x, y):
    """The biased estimator, from centred features."""
    x, y = x - x.mean(0), y - y.mean(0)
    return np.linalg.norm(x.T @ y) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))


def pair(rng, samples=20, before=8, after=5, noise=0.5, mixing=None):
    x = rng.normal(size=(samples, before))
    mixing = np.random.default_rng(7).normal(size=(before, after)) if mixing is None else mixing
    return x, np.tanh(x @ mixing / 2) + noise * rng.normal(size=(samples, after))


@pytest.mark.parametrize("cells", [4_000_000, 50])
def test_value_and_interval_are_those_of_whole_kernels(monkeypatch, cells):
    monkeypatch.setattr(distances, "_CELLS", cells)
    x, y = pair(np.random.default_rng(0))
    names = ["a"] * 12 + ["b"] * 8
    found = linear_cka(x + 2, y * 1e4, names)
    assert found.value == pytest.approx(cka(x, y))
    left_out = np.arctanh([cka(np.delete(x, row, 0), np.delete(y, row, 0)) for row in range(20)])
    parts = (left_out[:12], left_out[12:])
    deviation = np.sqrt(sum((len(part) - 1) * part.var() for part in parts))
    low, high = np.arctanh([found.low, found.high])
    assert (low + high) / 2 == pytest.approx(np.arctanh(found.value))
    assert (high - low) / 2 / deviation == pytest.approx(2.1, abs=0.05)  # Student's t with about 17 degrees of freedom


def test_rotated_scaled_and_moved_features_are_the_same():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(15, 6))
    rotation = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    found = linear_cka(x, 3 * x @ rotation + 7, ["a"] * 15)
    assert found.value == pytest.approx(1)
    assert found.low == found.value == found.high


def test_unrelated_wide_features_are_near_0_where_the_plain_estimator_is_near_1():
    rng = np.random.default_rng(2)
    draws = [(rng.normal(size=(20, 500)), rng.normal(size=(20, 400))) for _ in range(30)]
    assert np.mean([plain_cka(x, y) for x, y in draws]) > 0.9
    assert abs(np.mean([linear_cka(x, y, ["a"] * 20).value for x, y in draws])) < 0.05


@given(st.integers(0, 10**6), st.integers(5, 12), st.integers(1, 9), st.integers(1, 9))
def test_it_is_symmetric_and_lies_between_minus_1_and_1(seed, samples, before, after):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(samples, before)), rng.normal(size=(samples, after))
    names = ["a"] * samples
    one, other = linear_cka(x, y, names), linear_cka(y, x, names)
    assert -1 <= one.low <= one.value <= one.high <= 1
    assert one.value == pytest.approx(other.value, abs=1e-9)


def test_what_has_no_cka_is_none():
    x = np.random.default_rng(3).normal(size=(12, 4))
    assert linear_cka(x[:4], x[:4], ["a"] * 4) is None
    assert linear_cka(x, np.ones((12, 3)), ["a"] * 12) is None
    one_apart = np.ones((12, 3))
    one_apart[4] = 2
    assert linear_cka(x, one_apart, ["a"] * 12) is None


def test_the_interval_covers():
    rng = np.random.default_rng(4)
    mixing = rng.normal(size=(30, 20)) / 4
    names = ["a"] * 20 + ["b"] * 20
    found = [linear_cka(*pair(rng, 40, 30, 20, 1.0, mixing), names) for _ in range(400)]
    values = np.array([each.value for each in found])
    truth = np.tanh(np.arctanh(values).mean())
    covered = np.mean([each.low <= truth <= each.high for each in found])
    assert covered >= 0.92
    assert np.mean([each.high - each.low for each in found]) < 1.5 * 3.92 * values.std()
