from collections import defaultdict

import numpy as np
import pandas as pd
import pytest
import torch

from unimed_model.data.sample import IMAGE_TASKS
from unimed_model.routing_log import ROUTING_FILE, RoutingLog

EXPERTS, TOKENS = 3, 7


def batch(rng, tasks):
    ids = np.array([IMAGE_TASKS.index(task) for task in tasks])
    weights = rng.dirichlet(np.ones(EXPERTS), (len(tasks), TOKENS))
    return ids, weights


def add(log, ids, weights, precision=torch.float64):
    log.add(torch.from_numpy(ids), torch.from_numpy(weights).to(precision))


def test_weights_are_means_over_tokens_and_images_of_the_interval(tmp_path):
    rng = np.random.default_rng(0)
    log = RoutingLog(tmp_path, warmup_steps=0)
    pooled = defaultdict(list)
    for tasks in (["VQA", "VQA", "REC"], ["RG"], ["VQA", "RG", "RG", "REC"]):
        ids, weights = batch(rng, tasks)
        add(log, ids, weights)
        for task, weight in zip(tasks, weights, strict=True):
            pooled[task].append(weight)
    numbers = log.end_interval(10)
    log.close()
    table = pd.read_csv(tmp_path / ROUTING_FILE)
    assert list(table.columns) == ["step", "stage", "task", "expert", "weight", "images"]
    assert list(table["task"].unique()) == ["VQA", "REC", "RG"]  # only those that occurred, in the released order
    for task, weights in pooled.items():
        rows = table[table["task"] == task]
        expected = np.concatenate(weights).mean(axis=0)  # every token of every image alike
        np.testing.assert_allclose(rows["weight"], expected, rtol=1e-12)
        assert list(rows["expert"]) == list(range(EXPERTS))
        assert set(rows["images"]) == {len(weights)}
        told = [numbers[f"routing/{task}/expert_{expert}"] for expert in range(EXPERTS)]
        assert told == pytest.approx(list(rows["weight"]), rel=1e-12)  # older pandas reads a number less exactly
        assert rows["weight"].sum() == pytest.approx(1)
    assert len(numbers) == len(table)


def test_weights_averaged_over_tokens_beforehand_give_the_same(tmp_path):
    rng = np.random.default_rng(1)
    ids, weights = batch(rng, ["CLS", "REG", "CLS"])
    logs = [RoutingLog(tmp_path / name, warmup_steps=0) for name in "ab"]
    for log, given in zip(logs, (weights, weights.mean(axis=1, keepdims=True)), strict=True):
        log._file.path.parent.mkdir()
        add(log, ids, given)
    first, second = (log.end_interval(1) for log in logs)
    assert first == pytest.approx(second, rel=1e-12)
    for log in logs:
        log.close()


def test_half_precision_is_averaged_in_full(tmp_path):
    log = RoutingLog(tmp_path, warmup_steps=0)
    weights = torch.full((2, 4096, 2), 0.5, dtype=torch.bfloat16)
    log.add(torch.zeros(2, dtype=torch.long), weights)
    assert log.end_interval(1) == {"routing/VQA/expert_0": 0.5, "routing/VQA/expert_1": 0.5}
    log.close()


def test_figure_4c_has_the_end_of_the_warmup_and_of_the_run(tmp_path):
    rng = np.random.default_rng(2)
    log = RoutingLog(tmp_path, warmup_steps=5)
    written = {}
    for step, tasks in ((3, ["VQA", "REC"]), (5, ["VQA"]), (8, ["VQA", "CLS", "CLS"]), (9, ["VQA"])):
        ids, weights = batch(rng, tasks)
        add(log, ids, weights)
        log.end_interval(step)
        written[step] = {
            task: weights[[other == task for other in tasks]].mean(axis=(0, 1)) for task in dict.fromkeys(tasks)
        }
    log.close()
    summary = RoutingLog(tmp_path, warmup_steps=5).summary()
    assert list(summary) == ["warmup_end", "final", "images"]
    for name, expected in (
        ("warmup_end", {"VQA": written[5]["VQA"], "REC": written[3]["REC"]}),
        ("final", {"VQA": written[9]["VQA"], "CLS": written[8]["CLS"]}),
    ):
        assert list(summary[name]) == list(expected)
        for task, weights in expected.items():
            np.testing.assert_allclose(summary[name][task], weights, rtol=1e-12)
    assert summary["images"] == {"warmup_end": {"VQA": 1, "REC": 1}, "final": {"VQA": 1, "CLS": 2}}
    table = pd.read_csv(tmp_path / ROUTING_FILE)
    assert list(table.groupby("step")["stage"].first()) == ["warmup", "warmup", "main", "main"]


def test_without_a_router_there_is_nothing(tmp_path):
    log = RoutingLog(tmp_path, warmup_steps=5)
    assert log.end_interval(1) == {}
    assert log.summary() == {}
    log.rewind(0)
    log.close()
    assert list(tmp_path.iterdir()) == []
