"""Batches of several datasets: with and without an image, of several tasks, from the mixture to the loss."""

import json
from collections import Counter

import pytest
import torch

from unimed_model.building import build
from unimed_model.configuration import IMAGE_TASKS
from unimed_model.data import discover, open_source
from unimed_model.data.collator import Collator
from unimed_model.data.mixture import Mixture
from unimed_model.data.sample import Sample, Samples
from unimed_model.training import train

from .conftest import tiny_settings

QUESTIONS = Samples(
    Sample("qa", "QA", "train", str(i), None, None, "", "yes" * (i + 1), (), {"templates": "medqa", "subject": "Why?"})
    for i in range(8)
)


@pytest.fixture(scope="module")
def datasets(corpus):
    """A dataset of every image task, and one of text alone."""
    by_task = {source.task: source for source in discover(corpus)}
    return {source.name: open_source(source) for source in by_task.values() if source.task != "QA"} | {"qa": QUESTIONS}


@pytest.mark.parametrize(
    "connector",
    [
        "{kind: mlp}",
        "{router: hard}",
        "{router: soft, strategy: token_task}",
        "{router: sparse, strategy: task}",
        "{router: constant}",
    ],
)
def test_the_loss_of_a_mixed_batch_is_the_mean_of_its_parts_by_answer_tokens(datasets, connector):
    settings = tiny_settings(f"connector={connector}")
    model, processor = build(settings, ["Where is the brain?", "<1><2><3><4>"] * 9, None)
    model.eval()
    collator = Collator(processor)
    equal = dict.fromkeys(datasets, 1)
    mixture = Mixture(datasets, 16, 1, 1, processor.prompts, weights=equal, batches="mixed")
    samples = [mixture[draw] for draw in next(iter(mixture))]
    kinds = {sample.task for sample in samples}
    assert len(kinds) > 3
    assert "QA" in kinds
    batch = collator(samples)
    tasks = [sample.task for sample in samples if sample.image_source is not None]
    assert batch["task_ids"].tolist() == [IMAGE_TASKS.index(task) for task in tasks]
    assert len(batch["pixel_values"]) == len(tasks) < len(samples)
    total, tokens = torch.zeros(()), 0
    with torch.inference_mode():
        for name in datasets:
            part = collator([s for s in samples if s.dataset == name]) if name in {s.dataset for s in samples} else None
            if part is not None:
                count = int((part["labels"] != -100).sum())
                total, tokens = total + count * model(**part).loss, tokens + count
        torch.testing.assert_close(model(**batch).loss, total / tokens, rtol=1e-5, atol=1e-5)


def test_the_log_counts_the_datasets_of_a_mixed_batch(corpus, tmp_path):
    settings = tiny_settings("data.batches=mixed", "training.batch_size=6", "data.mixing.by=temperature")
    assert train(settings, corpus, tmp_path / "run", quiet=True)
    log = [json.loads(line) for line in (tmp_path / "run" / "training_log.jsonl").read_text().splitlines()]
    assert len(log) == 4
    drawn = Counter()
    for entry in log:
        drawn += Counter(entry["samples"] if entry["dataset"] == "mixed" else {entry["dataset"]: 6})
    assert any(entry["dataset"] == "mixed" for entry in log)
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert {name: count for name, count in run["realised_mixture"].items() if count} == drawn
    assert sum(drawn.values()) == 4 * 6
    assert run["settings"]["data"]["mixing"]["by"] == "temperature"


def test_ratios_of_the_settings_reach_the_mixture(corpus, tmp_path):
    names = [source.name for source in discover(corpus)][:2]
    ratios = f"data.mixing={{by: ratios, ratios: {{{names[0]}: 1000000, {names[1]}: 0.001}}}}"
    chosen = f"data.datasets=[{names[0]}, {names[1]}]"
    assert train(tiny_settings(chosen, ratios), corpus, tmp_path / "run", quiet=True)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["realised_mixture"] == {names[0]: 8, names[1]: 0}
