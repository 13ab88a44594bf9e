import json
import shutil
from collections import Counter

import pytest
import torch

from unimed_model.best import Best
from unimed_model.checkpoints import SEAL
from unimed_model.data import discover
from unimed_model.data.collator import Collator
from unimed_model.errors import UserError
from unimed_model.loading import open_run
from unimed_model.training import train
from unimed_model.validation import VALIDATION_LOG, held_out

from .conftest import tiny_settings

CHECKED = ("validation.every=2", "validation.split=test", "validation.samples=5", "training.steps=6")


@pytest.fixture(scope="module")
def validated(corpus, tmp_path_factory):
    run = tmp_path_factory.mktemp("validated") / "run"
    settings = tiny_settings(*CHECKED, "checkpoints.every=2", "checkpoints.keep=9")
    train(settings, corpus, run, quiet=True)
    return settings, run


def lines(run):
    return [json.loads(line) for line in (run / VALIDATION_LOG).read_text().splitlines()]


def test_the_loss_is_the_mean_over_answer_tokens_and_then_over_datasets(corpus, validated):
    settings, run = validated
    assert [entry["step"] for entry in lines(run)] == [1, 2, 4, 6]  # the warm-up ends at 1
    model, processor = open_run(run / "checkpoint-4")
    entry = lines(run)[2]
    for name, samples in held_out(discover(corpus), settings.validation, False).items():
        assert len(samples) == 5
        batch = Collator(processor)(samples)
        with torch.no_grad():
            assert entry["datasets"][name] == pytest.approx(model(**batch).loss.item(), rel=1e-4)
    assert entry["loss"] == pytest.approx(sum(entry["datasets"].values()) / len(entry["datasets"]))


def test_the_best_checkpoint_is_that_of_the_lowest_held_out_loss(validated):
    _, run = validated
    best = json.loads((run / "checkpoint-6" / SEAL).read_text())["best"]
    lowest = min(lines(run), key=lambda entry: entry["loss"])
    assert {key: best[key] for key in ("by", "step", "value")} == {
        "by": "validation loss",
        "step": lowest["step"],
        "value": lowest["loss"],
    }


def test_looking_at_held_out_samples_does_not_change_training(corpus, validated, tmp_path):
    _, run = validated
    train(tiny_settings("training.steps=6"), corpus, tmp_path / "run", quiet=True)
    for name in ("model.safetensors", "training_log.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (run / name).read_bytes()


def test_a_run_that_begins_anew_does_not_keep_the_lines_of_before(corpus, validated, tmp_path):
    settings, run = validated
    killed = tmp_path / "run"
    shutil.copytree(run, killed)
    (killed / "run.json").write_text((run / "run.json").read_text().replace('"finished"', '"running"'))
    for seal in killed.glob(f"checkpoint-*/{SEAL}"):
        seal.unlink()
    train(settings, corpus, killed, quiet=True)
    assert lines(killed) == lines(run)


def test_a_split_that_no_dataset_has_is_an_error(corpus, tmp_path):
    with pytest.raises(UserError, match="no dataset has samples in a split 'tests'"):
        train(tiny_settings(*CHECKED, "validation.split=tests"), corpus, tmp_path / "run", quiet=True)
    assert list(tmp_path.iterdir()) == []


def test_datasets_without_the_split_are_left_out(tmp_path):
    records = [
        {"dataset": name, "task": "QA", "split": split, "question": f"Is it {number}?", "answer": "yes"}
        for name, splits in (("whole", ("train", "val")), ("without", ("train", "test")))
        for split in splits
        for number in range(3)
    ]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    settings = tiny_settings("validation.every=1", "validation.samples=2").validation
    found = held_out(discover(tmp_path), settings, False)
    assert {name: [sample.split for sample in samples] for name, samples in found.items()} == {"whole": ["val"] * 2}


def test_the_best_by_training_loss_weighs_datasets_alike():
    best = Best("training loss")
    best.note_training(Counter({"large": 4}), 100.0, 100)
    best.note_training(Counter({"large": 4}), 300.0, 100)
    best.note_training(Counter({"small": 4}), 8.0, 2)
    best.at_checkpoint(5)
    assert best.state_dict() == {"by": "training loss", "step": 5, "value": (2.0 + 4.0) / 2, "sums": {}}
    best.note_training(Counter({"small": 1}), 3.5, 1)
    best.at_checkpoint(10)
    assert (best.step, best.value) == (5, 3.0)
    best.note_training(Counter({"small": 3, "large": 1}), 4.0, 4)
    best.at_checkpoint(15)
    assert (best.step, best.value) == (15, 1.0)


def test_the_best_goes_on_from_its_state_but_not_by_another_loss():
    best = Best("training loss")
    best.load_state_dict({"by": "training loss", "step": 7, "value": 0.5, "sums": {"small": [2.0, 8.0]}})
    best.note_training(Counter({"small": 1}), 1.0, 2)
    best.at_checkpoint(8)
    assert (best.step, best.value) == (8, 3.0 / 10)
    with pytest.raises(UserError, match="chosen by training loss before"):
        Best("validation loss").load_state_dict(best.state_dict())
