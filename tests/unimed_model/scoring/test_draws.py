"""Bootstrap draws against the closed forms of what they simulate."""

from itertools import islice

import numpy as np
import pytest

from unimed_model.errors import UserError
from unimed_model.scoring import Tally
from unimed_model.scoring.bleu import COLUMNS, corpus_bleu
from unimed_model.scoring.draws import (
    REPLICATES,
    aligned,
    bootstrap_counts,
    cluster_sums,
    mean_draws,
    run_draws,
    seed_deviations,
)

from .made import made

BLEU_1 = ("bleu_1", "paper")


def test_every_replicate_draws_as_many_clusters_as_there_are():
    counts = np.concatenate(list(bootstrap_counts(7, "D", 0)))
    assert counts.shape == (REPLICATES, 7)
    assert (counts.sum(axis=1) == 7).all()


def test_counts_are_multinomial():
    counts = np.concatenate(list(bootstrap_counts(10, "D", 0, replicates=20_000)))
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=0.03)
    np.testing.assert_allclose(counts.var(axis=0), 0.9, atol=0.05)  # n p (1 - p)
    assert np.cov(counts.T)[0, 1] == pytest.approx(-0.1, abs=0.03)


def test_memory_is_bounded_whatever_the_number_of_clusters():
    first = next(islice(bootstrap_counts(1_000_000, "D", 0), 1))
    assert first.size <= 4_000_000


def test_datasets_are_drawn_independently_and_runs_of_one_alike():
    one, same, other = (next(bootstrap_counts(50, name, 0)) for name in ("D", "D", "E"))
    np.testing.assert_array_equal(one, same)
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.02


def test_sums_of_clusters():
    tally = made([1, 2, 4, 8], clusters=["b", "a", "b", "c"])
    np.testing.assert_array_equal(cluster_sums(tally, tally.of(*BLEU_1)), [[2, 1], [5, 2], [8, 1]])


def test_draws_of_a_mean_have_its_standard_error():
    scores = np.random.default_rng(0).random(400)
    draws = run_draws([made(scores)], [BLEU_1], 0)[BLEU_1]
    assert draws.shape == (1, REPLICATES)
    assert draws.mean() == pytest.approx(scores.mean(), abs=0.002)
    assert draws.std() == pytest.approx(scores.std() / 20, rel=0.06)


def test_copies_of_a_sample_within_its_image_change_nothing():
    scores = np.random.default_rng(1).random(60)
    single = run_draws([made(scores, clusters=range(60))], [BLEU_1], 0)[BLEU_1]
    copied = run_draws([made(np.repeat(scores, 5), clusters=np.repeat(np.arange(60), 5))], [BLEU_1], 0)[BLEU_1]
    # images sort by name, which is the same order in both
    np.testing.assert_allclose(single, copied)


def test_the_score_of_a_corpus_is_drawn_from_sums_and_not_from_scores_of_samples():
    source = np.random.default_rng(2)
    proposed = source.integers(5, 30, 40)
    values = np.zeros((40, COLUMNS))
    values[:, 0], values[:, 4] = source.binomial(proposed, 0.5), proposed
    values[:, -2:] = proposed[:, None]
    names = tuple(f"{number:02}" for number in range(40))
    tally = Tally("D", "RG", names, names, {("bleu_1", "released"): values})
    draws = run_draws([tally], [("bleu_1", "released")], 0)["bleu_1", "released"][0]
    counts = np.concatenate(list(bootstrap_counts(40, "D", 0)))
    for replicate in range(5):
        repeated = np.repeat(values, counts[replicate].astype(int), axis=0)
        assert draws[replicate] == pytest.approx(float(corpus_bleu(repeated.sum(axis=0), 1)), abs=1e-12)


def test_several_metrics_are_drawn_as_each_would_be_alone():
    tally = made(np.random.default_rng(3).random(30))
    tally.statistics["f1", "paper"] = tally.of(*BLEU_1) ** 2
    together = run_draws([tally], [BLEU_1, ("f1", "paper")], 0)
    np.testing.assert_allclose(together["f1", "paper"], run_draws([tally], [("f1", "paper")], 0)["f1", "paper"])


def test_deviations_over_seeds_are_t_with_the_standard_error_of_the_mean():
    values = [0.2, 0.3, 0.7]
    deviations = seed_deviations(values, "arm", 0)
    scale = np.std(values, ddof=1) / np.sqrt(3)
    # quantiles of Student's t with two degrees of freedom: 0.816 at 75 %, 2.920 at 95 %
    assert np.quantile(np.abs(deviations) / scale, [0.5, 0.9]) == pytest.approx([0.816, 2.920], rel=0.12)
    assert (seed_deviations([0.4], "arm", 0) == 0).all()


def test_deviations_of_one_arm_keep_what_is_common_to_its_datasets():
    a, b = seed_deviations([1, 2, 3], "arm", 0), seed_deviations([10, 20, 30], "arm", 0)
    np.testing.assert_allclose(10 * a, b)
    other = seed_deviations([1, 2, 3], "another", 0)
    assert abs(np.corrcoef(np.sign(a), np.sign(other))[0, 1]) < 0.1


def test_runs_that_agree_are_drawn_as_one_run():
    tally = made(np.random.default_rng(4).random(50))
    one, three = (mean_draws([tally] * runs, [BLEU_1], 0)[BLEU_1] for runs in (1, 3))
    np.testing.assert_allclose(one, three)


def test_runs_are_put_into_one_order_of_samples():
    first = made([0.1, 0.2, 0.3], ids="abc", clusters="xyy")
    second = made([3, 1, 2], ids="cab", clusters="yxy")
    reordered = aligned([first, second])[1]
    assert reordered.ids == first.ids
    assert list(reordered.of(*BLEU_1)[:, 0]) == [1, 2, 3]


def test_a_run_that_tells_no_images_takes_those_of_one_that_does():
    told = made([1, 2, 3], ids="abc", clusters="xyy")
    untold = made([3, 1, 2], ids="cab", clusters=["sample c", "sample a", "sample b"])
    for runs in ([told, untold], [untold, told]):
        first, second = aligned(runs)
        assert first.clusters == second.clusters
        assert dict(zip(first.ids, first.clusters, strict=True)) == {"a": "x", "b": "y", "c": "y"}
    assert untold.clusters == ("sample c", "sample a", "sample b")


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (made([1, 2], ids="ab"), "only one of two compared runs has the samples 'c'"),
        (made(range(9), ids="abcdefghi"), "'d', 'e', 'f' and 3 more"),
        (made([1, 2, 3], ids="abc", clusters="xyz"), "sample 'a' belongs to image 'a' in one run, 'x' in another"),
        (made([1, 2, 3], ids="abc", dataset="E"), r"E \(VQA\) cannot be compared with D \(VQA\)"),
    ],
)
def test_runs_on_other_samples_are_one_sentence(other, said):
    with pytest.raises(UserError, match=said):
        aligned([made([1, 2, 3], ids="abc"), other])


def test_no_run_is_one_sentence():
    with pytest.raises(UserError, match="no run"):
        aligned([])
