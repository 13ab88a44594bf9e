"""Oracles: interference() itself, closed forms, brute force over regions, and simulated pairs of known truth."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tugofwar as tow
from tugofwar.differences.alignment import align, same_batches
from tugofwar.differences.bounded import normalised_change, similarity_change, unbounded_normalised
from tugofwar.differences.changes import draw_for_both, pair_noise
from tugofwar.errors import UserError
from tugofwar.metrics import gradient_direction
from tugofwar.resampling import ratios_by_group
from tugofwar.simultaneous import noise_between, noise_within
from tugofwar.strata import build_groups

from .run_pairs import draw_pair, mean_directions, measures_of, recording_of

MEASURES = ("gd", "gm", "index", "index_normalised")
SIZES = np.array([1, 1.5, 2, 1, 3, 1.2])


def some_pair(seed=0, count=3, batches=20, shared=0.7, sizes_b=None):
    means, sizes = mean_directions(count), SIZES[:count]
    both = [sizes, sizes if sizes_b is None else np.array(sizes_b)]
    return draw_pair(np.random.default_rng(seed), [means, means], both, batches, 0.2, shared)


def test_both_values_are_those_of_each_recording_alone():
    a, b = some_pair()
    found = tow.difference(a, b, resamples=50)
    for measure in MEASURES:
        change = getattr(found, measure)
        for values, recording in ((change.a, a), (change.b, b)):
            expected = getattr(tow.interference(recording, resamples=0), measure)
            np.testing.assert_allclose(values, expected, rtol=1e-10)
        np.testing.assert_allclose(change.difference, change.b - change.a, atol=1e-12)
        assert ((change.interval.low <= change.difference) & (change.difference <= change.interval.high)).all(axis=None)


@pytest.mark.parametrize("estimator", ["ratio_of_means", "leave_one_out"])
@pytest.mark.parametrize("scale", [1.0, 7.3])
def test_a_run_differs_from_itself_in_nothing_at_any_scale(scale, estimator):
    gradients = np.random.default_rng(1).normal(size=(30, 9)) + 1
    names = np.repeat(["x", "y", "z"], 10)
    a, b = recording_of(gradients, names), recording_of(scale * gradients, names)
    found = tow.difference(a, b, estimator=estimator, resamples=100, paired=True)
    for measure in MEASURES:
        change = getattr(found, measure)
        for table in (change.difference, *change.interval, *change.simultaneous):
            assert abs(table).max(axis=None) < 1e-9
        assert (change.p_values == 1).all(axis=None)
        assert (change.verdicts() == "not sure").all(axis=None)


def test_the_order_of_datasets_is_that_of_the_first():
    a, b = some_pair()
    order = [*range(40, 60), *range(20), *range(20, 40)]
    gram = b.gram[np.ix_(order, order)]
    shuffled = replace(
        b,
        upper_triangles={"shared": gram[np.triu_indices(60)]},
        datasets=[b.datasets[row] for row in order],
    )
    expected, found = tow.difference(a, b, resamples=50), tow.difference(a, shuffled, resamples=50)
    for measure in MEASURES:
        np.testing.assert_allclose(
            getattr(found, measure).interval.low, getattr(expected, measure).interval.low, rtol=1e-9
        )


def test_exchanging_the_runs_changes_signs_only():
    a, b = some_pair(seed=3)
    one, other = (tow.difference(*pair, resamples=80, paired=True) for pair in ((a, b), (b, a)))
    for measure in MEASURES:
        forth, back = getattr(one, measure), getattr(other, measure)
        np.testing.assert_allclose(forth.interval.low, -back.interval.high, atol=1e-9)
        np.testing.assert_allclose(forth.simultaneous.high, -back.simultaneous.low, atol=1e-9)
        np.testing.assert_allclose(forth.p_values, back.p_values, atol=1e-12)


def test_what_both_runs_share_cancels_only_when_they_are_paired():
    a, b = some_pair(seed=4, shared=0.95)
    widths = {}
    for paired in (True, False):
        low, high = tow.difference(a, b, resamples=300, paired=paired).gd.interval
        widths[paired] = (high - low).to_numpy()[~np.eye(3, dtype=bool)].mean()
    assert widths[True] < 0.5 * widths[False]


def test_draws_are_rejected_for_both_runs_alike():
    idle = [np.diag([1.0, 1, 0, 0, 0, 0]), np.diag([0.0, 0, 0, 0, 1, 1])]
    members = build_groups({"x": range(6)}, 6)
    first, second = (np.concatenate(draws, axis=1) for draws in draw_for_both(idle, members, 40, 0, True))
    assert (first == second).all()
    for gram in idle:
        assert ((first[np.diagonal(gram) > 0] > 0).sum(axis=0) == 2).all()
    apart = [np.concatenate(draws, axis=1) for draws in draw_for_both(idle, members, 40, 0, False)]
    assert (apart[0] != apart[1]).any()
    assert ((apart[1][4:] > 0).sum(axis=0) == 2).all()


@pytest.mark.parametrize("estimator", ["ratio_of_means", "leave_one_out"])
def test_pair_noise_of_a_difference_is_that_of_the_difference_of_the_ratios(estimator):
    a, b = some_pair(seed=5, batches=12)
    grams = [a.gram, b.gram]
    members = build_groups(a.rows, len(a))
    gd_a, gd_b = (gradient_direction(gram, a.rows, estimator) for gram in grams)
    found = pair_noise(grams, members, estimator, paired=True).direction(gd_a, gd_b)
    ratios_a, ratios_b = (list(ratios_by_group(gram, members, estimator)) for gram in grams)
    for i, row in enumerate(members):
        for j, column in enumerate(members):
            between = noise_between(ratios_b[i] - ratios_a[i], row, column)
            within = noise_within(gd_b[i, j] * ratios_b[i] - gd_a[i, j] * ratios_a[i], row)
            assert found[i, j] == pytest.approx(0 if i == j else between + within, rel=1e-9, abs=1e-15)


@given(seed=st.integers(0, 2**31), size=st.sampled_from([0.0, 0.05, 0.5]))
def test_the_interval_of_gm_is_the_range_over_an_ellipse(seed, size):
    rng = np.random.default_rng(seed)
    points = size * rng.normal(size=(2, 1, 1))
    draws = points + 0.1 * np.einsum("rk,kl->rl", rng.normal(size=(300, 2)), rng.normal(size=(2, 2)))[..., None, None]
    found = similarity_change((draws[:, 0], draws[:, 1]), (points[0], points[1]), 0.9, np.array([[30]]))
    low, high = found.simultaneous.low.item(), found.simultaneous.high.item()
    difference = 1 / np.cosh(points[1].item()) - 1 / np.cosh(points[0].item())
    assert low - 1e-12 <= difference <= high + 1e-12
    # A difference of 0 is inside exactly where it is not rejected, but for one resample's worth of leeway.
    if found.p_values.item() < 0.1 - 2 / 300:
        assert low > 0 or high < 0
    if found.p_values.item() > 0.1 + 2 / 300:
        assert low <= 0 <= high
    covariance = np.cov(draws[:, :, 0, 0].T)
    reach = 2.0 * np.linalg.cholesky(covariance + 1e-15 * np.eye(2))
    inside = points[:, 0, 0] + rng.normal(size=(2000, 2)).clip(-0.7, 0.7) * 0.7 @ reach.T / 2
    values = 1 / np.cosh(inside[:, 1]) - 1 / np.cosh(inside[:, 0])
    # Points within half the ellipse's size are inside of it, and so are their differences.
    assert (values >= low - 1e-3).all()
    assert (values <= high + 1e-3).all()


def test_opposite_ratios_are_no_difference_of_gm():
    a, b = some_pair(seed=6, count=2, sizes_b=[1.5, 1])
    found = tow.difference(a, b, resamples=200, paired=False).gm
    assert (found.verdicts() == "not sure").all(axis=None)
    assert found.interval.low.iloc[0, 1] < 0 < found.interval.high.iloc[0, 1]
    c, d = some_pair(seed=6, count=2, sizes_b=[1, 6])
    assert tow.difference(c, d, resamples=200, paired=False).gm.verdicts().iloc[0, 1] == "lower"


@given(st.lists(st.floats(-3, 5), min_size=1, max_size=6))
def test_the_unbounded_index_is_the_normalised_one_below_its_bound(values):
    index = np.array(values)
    if index.max() <= 1e-3:
        return  # a quotient by 1e-311 overflows
    np.testing.assert_allclose(np.minimum(1, unbounded_normalised(index)), index / index.max(), rtol=1e-9, atol=1e-9)


def test_the_largest_index_of_both_runs_is_not_different():
    rng = np.random.default_rng(7)
    points = (np.array([1.3, 0.5, 0.9]), np.array([1.8, 0.8, 0.9]))
    draws = tuple(point + 0.03 * rng.normal(size=(400, 3)) for point in points)
    found = normalised_change(draws, points, 0.95, 50)
    assert found.p_values[0] == 1
    assert found.simultaneous.low[0] == found.simultaneous.high[0] == 0
    assert found.p_values[1] < 0.01
    assert found.simultaneous.low[1] > 0.2
    assert found.p_values[2] > 0.5


@given(seed=st.integers(0, 2**31))
def test_the_interval_of_a_normalised_index_holds_every_pair_within_the_bounds(seed):
    rng = np.random.default_rng(seed)
    points = tuple(1 + 0.2 * rng.normal(size=(2, 1)))
    draws = tuple(point + 0.1 * rng.random() * rng.normal(size=(300, 1)) for point in points)
    found = normalised_change(draws, points, 0.9, 40)
    spread = [each.std() for each in (*draws, draws[1] - draws[0])]
    x = np.array(points)[:, 0] + rng.uniform(-1.5, 1.5, size=(3000, 2)) * spread[:2]
    near = abs((x[:, 1] - x[:, 0]) - (points[1] - points[0])) < 1.5 * spread[2]
    values = (np.minimum(1, x[:, 1]) - np.minimum(1, x[:, 0]))[near]
    assert values.min() >= found.simultaneous.low.item() - 0.02
    assert values.max() <= found.simultaneous.high.item() + 0.02


def test_a_denominator_of_uncertain_sign_in_either_run_is_not_judged():
    rng = np.random.default_rng(8)
    names = np.repeat(["x", "y", "z"], 20)
    steady = rng.normal(size=(60, 40)) + 1
    shaky = steady.copy()
    shaky[:20] = rng.normal(size=(20, 40))
    for pair in ((steady, shaky), (shaky, steady)):
        found = tow.difference(*(recording_of(each, names) for each in pair), resamples=100, paired=False)
        assert found.sign_uncertain == ("x",)
        assert (found.gd.p_values.loc["x"] == 1).all()
        assert found.index.p_values["x"] == 1
        if found.index_normalised is not None:
            assert (found.index_normalised.p_values == 1).all()
        assert found.gd.verdicts().loc["y", "x"] != "not sure"


def test_only_what_was_probed_alike_is_compared():
    gradients = np.random.default_rng(9).normal(size=(30, 5)) + 1
    names = ["x"] * 10 + ["y"] * 10 + ["z"] * 10
    a = recording_of(gradients, names, tasks={"x": "VQA", "y": "VQA", "z": "CLS"}, metadata={"batch_size": 4})
    fewer = recording_of(gradients[1:], names[1:], tasks=a.tasks, metadata=a.metadata)
    cases = [
        (fewer, "differ in numbers of batches of dataset 'x' \\(10 and 9\\)"),
        (replace(a, metadata={"batch_size": 8}), "differ in batch size \\(4 and 8\\)"),
        (replace(a, metadata={}), "differ in batch size \\(4 and unknown\\)"),
        (replace(a, tasks={**a.tasks, "z": "REC"}), "differ in tasks of dataset 'z' \\(CLS and REC\\)"),
        (replace(a, datasets=["other"] * 30), "no dataset in common: x, y, z and other"),
    ]
    for other, message in cases:
        with pytest.raises(UserError, match=message):
            tow.difference(a, other, resamples=10)
    two = recording_of(gradients[:4], ["x", "x", "y", "y"])
    with pytest.raises(UserError, match="Dataset 'x' has 2 batches, but a difference needs at least 3"):
        tow.difference(two, two, resamples=10)
    with pytest.raises(UserError, match="plugin"):
        tow.difference(a, a, estimator="plugin")


def test_a_dataset_that_one_run_lacks_is_left_out_and_named():
    gradients = np.random.default_rng(10).normal(size=(30, 5)) + 1
    names = ["x"] * 10 + ["y"] * 10 + ["z"] * 10
    idle = gradients.copy()
    idle[10:20] = 0
    a, b = recording_of(gradients, names), recording_of(idle, names)
    found = tow.difference(a, b, resamples=20)
    assert list(found.gd.difference.index) == ["x", "z"]
    assert (found.only_a, found.only_b) == (("y",), ())
    assert tow.difference(b, recording_of(gradients[10:], names[10:]), resamples=20).only_b == ("y",)


def test_pairing_is_read_from_what_the_recordings_say():
    gradients = np.random.default_rng(11).normal(size=(8, 5)) + 1
    names = ["x"] * 4 + ["y"] * 4
    drawn = {"seed": 1, "batch_size": 2, "with_replacement": False, "samples": {"x": 30, "y": 40, "text": 9}}
    own = {"setup": "study:setup", "setup_sha256": "ab", "seed": 0}

    def pairs(one, other):
        both = [recording_of(gradients, names, metadata=metadata) for metadata in (one, other)]
        aligned = align(*both)
        return same_batches(aligned.a, aligned.b)

    assert pairs(drawn, {**drawn, "weights_sha256": "other", "samples": {**drawn["samples"], "text": 8}})
    for changed in ({"seed": 2}, {"with_replacement": True}, {"samples": {"x": 30, "y": 41}}):
        assert not pairs(drawn, {**drawn, **changed})
    assert not pairs(drawn, {**drawn, "missing_images": {"y": 2}})
    assert pairs(own, own)
    assert not pairs(own, {**own, "setup_sha256": "cd"})
    assert not pairs({}, {})
    a = recording_of(gradients, names)
    assert not tow.difference(a, a, resamples=10).paired
    assert tow.difference(a, a, resamples=10, paired=True).paired


def rates(count, batches, cosine, paired, pairs, resamples, planted=False):
    """Per measure: share of pairs with a verdict on an unchanged cell, coverage of the single intervals, and share of
    the cells that truly changed by much and were found."""
    rng = np.random.default_rng([count, batches, int(100 * cosine), paired, planted])
    means, sizes = [mean_directions(count)] * 2, [SIZES[:count]] * 2
    if planted:
        means = [means[0], means[0].copy()]
        means[1][1, 0] *= -1
        sizes = [sizes[0], sizes[0] * np.where(np.arange(count) == 2, 2.5, 1)]
    truth = [measures_of(*each) for each in zip(means, sizes, strict=True)]
    wrong, covered, found = ({measure: [] for measure in MEASURES} for _ in range(3))
    for number in range(pairs):
        a, b = draw_pair(rng, means, sizes, batches, cosine, 0.7 if paired else 0.0)
        result = tow.difference(a, b, resamples=resamples, seed=number, paired=paired)
        for measure in MEASURES:
            change = getattr(result, measure)
            true = truth[1][measure] - truth[0][measure]
            sure = (change.verdicts() != "not sure").to_numpy()
            counted = np.ones_like(sure) if sure.ndim == 1 else ~np.eye(count, dtype=bool)
            low, high = (end.to_numpy() for end in change.interval)
            wrong[measure].append((sure & (abs(true) < 1e-12)).any())
            covered[measure].append(((low <= true + 1e-12) & (true - 1e-12 <= high))[counted].mean())
            found[measure].append(sure[abs(true) > 0.3].mean() if (abs(true) > 0.3).any() else np.nan)
    return tuple({measure: float(np.mean(each[measure])) for measure in MEASURES} for each in (wrong, covered, found))


# 5 % of 200 pairs plus three binomial standard errors, 3 sqrt(0.05 0.95 / 200) = 4.6 %.
MOST = 0.096


def check_absent(wrong, covered):
    assert max(wrong.values()) <= MOST
    # GM and the normalised index may be below the nominal rate: a bound costs power. The others are near it.
    assert min(wrong["gd"], wrong["index"]) >= 0.005
    assert min(covered.values()) >= 0.91
    assert max(covered["gd"], covered["index"]) <= 0.985


@pytest.mark.parametrize("paired", [True, False])
def test_absent_differences_of_few_datasets_are_found_in_5_percent_of_200_pairs(paired):
    wrong, covered, _ = rates(3, 20, 0.3, paired, pairs=200, resamples=200)
    check_absent(wrong, covered)


@pytest.mark.slow
@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize(("count", "batches", "cosine"), [(3, 20, 0.5), (4, 30, 0.2), (6, 50, 0.05)])
def test_absent_differences_are_found_in_5_percent_of_200_pairs(count, batches, cosine, paired):
    wrong, covered, _ = rates(count, batches, cosine, paired, pairs=200, resamples=300)
    check_absent(wrong, covered)


@pytest.mark.parametrize("paired", [True, False])
def test_planted_differences_are_found_and_nothing_else_is(paired):
    wrong, covered, found = rates(4, 40, 0.3, paired, pairs=60, resamples=200, planted=True)
    assert found["gd"] > 0.99
    assert found["gm"] > 0.9
    # 5 % of 60 pairs plus three binomial standard errors.
    assert max(wrong.values()) <= 0.135
    assert min(covered.values()) >= 0.9
