"""Oracles: interference() on the selected blocks alone, and groups written out by hand."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import tugofwar as tow
from analyses.block_groups import group_blocks
from analyses.breakdown import break_down, breakdown_tables
from analyses.interference import write_tables
from tugofwar.recording import Block, Recording, upper_triangle

MIXTURE = (
    Block("connector", {"connector.task_tokens": 40}),
    Block("connector.experts.0.0", {"connector.experts.0.0.weight": 60, "connector.experts.0.0.bias": 6}),
    Block("connector.experts.0.2", {"connector.experts.0.2.weight": 20}),
    Block("connector.experts.1.0", {"connector.experts.1.0.weight": 60}),
    Block("connector.router.layers.0", {"connector.router.layers.0.weight": 30}),
    Block("connector.router.layers.2", {"connector.router.layers.2.weight": 30}),
    Block("llm.model.layers.7.q_proj.lora_A", {"llm.model.layers.7.q_proj.lora_A.weight": 9}),
    Block("llm.model.layers.7.mlp.experts.3", {"llm.model.layers.7.mlp.experts.3.weight": 9}),
    Block("norm", {"norm.weight": 4, "norm.bias": 4}),
)
NAMES = np.repeat(["a", "b", "text"], 8).tolist()


def recording_of(blocks, seed=0, idle=(), **options):
    """Three datasets; on the blocks in ``idle`` the last of them has no gradient."""
    rng = np.random.default_rng(seed)
    triangles = {}
    for block in blocks:
        gradients = rng.normal(size=(24, 12)) + 1
        if block.name in idle:
            gradients[16:] = 0
        triangles[block.name] = upper_triangle(gradients @ gradients.T)
    return Recording(tuple(blocks), triangles, NAMES, np.ones(24), **options)


def test_experts_routers_tokens_and_layers_are_groups():
    groups = [(group.label, group.kind, len(group.blocks), group.parameters) for group in group_blocks(MIXTURE)]
    assert groups == [
        ("connector.task_tokens", "task_tokens", 1, 40),
        ("connector.experts.0", "expert", 2, 86),
        ("connector.experts.1", "expert", 1, 60),
        ("connector.router", "router", 2, 60),
        ("llm.model.layers.7", "layer", 2, 18),
        ("norm", "other", 1, 8),
    ]


def blocks_named(names):
    return [Block(name, {f"{name}.weight": 2}) for name in names]


def test_many_groups_are_merged_by_prefix_and_only_as_far_as_needed():
    families = [f"net.part{k}.unit{m}" for k in range(6) for m in range(10 - k)]
    groups = group_blocks(blocks_named(families))
    assert len(families) == 45
    assert [group.label for group in groups] == ["net.part0", *families[10:]]
    assert sum(group.parameters for group in groups) == 90
    layers = group_blocks(blocks_named([f"model.layers.{k}.{m}" for k in range(80) for m in "qv"] + ["head"]))
    assert [(group.label, group.kind) for group in layers] == [("model.layers", "layer"), ("head", "other")]


def test_names_without_a_common_prefix_become_one_group():
    (group,) = group_blocks(blocks_named([f"p{k}" for k in range(41)]))
    assert (group.label, group.parameters) == ("(all)", 82)
    assert len(group_blocks(blocks_named([f"p{k}" for k in range(40)]))) == 40


def test_each_group_is_measured_on_its_parameters_alone():
    tasks = {"a": "VQA", "b": "VQA", "text": "QA"}
    recording = recording_of(MIXTURE, tasks=tasks)
    tables = breakdown_tables(break_down(recording, resamples=40))
    expert = recording.select(["connector.experts.0.0", "connector.experts.0.2"])
    for level, groups in (("dataset", None), ("task", tow.task_groups(recording))):
        expected = tow.interference(expert, groups, resamples=40)
        for measure in ("gd", "gm"):
            table = tables[f"{measure}_{level}_blocks.csv"]
            found = table[table["block"] == "connector.experts.0"]
            np.testing.assert_allclose(found["value"], getattr(expected, measure).to_numpy().ravel(), rtol=1e-9)
            np.testing.assert_allclose(found["low"], expected.intervals[measure].low.to_numpy().ravel(), rtol=1e-9)
        indexes = tables[f"index_{level}_blocks.csv"].query("block == 'connector.experts.0'")
        assert list(indexes.columns) == ["block", "name", "batches", "index", "low", "high", "sign_uncertain"]
        assert indexes["name"].tolist() == list(expected.index.index)
        assert indexes["batches"].tolist() == list(expected.batches.values())
        np.testing.assert_allclose(indexes["index"], expected.index, rtol=1e-9)
        np.testing.assert_allclose(indexes["high"], expected.intervals["index"].high, rtol=1e-9)


def test_what_does_not_exist_on_a_group_has_no_row_and_a_sentence(tmp_path):
    recording = recording_of(MIXTURE, idle=("connector.router.layers.0", "connector.router.layers.2", "norm"))
    lone = np.zeros((24, 24))
    lone[:16, :16] = np.eye(16)
    lone[16, 16] = 1
    triangles = {**recording.upper_triangles, "connector.experts.1.0": upper_triangle(lone)}
    write_tables(replace(recording, upper_triangles=triangles), tmp_path, resamples=30)
    index = pd.read_csv(tmp_path / "index_dataset_blocks.csv")
    assert not index.isna().any(axis=None)
    names = index.groupby("block", sort=False)["name"].apply(list).to_dict()
    assert names["connector.router"] == names["norm"] == ["a", "b"]
    assert names["connector.experts.0"] == ["a", "b", "text"]
    assert "connector.experts.1" not in names
    gd = pd.read_csv(tmp_path / "gd_dataset_blocks.csv")
    assert len(gd[gd["block"] == "connector.router"]) == 4
    assert len(pd.read_csv(tmp_path / "blocks.csv")) == 6
    about = json.loads((tmp_path / "interference.json").read_text())["blocks"]
    assert about["resamples"] == 30
    assert about["left_out"]["dataset"]["connector.router"] == ["text has no gradient here"]
    assert len(about["left_out"]["dataset"]["connector.experts.1"]) == 3


@pytest.mark.parametrize("tasks", [{}, {"a": "VQA", "b": "VQA", "text": "QA"}])
def test_a_single_group_and_a_single_dataset_have_tables_too(tmp_path, tasks):
    recording = recording_of([Block("w", {"w.weight": 12})], tasks=tasks)
    alone = replace(
        recording,
        upper_triangles={"w": upper_triangle(recording.gram[:8, :8])},
        datasets=["a"] * 8,
        losses=np.ones(8),
        tasks={name: task for name, task in tasks.items() if name == "a"},
    )
    write_tables(alone, tmp_path, resamples=20)
    levels = ["dataset", "task"] if tasks else ["dataset"]
    for level in levels:
        table = pd.read_csv(tmp_path / f"gd_{level}_blocks.csv")
        assert table[["block", "value", "low", "high"]].values.tolist() == [["w", 1.0, 1.0, 1.0]]
    assert (tmp_path / "gm_task_blocks.csv").exists() == bool(tasks)
