"""Intervals and the null against simulated routers whose truth is known."""

import numpy as np
import pytest

from tugofwar.routing.capture import SampleSums
from tugofwar.routing.intervals import (
    curved_bounds,
    dataset_means,
    information_null,
    levels_of,
    mean_bounds,
    p_value,
    resampled_means,
)
from tugofwar.routing.measures import jensen_shannon, mutual_information

ALIKE = dict.fromkeys("abc", (0.5, 0.3, 0.2))
APART = {"a": (0.6, 0.2, 0.2), "b": (0.2, 0.6, 0.2), "c": (0.4, 0.4, 0.2)}


def simulated(truth, seed, samples=40, spread=20.0, tokens=4):
    """Samples whose weights scatter about each dataset's truth; tokens of one sample are alike."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, weights in truth.items():
        rows = rng.dirichlet(np.multiply(spread, weights), size=samples)
        found[name] = of_rows(rows, tokens)
    return found


def of_rows(rows, tokens=4):
    rows = np.asarray(rows, dtype=float)
    largest = tokens * np.eye(rows.shape[1])[rows.argmax(axis=1)]
    logarithms = np.log2(rows, out=np.zeros_like(rows), where=rows > 0)
    entropy = -tokens * (rows * logarithms).sum(axis=1)
    return SampleSums(tokens * rows, largest, entropy, np.full(len(rows), float(tokens)))


def test_levels_pool_datasets_with_equal_weight():
    levels = {each.level: each for each in levels_of(["a", "b", "c"], {"a": "VQA", "b": "RG", "c": "VQA"})}
    assert levels["task"].names == ("VQA", "RG")
    np.testing.assert_array_equal(levels["task"].mixing(["a", "b", "c"]), [[0.5, 0, 0.5], [0, 1, 0]])
    np.testing.assert_allclose(levels["all"].mixing(["a", "b", "c"]), [[1 / 3] * 3])
    assert [each.level for each in levels_of(["a"], {})] == ["all", "dataset"]


def test_means_are_over_tokens_and_pooling_is_over_datasets():
    samples = {"a": of_rows([[1, 0], [0, 1], [0, 1]], tokens=2), "b": of_rows([[0.5, 0.5]], tokens=7)}
    means = dataset_means(samples)
    np.testing.assert_allclose(means.weights, [[1 / 3, 2 / 3], [0.5, 0.5]])
    np.testing.assert_allclose(means.entropy, [0, 1])
    np.testing.assert_allclose(means.at(np.array([[0.5, 0.5]])).weights, [[5 / 12, 7 / 12]])
    # a sample with more tokens counts for more
    longer = SampleSums(np.array([[9.0, 0], [0, 1]]), np.array([[9.0, 0], [0, 1]]), np.zeros(2), np.array([9.0, 1]))
    np.testing.assert_allclose(dataset_means({"a": longer}).weights, [[0.9, 0.1]])


def test_resamples_do_not_depend_on_the_other_datasets():
    both = simulated(APART, 3)
    alone = resampled_means({"b": both["b"]}, 50, 7)
    np.testing.assert_array_equal(resampled_means(both, 50, 7).weights[:, 1], alone.weights[:, 0])
    assert (resampled_means(both, 50, 8).weights != resampled_means(both, 50, 7).weights).any()


def test_intervals_of_weights_cover_the_truth_about_as_often_as_they_say():
    covered = []
    for seed in range(200):
        samples = simulated(APART, seed, samples=15)
        drawn = resampled_means(samples, 300, seed).weights
        bounds = mean_bounds(drawn, dataset_means(samples).weights, 0.95, np.full((3, 1), 15))
        covered.append((bounds.low <= list(APART.values())) & (list(APART.values()) <= bounds.high))
    assert 0.92 < np.mean(covered) < 0.98


def test_samples_of_one_unit_are_added_up_in_the_order_of_the_units():
    samples = of_rows([[1, 0], [0, 1], [0.5, 0.5], [0, 1]], tokens=2)
    pooled = samples.pooled(["x", "y", "x", "z"])
    np.testing.assert_allclose(pooled.weights, [[3, 1], [0, 2], [0, 2]])
    np.testing.assert_allclose(pooled.largest, [[4, 0], [0, 2], [0, 2]])
    np.testing.assert_allclose(pooled.entropy, [2, 0, 0])
    assert pooled.tokens.tolist() == [4, 2, 2]
    np.testing.assert_allclose(dataset_means({"a": pooled}).weights, dataset_means({"a": samples}).weights)


def test_intervals_cover_the_truth_when_questions_share_images_only_if_images_are_drawn_whole():
    covered = {"images": [], "samples": []}
    for seed in range(200):
        rng = np.random.default_rng(seed)
        images = rng.integers(1, 9, size=25)  # questions of each image, routed alike
        rows = np.repeat(rng.dirichlet(np.multiply(20.0, APART["a"]), size=25), images, axis=0)
        apart = of_rows(rows)
        together = apart.pooled(np.repeat(np.arange(25), images).tolist())
        for unit, samples in (("images", together), ("samples", apart)):
            drawn = resampled_means({"a": samples}, 300, seed).weights
            bounds = mean_bounds(drawn, dataset_means({"a": samples}).weights, 0.95, np.full((1, 1), len(samples)))
            covered[unit].append((bounds.low <= APART["a"]) & (APART["a"] <= bounds.high))
    assert 0.91 < np.mean(covered["images"]) < 0.98
    assert np.mean(covered["samples"]) < 0.75


@pytest.mark.parametrize("truth", [ALIKE, APART])
def test_intervals_of_information_and_divergence_cover_the_truth(truth):
    weights = np.array(list(truth.values()))
    measures = {mutual_information: np.log2(3), jensen_shannon: 1.0}
    covered = {measure: [] for measure in measures}
    for seed in range(150):
        samples = simulated(truth, seed, samples=30, spread=8.0)
        point, drawn = dataset_means(samples).weights, resampled_means(samples, 300, seed).weights
        for measure, largest in measures.items():
            value = measure(point)
            bounds = curved_bounds(measure(drawn), value, largest, 0.95, np.array(30))
            assert (bounds.low <= value).all()
            assert (value <= bounds.high).all()
            covered[measure].append(
                (bounds.low - 1e-12 <= measure(weights)) & (measure(weights) <= bounds.high + 1e-12)
            )
    for found in covered.values():
        assert np.mean(found) > 0.92


def test_the_null_finds_a_difference_and_does_not_find_an_absent_one():
    mixing = [np.eye(3)]

    def p_of(truth, seed):
        samples = simulated(truth, seed, samples=20)
        value = float(mutual_information(dataset_means(samples).weights))
        return p_value(value, information_null(samples, mixing, 200, seed)[0])

    assert all(p_of(APART, seed) < 0.01 for seed in range(10))
    false = np.mean([p_of(ALIKE, seed) <= 0.05 for seed in range(300)])
    assert false < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)
    assert false > 0.005


def test_routers_without_scatter_have_exact_numbers_and_no_chance():
    samples = {name: of_rows([row] * 5) for name, row in (("a", [1, 0]), ("b", [0, 1]))}
    point, drawn = dataset_means(samples).weights, resampled_means(samples, 100, 0).weights
    bounds = curved_bounds(mutual_information(drawn), mutual_information(point), 1.0, 0.95, np.array(5))
    assert (bounds.low, bounds.high) == (1, 1)
    alike = {name: of_rows([[0.5, 0.5]] * 5) for name in "ab"}
    (null,) = information_null(alike, [np.eye(2)], 50, 0)
    assert p_value(0.0, null) == 1
