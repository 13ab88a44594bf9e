"""A sentence planted in a dataset that may not be passed on, looked for in everything that the commands leave."""

import json
import shutil

import pytest

from analyses import summary
from tugofwar.cli import main as tugofwar_main
from unimed_model.cli_eval import eval_main

from .report_roots import PLANTED, command, trained, write_root

WORDS = ("wombats", "marmalade", PLANTED)
LEARNED = {"tokenizer.json", "model.safetensors"}
"""What was trained on the text. A tokenizer's pieces are words of it."""

pytestmark = pytest.mark.usefixtures("without_java")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_root(tmp_path_factory.mktemp("root"))


@pytest.fixture
def run(root, tmp_path):
    out = tmp_path / "run"
    assert trained(root, out) == 0
    return out


def holding(folder, word):
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in LEARNED]
    assert len(files) > 5
    return [path.name for path in files if word.lower().encode() in path.read_bytes().lower()]


def test_a_planted_sentence_reaches_no_file_and_no_terminal(root, run, tmp_path, capfd):
    assert command(eval_main, run, "--data", root) == 0
    probed, few = ("--data", root, "--batches", 3), ("--batch-size", 2)
    assert command(tugofwar_main, "gradients", "--ckpt", run, *probed, *few, "--keep-means") == 0
    assert command(tugofwar_main, "routing", "--ckpt", run, *probed, *few) == 0
    assert command(tugofwar_main, "features", "--ckpt", run, "--data", root, "--samples", 6) == 0
    assert command(tugofwar_main, "dynamics", run, *probed, *few) == 0
    other = shutil.copytree(run, tmp_path / "other")
    assert command(tugofwar_main, "compare", run, other) == 0
    assert command(tugofwar_main, "inspect", run) == 0
    pictures = ("--out", tmp_path / "figures", "--format", "png,svg")
    assert command(tugofwar_main, "figures", run, other, *pictures) == 0
    assert command(tugofwar_main, "report", run, other, "--out", tmp_path / "report.html") == 0
    assert command(lambda: print(summary.summarise([run]))) == 0
    printed = capfd.readouterr()
    assert "private" in printed.out
    for word in WORDS:
        assert holding(tmp_path, word) == []
        assert word.lower() not in (printed.out + printed.err).lower()


def test_predictions_of_a_restricted_dataset_have_no_text(root, run):
    assert command(eval_main, run, "--data", root, "--quiet") == 0
    lines = [json.loads(line) for line in (run / "evaluation" / "predictions.jsonl").read_text().splitlines()]
    private, free = ([line for line in lines if line["dataset"] == name] for name in ("private", "open"))
    assert len(private) == len(free) == 3
    for line in private:
        assert line["restricted"] is True
        assert (line["prompt"], line["prediction"], line["reference"]) == (None, None, None)
        assert line["id"]
    for line in free:
        assert "restricted" not in line
        assert line["prompt"] == "Describe this input image."
        assert line["reference"].startswith("A grey square")
    scores = json.loads((run / "evaluation" / "scores.json").read_text())["datasets"]
    assert scores["private"]["samples"] == 3


def test_a_user_who_may_can_have_the_text_written(root, run):
    assert command(eval_main, run, "--data", root, "--quiet", "--allow-restricted-text") == 0
    lines = [json.loads(line) for line in (run / "evaluation" / "predictions.jsonl").read_text().splitlines()]
    references = [line["reference"] for line in lines if line["dataset"] == "private"]
    assert references == [f"{PLANTED}, number {i}." for i in range(3)]
    assert all(line["restricted"] for line in lines if line["dataset"] == "private")


def test_what_fails_names_the_sample_and_not_its_text(root, tmp_path, capfd):
    options = ("--set", "llm.architecture.context=16", "--set", "data.datasets=[private]")
    assert trained(root, tmp_path / "run", *options) == 2
    printed = capfd.readouterr()
    assert "The prompt of private/train-" in printed.err
    assert not any(word in printed.out + printed.err for word in WORDS)
