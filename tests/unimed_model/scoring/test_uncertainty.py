"""Estimates, differences and Delta: worked numbers, coverage and rates of false alarms by simulation."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from unimed_model.errors import UserError
from unimed_model.scoring import PRIMARY, delta, difference, estimate, estimates
from unimed_model.scoring.permutation import permutation_p

from .made import constant, made

BLEU_1 = ("bleu_1", "paper")


def images(source, count, spread=0.15):
    """Scores of three questions on each image, correlated within it, and their images; their true mean is 0.5."""
    shared = source.normal(0, spread, count)
    scores = 0.5 + np.repeat(shared, 3) + source.normal(0, 0.1, 3 * count)
    return scores, np.repeat(np.arange(count), 3)


def test_an_estimate_says_on_what_it_rests():
    scores, clusters = images(np.random.default_rng(0), 40)
    found = estimate([made(scores, clusters)] * 2, *BLEU_1)
    assert (found.samples, found.clusters, found.runs) == (120, 40, 2)
    assert found.low < found.value < found.high
    assert found.value == pytest.approx(scores.mean())
    assert found.undefined is None


def test_an_estimate_is_the_same_whatever_the_order_of_samples_and_the_other_metrics():
    scores, clusters = images(np.random.default_rng(1), 30)
    tally = made(scores, clusters)
    order = np.random.default_rng(2).permutation(90)
    shuffled = made(scores[order], clusters[order], ids=[str(index) for index in order])
    assert estimate([tally], *BLEU_1).low == pytest.approx(estimate([shuffled], *BLEU_1).low)
    tally.statistics["f1", "paper"] = tally.of(*BLEU_1)
    assert estimates([tally])[BLEU_1] == estimate([tally], *BLEU_1)


def test_intervals_of_one_run_cover():
    source, hits = np.random.default_rng(3), 0
    for _ in range(300):
        found = estimate([made(*images(source, 40))], *BLEU_1)
        hits += found.low <= 0.5 <= found.high
    assert 0.90 <= hits / 300 <= 0.98


def test_intervals_of_three_seeds_cover_where_those_of_one_do_not():
    # seeds move the score by 0.04 (one standard deviation), images by 0.02
    source, covered, by_one = np.random.default_rng(4), 0, 0
    for _ in range(300):
        scores, clusters = images(source, 60)
        runs = [made(scores + source.normal(0, 0.04), clusters) for _ in range(3)]
        found, one = estimate(runs, *BLEU_1), estimate(runs[:1], *BLEU_1)
        covered += found.low <= 0.5 <= found.high
        by_one += one.low <= 0.5 <= one.high
    assert 0.91 <= covered / 300 <= 0.99
    assert by_one / 300 < 0.8


def test_an_interval_stays_within_the_bounds_of_the_score():
    found = estimate([constant(0.97), constant(0.99), constant(0.9)], *BLEU_1)
    assert found.high == 1
    assert 0 <= found.low < found.value


def test_a_single_image_has_a_score_and_no_interval():
    found = estimate([made([0.2, 0.4], clusters="aa")], *BLEU_1)
    assert found.value == pytest.approx(0.3)
    assert np.isnan([found.low, found.high]).all()
    assert found.undefined == "an interval needs samples of at least two images"


def test_a_difference_of_paired_answers_is_surer_than_its_sides():
    source = np.random.default_rng(5)
    scores, clusters = images(source, 60)
    better = scores + 0.03 + source.normal(0, 0.02, len(scores))
    found = difference([made(better, clusters)], [made(scores, clusters)], *BLEU_1)
    side = estimate([made(scores, clusters)], *BLEU_1)
    assert found.value == pytest.approx((better - scores).mean())
    assert found.high - found.low < (side.high - side.low) / 3
    assert found.low > 0
    assert found.p_value < 0.01


def test_the_permutation_test_agrees_with_all_exchanges():
    source = np.random.default_rng(6)
    a, b = made(source.random(8)), made(source.random(8))
    gains = a.of(*BLEU_1)[:, 0] - b.of(*BLEU_1)[:, 0]
    exact = np.mean([abs(gains @ signs) >= abs(gains.sum()) - 1e-12 for signs in product((-1, 1), repeat=8)])
    assert permutation_p(a, b, *BLEU_1) == pytest.approx(exact, abs=0.03)


def test_equal_answers_differ_by_nothing_and_a_p_value_is_never_0():
    scores, clusters = images(np.random.default_rng(7), 50)
    same = difference([made(scores, clusters)], [made(scores, clusters)], *BLEU_1)
    assert (same.value, same.low, same.high, same.p_value) == (0, 0, 0, 1)
    far = difference([made(scores + 5, clusters)], [made(scores, clusters)], *BLEU_1)
    assert far.p_value == pytest.approx(1 / 2001)


def test_swapping_sides_swaps_the_sign_alone():
    source = np.random.default_rng(8)
    a, b = made(source.random(40)), made(source.random(40))
    one, other = difference([a], [b], *BLEU_1), difference([b], [a], *BLEU_1)
    assert one.value == -other.value
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
    assert one.p_value == pytest.approx(other.p_value, abs=0.02)


def test_false_alarms_of_single_runs_are_as_rare_as_promised():
    source, alarms, outside = np.random.default_rng(9), 0, 0
    for _ in range(300):
        scores, clusters = images(source, 40)
        sides = [made(scores + source.normal(0, 0.1, len(scores)), clusters) for _ in range(2)]
        found = difference(sides[:1], sides[1:], *BLEU_1)
        alarms += found.p_value <= 0.05
        outside += not found.low <= 0 <= found.high
    assert 0.02 <= alarms / 300 <= 0.085
    assert outside / 300 <= 0.10


def test_false_alarms_of_three_seeds_are_no_more_than_promised():
    source, alarms = np.random.default_rng(10), 0
    for _ in range(300):
        scores, clusters = images(source, 40)
        arms = [[made(scores + source.normal(0, 0.05), clusters) for _ in range(3)] for _ in range(2)]
        found = difference(*arms, *BLEU_1)
        alarms += found.p_value <= 0.05
        assert (found.p_value <= 0.05) == (found.low > 0 or found.high < 0) or abs(found.p_value - 0.05) < 0.01
    # two arms, each a t of two degrees of freedom: on the safe side
    assert alarms / 300 <= 0.08


def test_images_that_only_one_side_tells_count_for_both():
    source = np.random.default_rng(5)
    images = [f"image {number // 4}" for number in range(80)]
    ours, theirs = source.random(80), source.random(80)
    told = difference([made(ours, clusters=images)], [made(theirs, clusters=images)], *BLEU_1)
    by_themselves = [f"sample {number}" for number in range(80)]
    untold = made(theirs, clusters=by_themselves)
    assert difference([made(ours, clusters=images)], [untold], *BLEU_1) == told
    turned = difference([untold], [made(ours, clusters=images)], *BLEU_1)
    assert (turned.clusters, turned.p_value) == (20, told.p_value)


def test_samples_that_only_one_side_has_are_named():
    with pytest.raises(UserError, match="D: only one of two compared runs has the samples '3'"):
        difference([constant(0.5)], [constant(0.5, samples=3)], *BLEU_1)


def test_a_score_that_one_side_lacks_is_named():
    other = replace(constant(0.5), statistics={}, unavailable={BLEU_1: "needs Java"})
    with pytest.raises(UserError, match=r"D has no bleu_1 \(paper\): needs Java"):
        difference([constant(0.5)], [other], *BLEU_1)


# Table 5: REC IoU on Slake-REC and SA-Med2D-REC and CLS accuracy, MLP baseline and CMoE without tokens
DATASETS = {
    "Slake-VQA": ("VQA", 79.81, 81.59), "Path-VQA": ("VQA", 56.48, 57.35),
    "Slake-REC": ("REC", 35.18, 36.76), "SA-Med2D-REC": ("REC", 16.26, 18.74),
    "Slake-REG": ("REG", 74.54, 76.07), "SA-Med2D-REG": ("REG", 58.42, 58.81),
    "MIMIC-CXR": ("RG", 18.55, 24.71), "MPx-Single": ("RG", 15.50, 15.42),
    "DermaMNIST": ("CLS", 76.26, 74.46), "OrganSMNIST": ("CLS", 73.64, 76.07),
}  # fmt: skip


def published(column, task=None):
    return {
        name: [constant(row[column] / 100, dataset=name, task=row[0])]
        for name, row in DATASETS.items()
        if task in (None, row[0])
    }


@pytest.mark.parametrize(
    ("task", "percent"), [("VQA", 1.9), ("REC", 9.9), ("REG", 1.4), ("RG", 16.4), ("CLS", 0.5), (None, 6.0)]
)
def test_delta_of_the_papers_own_table(task, percent):
    found = delta(published(2, task), published(1, task), PRIMARY.__getitem__, "paper")
    # from scores printed with two decimals
    assert found.value == pytest.approx(percent, abs=0.1)
    # every sample scores the same, so there is nothing to be unsure of
    assert found.low == pytest.approx(found.value) == pytest.approx(found.high)


def test_delta_has_the_interval_of_a_ratio():
    source = np.random.default_rng(11)
    base = 0.5 + source.normal(0, 0.1, 400)
    model = base * 1.1 + source.normal(0, 0.1, 400)
    found = delta({"D": [made(model)]}, {"D": [made(base)]}, PRIMARY.__getitem__, "paper")
    ratio = model.mean() / base.mean()
    # delta method: variance of (m - ratio b) / mean b
    error = 100 * (model - ratio * base).std() / base.mean() / 20
    assert found.value == pytest.approx(100 * (ratio - 1))
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_seeds_that_are_lucky_on_all_datasets_widen_delta():
    """The deviations of an arm's seeds are common to its datasets: their mean does not average them away."""
    names = ("D", "E", "F", "G")
    base = {name: [constant(0.5, dataset=name)] for name in names}
    together = {name: [constant(score, dataset=name) for score in (0.5, 0.52, 0.54)] for name in names}
    turns = {
        name: [constant(score, dataset=name) for score in np.roll((0.5, 0.52, 0.54), turn)]
        for turn, name in enumerate(names[:3])
    }
    lucky = delta(together, base, PRIMARY.__getitem__, "paper")
    mixed = delta(turns, {name: base[name] for name in turns}, PRIMARY.__getitem__, "paper")
    assert lucky.value == pytest.approx(mixed.value)
    assert lucky.high - lucky.low > 5
    assert mixed.high - mixed.low < 1e-6


def test_a_baseline_at_0_leaves_delta_undefined_and_says_where():
    models = {name: [constant(0.5, dataset=name)] for name in ("D", "E")}
    baselines = {"D": [constant(0.5)], "E": [constant(0.0, dataset="E")]}
    found = delta(models, baselines, PRIMARY.__getitem__, "paper")
    assert np.isnan([found.value, found.low, found.high]).all()
    assert found.undefined == "the baseline scores 0 on E"


def test_a_baseline_near_0_leaves_delta_without_an_interval():
    rare = np.zeros(60)
    rare[0] = 1
    found = delta({"D": [constant(0.5, samples=60)]}, {"D": [made(rare)]}, PRIMARY.__getitem__, "paper")
    assert np.isfinite(found.value)
    assert np.isnan([found.low, found.high]).all()
    assert "reaches 0" in found.undefined


def test_delta_needs_the_same_datasets():
    with pytest.raises(UserError, match="only one of model and baseline was evaluated on E"):
        delta(
            {"D": [constant(0.5)], "E": [constant(0.5, dataset="E")]},
            {"D": [constant(0.5)]},
            PRIMARY.__getitem__,
            "paper",
        )
    with pytest.raises(UserError, match="no dataset"):
        delta({}, {}, PRIMARY.__getitem__, "paper")
