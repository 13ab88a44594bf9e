"""Oracles: ``metrics.statistics_score`` with ``numpy.histogram``, loops in float64, and simulated truth."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tugofwar import score_nulls
from tugofwar.errors import UserError
from tugofwar.metrics import statistics_score
from tugofwar.score_accumulator import StatisticsAccumulator
from tugofwar.statistics import Statistics, scores_from_means

DATASETS = ["a", "b", "a", "c", "c", "b", "a", "b", "c", "a"]
TASKS = {"a": "one", "b": "two", "c": "one", "untouched": "three"}


def accumulate(gradients, datasets, tasks=None, *, chunk=None, order=1, blocks=("block",), **settings_):
    """Statistics of ``gradients`` (rows, parameters), the same in every block, folded in chunk by chunk."""
    accumulator = StatisticsAccumulator(datasets, tasks or {}, seed=settings_.pop("seed", 0), **settings_)
    rows = torch.as_tensor(gradients)
    size = rows.shape[1]
    for block in blocks:
        for first in range(0, size, chunk or size)[::order]:
            accumulator.add(block, first, rows[:, first : first + (chunk or size)], size)
        accumulator.finish_block(block, (rows.double() @ rows.double().T).numpy())
    return accumulator.result()


def dataset_means(gradients, datasets):
    labels = np.array(datasets)
    return np.stack([gradients[labels == name].mean(axis=0) for name in dict.fromkeys(datasets)])


def shares_of(means):
    total, absolute = np.abs(means.sum(axis=0)), np.abs(means).sum(axis=0)
    return np.histogram(total / absolute, bins=10, range=(0, 1))[0] / means.shape[-1]


def batches(generator, tasks, per_task, parameters, cosine, spread=0.0, factors=0):
    """Batches of tasks with one true gradient and within-task cosine ``cosine``; rows task after task."""
    scale = np.exp(spread * generator.standard_normal(parameters))
    true = np.sqrt(cosine / parameters) * generator.standard_normal(parameters) * scale
    noise = generator.standard_normal((tasks * per_task, parameters))
    if factors:
        noise *= 0.5
        directions = generator.standard_normal((factors, parameters)) * np.sqrt(0.75 / factors)
        noise += generator.standard_normal((tasks * per_task, factors)) @ directions
    return true + np.sqrt((1 - cosine) / parameters) * noise, [f"t{i}" for i in range(tasks) for _ in range(per_task)]


@given(st.integers(1, 40), st.integers(1, 41), st.sampled_from([1, -1]), st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_histograms_are_those_of_the_plain_function_for_any_chunks(parameters, chunk, order, seed):
    generator = np.random.default_rng(seed)
    # Whole numbers make exact ties, edges of intervals and 0/0.
    gradients = generator.integers(-2, 3, size=(10, parameters)).astype(float)
    statistics = accumulate(gradients, DATASETS, TASKS, chunk=chunk, order=order)
    a, b, c = dataset_means(gradients, DATASETS)
    for level, means in (("dataset", [a, b, c]), ("task", [np.mean([a, c], axis=0), b])):
        score, undefined = statistics_score(means)
        scores = statistics.levels[level]["block"]
        np.testing.assert_array_equal(scores.ten, np.histogram(score[~undefined], 10, (0, 1))[0])
        np.testing.assert_array_equal(scores.fine, np.histogram(score[~undefined], 1000, (0, 1))[0])
        assert scores.undefined == undefined.sum() == statistics.undefined(level)


def test_chunks_order_and_unit_of_the_gradients_change_nothing():
    gradients = np.random.default_rng(1).standard_normal((10, 3000))
    whole = accumulate(gradients, DATASETS, TASKS)
    for other in (
        accumulate(gradients, DATASETS, TASKS, chunk=7, order=-1),
        accumulate(gradients * 2.0**-300, DATASETS, TASKS, chunk=1000),
    ):
        assert whole.to_arrays().keys() == other.to_arrays().keys()
        for name, array in whole.to_arrays().items():
            np.testing.assert_array_equal(array, other.to_arrays()[name], err_msg=name)


def test_processes_that_share_chunks_add_up():
    gradients = torch.from_numpy(np.random.default_rng(2).standard_normal((10, 5000)))
    shared = [StatisticsAccumulator(DATASETS, TASKS, seed=0) for _ in range(3)]
    for number, first in enumerate(range(0, 5000, 900)):
        shared[number % 2].add("block", first, gradients[:, first : first + 900], 5000)
    for arrays in zip(*(process.state_of("block", 5000) for process in shared), strict=True):
        arrays[2][...] = sum(arrays)
    shared[2].finish_block("block", (gradients @ gradients.T).numpy())
    alone = accumulate(gradients, DATASETS, TASKS).to_arrays()
    for name, array in shared[2].result().to_arrays().items():
        np.testing.assert_array_equal(array, alone[name], err_msg=name)


def test_float32_agrees_with_float64():
    gradients = np.random.default_rng(3).standard_normal((10, 20_000)).astype(np.float32)
    narrow = accumulate(gradients, DATASETS).levels["dataset"]["block"]
    wide = accumulate(gradients.astype(np.float64), DATASETS).levels["dataset"]["block"]
    assert np.abs(narrow.ten - wide.ten).sum() <= 4
    assert np.abs(narrow.replicates - wide.replicates).sum() <= 1e-4 * wide.replicates.sum()


def test_add_returns_means_scores_and_the_mask():
    gradients = np.random.default_rng(4).standard_normal((10, 6))
    gradients[:, 2] = 0
    accumulator = StatisticsAccumulator(DATASETS, TASKS, seed=0)
    chunk = accumulator.add("block", 3, torch.from_numpy(gradients), 9)
    np.testing.assert_allclose(chunk.means, dataset_means(gradients, DATASETS), atol=1e-15)
    expected, _ = statistics_score(list(dataset_means(gradients, DATASETS)))
    np.testing.assert_allclose(chunk.scores["dataset"], expected, atol=1e-14)
    assert chunk.undefined["task"].tolist() == [False, False, True, False, False, False]
    assert np.isnan(chunk.scores["task"]).tolist() == chunk.undefined["task"].tolist()


@given(st.integers(1, 200_000), st.integers(1, 2000), st.integers(0, 100))
def test_sample_is_spread_and_affordable(size, rows, seed):
    columns = score_nulls.sampled_columns("block", size, rows, 2**23, seed)
    assert 8 * rows * len(columns) <= 2**23
    assert columns[0] >= 0
    assert columns[-1] < size
    assert (np.diff(columns) > 0).all()
    assert np.diff(columns, prepend=-1, append=size).max() <= 2 * (size // len(columns) + 1)
    np.testing.assert_array_equal(columns, score_nulls.sampled_columns("block", size, rows, 2**23, seed))


def test_replicates_are_those_of_a_loop():
    generator = np.random.default_rng(5)
    true_means = {name: generator.standard_normal(300) + 0.5 for name in "abc"}
    gradients = generator.standard_normal((10, 300)) + np.stack([true_means[name] for name in DATASETS])
    replicates = accumulate(gradients, DATASETS, replicates=8).levels["dataset"]["block"].replicates
    rows = [np.flatnonzero(np.array(DATASETS) == name) for name in ("a", "b", "c")]
    design = score_nulls.draw_design(rows, 8, 0)
    means = dataset_means(gradients, DATASETS)
    observed = means @ means.T
    true = observed.copy()
    for i, members in enumerate(rows):
        pairs = [gradients[a] @ gradients[b] for a in members for b in members if a != b]
        true[i, i] = np.mean(pairs)
    size = np.sqrt(np.diagonal(observed))
    mapping = score_nulls.agreement_map(observed / np.outer(size, size), true / np.outer(size, size))
    mapped = size[:, None] * (mapping @ (means / size[:, None]))
    np.testing.assert_allclose(mapped @ mapped.T, true, rtol=1e-9)
    for number, counted in enumerate(replicates):
        noise = [weights[number] @ gradients[members] for weights, members in zip(design.bootstrap, rows, strict=True)]
        assert np.abs(counted - 300 * shares_of(mapped + noise)).sum() <= 2


@pytest.mark.parametrize("kind", ["bootstrap", "wild"])
def test_noise_has_the_covariance_of_the_mean(kind, monkeypatch):
    monkeypatch.setattr(score_nulls, "NULL_DRAWS", 20_000)
    values = np.random.default_rng(6).standard_normal(5)
    (weights,) = getattr(score_nulls.draw_design([np.arange(5)], 20_000, 0), kind)
    np.testing.assert_allclose(weights.sum(axis=1), 0, atol=1e-6)
    assert np.mean((weights @ values) ** 2) == pytest.approx(values.var(ddof=1) / 5, rel=0.05)


@given(st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_maps_give_the_wanted_products(size, seed):
    root = np.random.default_rng(seed).standard_normal((2, size, size + 2))
    observed, true = root @ root.transpose(0, 2, 1)
    agreement = score_nulls.agreement_map(observed, true)
    np.testing.assert_allclose(agreement @ observed @ agreement.T, true, atol=1e-3 * np.trace(true))
    np.testing.assert_allclose(agreement, agreement.T, atol=1e-6 * np.abs(agreement).max())
    common = score_nulls.common_direction_map(observed, true)
    sizes = np.sqrt(np.diagonal(true))
    np.testing.assert_allclose(common @ observed @ common.T, np.outer(sizes, sizes), rtol=1e-6)


@pytest.mark.parametrize(("per_task", "above"), [(25, 0.40), (100, 0.66), (400, 0.82)])
def test_no_conflict_null_is_what_identical_tasks_show(per_task, above):
    """Ten identical tasks at within-task cosine 0.05."""
    observed, null = [], []
    for seed in range(2):
        gradients, datasets = batches(np.random.default_rng(seed), 10, per_task, 2000, 0.05)
        table = accumulate(gradients.astype(np.float32), datasets, replicates=2).table("dataset")
        observed.append(table["share"])
        null.append(table["null_no_conflict"])
    assert np.mean(observed, axis=0)[-1] == pytest.approx(above, abs=0.03)
    np.testing.assert_allclose(np.mean(null, axis=0), np.mean(observed, axis=0), atol=0.025)


def test_no_conflict_null_does_not_follow_a_conflict():
    gradients, datasets = batches(np.random.default_rng(7), 2, 50, 2000, 0.3)
    agreeing = accumulate(gradients, datasets).table("dataset")
    gradients[50:] *= -1
    opposed = accumulate(gradients, datasets).table("dataset")
    assert agreeing["share"].iloc[-1] > 0.85
    assert opposed["share"].iloc[-1] < 0.15
    assert opposed["null_no_conflict"].iloc[-1] == pytest.approx(agreeing["share"].iloc[-1], abs=0.04)


def test_signs_null_of_two_equal_magnitudes_is_half_and_half():
    table = accumulate(np.ones((4, 2000)), ["a", "a", "b", "b"]).table("dataset")
    assert table["null_signs"].to_numpy()[[0, -1]] == pytest.approx([0.5, 0.5], abs=0.01)
    assert table["null_signs"].sum() == pytest.approx(1)
    assert table["share"].tolist() == table["low"].tolist() == table["high"].tolist() == [0.0] * 9 + [1.0]


def test_intervals_cover_the_expected_share():
    """Noise shared between parameters, so that the share itself varies from draw to draw."""
    generator = np.random.default_rng(8)
    world = np.random.default_rng(9)
    scale = world.standard_normal((3, 600)) * 0.25 + world.standard_normal(600) * 0.2
    directions = world.standard_normal((4, 600)) * 0.5

    def draw():
        noise = generator.standard_normal((60, 4)) @ directions + 0.5 * generator.standard_normal((60, 600))
        return np.repeat(scale, 20, axis=0) + noise

    expected = np.mean([shares_of(draw().reshape(3, 20, -1).mean(axis=1)) for _ in range(500)], axis=0)
    datasets = [name for name in "abc" for _ in range(20)]
    hits = np.zeros(10)
    for seed in range(120):
        table = accumulate(draw(), datasets, seed=seed).table("dataset", confidence=0.9)
        hits += (table["low"] <= expected) & (expected <= table["high"])
        assert table["low"].le(table["share"]).all()
        assert table["high"].ge(table["share"]).all()
        assert table[["low", "high"]].stack().between(0, 1).all()
    assert (hits / 120 >= 0.80).all()
    assert 0.86 <= hits.mean() / 120 <= 0.97


def test_blocks_are_pooled_by_size():
    gradients = np.random.default_rng(10).standard_normal((10, 4000))
    accumulator = StatisticsAccumulator(DATASETS, {}, seed=0, sample_bytes=8 * 10 * 100)
    for block, size in (("small", 50), ("big", 4000)):
        rows = torch.from_numpy(gradients[:, :size] + (5 if block == "small" else 0))
        accumulator.add(block, 0, rows, size)
        accumulator.finish_block(block, (rows @ rows.T).numpy())
    statistics = accumulator.result()
    assert [scores.sampled for scores in statistics.levels["dataset"].values()] == [50, 100]
    small, big = (statistics.table("dataset", block) for block in statistics.blocks)
    both = statistics.table("dataset")
    assert both["count"].tolist() == (small["count"] + big["count"]).tolist()
    expected = (50 * small["null_signs"] + 4000 * big["null_signs"]) / 4050
    np.testing.assert_allclose(both["null_signs"], expected, rtol=1e-12)
    assert statistics.select(["small"]).table("dataset").equals(small)
    with pytest.raises(UserError, match=r"no block 'smal'.*closest names are small"):
        statistics.select(["smal"])
    with pytest.raises(UserError, match="name at least one"):
        statistics.select([])


def test_one_batch_in_a_dataset_leaves_intervals_out():
    gradients = np.random.default_rng(11).standard_normal((3, 50))
    statistics = accumulate(gradients, ["a", "a", "b"])
    table = statistics.table("dataset")
    assert table.columns.tolist() == ["interval_low", "interval_high", "count", "share", "null_signs"]
    assert not table.isna().any().any()
    assert statistics.metadata()["replicates"] == 0
    again = Statistics.from_arrays(statistics.to_arrays(), statistics.metadata())
    assert again.table("dataset").equals(table)


def test_a_dataset_that_does_not_touch_the_block_and_parameters_without_gradient():
    gradients = np.random.default_rng(12).standard_normal((10, 60))
    gradients[[name == "b" for name in DATASETS]] = 0
    gradients[:, :20] = 0
    statistics = accumulate(gradients, DATASETS)
    assert statistics.undefined("dataset", "block") == 20
    table = statistics.table("dataset")
    assert table["count"].sum() == 40
    assert not table.isna().any().any()
    nothing = accumulate(np.zeros((10, 5)), DATASETS)
    with pytest.raises(UserError, match="No gradient reaches a parameter of block 'block'"):
        nothing.table("dataset", "block")


def test_opposite_datasets_with_a_sum_of_exactly_zero():
    gradients = np.random.default_rng(13).standard_normal((5, 200))
    table = accumulate(np.concatenate([gradients, -gradients]), ["a"] * 5 + ["b"] * 5).table("dataset")
    assert table["share"].iloc[0] == 1
    assert not table.isna().any().any()


def test_arrays_and_metadata_give_it_back():
    statistics = accumulate(np.random.default_rng(14).standard_normal((10, 90)), DATASETS, TASKS, blocks=("x/y", "z"))
    metadata = json.loads(json.dumps(statistics.metadata(), allow_nan=False))
    arrays = statistics.to_arrays()
    again = Statistics.from_arrays({**arrays, "losses": np.zeros(3)}, metadata)
    assert again.metadata() == metadata
    assert again.groups == {"dataset": ("a", "b", "c"), "task": ("one", "two")}
    for level in ("dataset", "task"):
        assert again.table(level, "x/y").equals(statistics.table(level, "x/y"))
    name = "scores/task/z/fine"
    for damaged in ({**arrays, name: arrays[name][:5]}, {k: v for k, v in arrays.items() if k != name}):
        with pytest.raises(UserError, match="does not hold 'scores/task/z/fine'"):
            Statistics.from_arrays(damaged, metadata)
    with pytest.raises(UserError, match="do not add up"):
        Statistics.from_arrays({**arrays, name: arrays[name] + 1}, metadata)
    with pytest.raises(UserError, match="metadata is damaged"):
        Statistics.from_arrays(arrays, {"seed": 0})
    with pytest.raises(UserError, match=r"level 'tasks', only of dataset, task"):
        again.table("tasks")
    with pytest.raises(UserError, match="between 0 and 1"):
        again.table("task", confidence=90)


def test_regrouping_kept_means_is_the_task_level():
    gradients = np.random.default_rng(15).integers(-2, 3, size=(10, 500)).astype(float)
    means = dataset_means(gradients, DATASETS)
    scores = accumulate(gradients, DATASETS, TASKS).levels["task"]["block"]
    fine, ten, undefined = scores_from_means([means[:, :123], means[:, 123:]], {"one": [0, 2], "two": [1]})
    np.testing.assert_array_equal(fine, scores.fine)
    np.testing.assert_array_equal(ten, scores.ten)
    assert undefined == scores.undefined
    with pytest.raises(UserError, match="'one' must name rows from 0 to 2"):
        scores_from_means([means], {"one": [3]})


def test_mistakes_are_named():
    with pytest.raises(UserError, match="'b' has no task"):
        StatisticsAccumulator(["a", "b"], {"a": "one"}, seed=0)
    with pytest.raises(UserError, match="at least one batch"):
        StatisticsAccumulator([], {}, seed=0)
    with pytest.raises(UserError, match="at least 2 replicates"):
        StatisticsAccumulator(["a"], {}, seed=0, replicates=1)
    with pytest.raises(UserError, match="seed"):
        StatisticsAccumulator(["a"], {}, seed=-1)
    accumulator = StatisticsAccumulator(["a", "b"], {}, seed=0)
    with pytest.raises(UserError, match="not finite"):
        accumulator.add("block", 0, torch.tensor([[1.0], [torch.nan]]), 4)
    with pytest.raises(ValueError, match="do not fit"):
        accumulator.add("block", 3, torch.ones(2, 2), 4)
    accumulator.add("block", 0, torch.ones(2, 2), 4)
    with pytest.raises(ValueError, match="not every one"):
        accumulator.finish_block("block", np.ones((2, 2)))
    with pytest.raises(ValueError, match="unfinished: block"):
        accumulator.result()
    accumulator.add("block", 2, torch.ones(2, 2), 4)
    with pytest.raises(ValueError, match="Gram matrix"):
        accumulator.finish_block("block", np.ones((3, 3)))
    accumulator.finish_block("block", np.full((2, 2), 4.0))
    with pytest.raises(ValueError, match="is finished"):
        accumulator.add("block", 0, torch.ones(2, 2), 4)
