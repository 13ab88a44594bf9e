"""Image files that are missing: an error that counts them, or, when asked for, a number in every later report."""

import json

import pytest

from analyses.summary import summarise
from tugofwar.cli import main as tugofwar_main
from unimed_model.cli_eval import eval_main
from unimed_model.data import discover, open_source
from unimed_model.data.sources import skipping

from .report_roots import command, trained, write_root

pytestmark = pytest.mark.usefixtures("without_java")


@pytest.fixture
def root(tmp_path):
    """One test image and two training images of `open` are missing."""
    folder = write_root(tmp_path / "root")
    for name in ("train1", "train6", "test2"):
        (folder / "open" / "images" / f"{name}.png").unlink()
    return folder


def refused(capfd, status, says):
    printed = capfd.readouterr()
    assert status == 2
    assert says in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""


def test_missing_images_are_an_error_that_counts_and_lists_them(root, tmp_path, capfd):
    refused(capfd, trained(root, tmp_path / "run", "--quiet"), "open: 2 image files are missing")
    assert not (tmp_path / "run").exists()
    assert trained(root, tmp_path / "run", "--quiet", "--skip-missing") == 0
    capfd.readouterr()
    evaluated = command(eval_main, tmp_path / "run", "--data", root, "--quiet")
    refused(capfd, evaluated, "open: 1 image file is missing")
    gradients = ("gradients", "--ckpt", tmp_path / "run", "--data", root, "--batches", 2, "--quiet")
    refused(capfd, command(tugofwar_main, *gradients), "open: 2 image files are missing")


def test_what_was_left_out_stays_visible_in_every_report(root, tmp_path, capfd):
    run = tmp_path / "run"
    for state in ("trained", "already trained"):
        assert trained(root, run, "--quiet", "--skip-missing") == 0
        printed = capfd.readouterr().out
        assert state in printed
        assert "left out, image file missing: 2 of open" in printed
    recorded = json.loads((run / "run.json").read_text())
    assert recorded["skipped"] == {"open": {"missing image": 2}}
    assert recorded["datasets"] == {"private": 8, "open": 6}

    assert command(eval_main, run, "--data", root, "--quiet", "--skip-missing") == 0
    assert capfd.readouterr().out.count("left out, image file missing: 1 of test, 2 of train") == 1
    scores = json.loads((run / "evaluation" / "scores.json").read_text())["datasets"]
    assert scores["open"]["skipped"] == {"test": {"missing image": 1}, "train": {"missing image": 2}}
    assert (scores["open"]["samples"], scores["private"]["skipped"]) == (2, {})

    options = ("--batches", 2, "--batch-size", 2, "--quiet", "--skip-missing")
    assert command(tugofwar_main, "gradients", "--ckpt", run, "--data", root, *options) == 0
    assert "left out, image file missing: 2 of open" in capfd.readouterr().out
    manifest = json.loads((run / "gradients" / "manifest.json").read_text())["metadata"]
    assert manifest["missing_images"] == {"open": 2}
    assert manifest["command"].endswith("--skip-missing")
    assert json.loads((run / "gradients" / "interference.json").read_text())["missing_images"] == {"open": 2}
    assert command(tugofwar_main, "inspect", run) == 0
    assert "left out, image file missing: 2 of open" in capfd.readouterr().out
    assert command(tugofwar_main, "figures", run, "--out", tmp_path / "figures", "--format", "png") == 0
    captions = [path.read_text() for path in (tmp_path / "figures").glob("*.txt")]
    assert captions
    assert all("image file is missing: 2 of open." in caption for caption in captions)

    assert summarise([run]).splitlines()[-4:] == [
        "run, training: left out, image file missing: 2 of open",
        "run, evaluation, split test: left out, image file missing: 1 of open",
        "run, evaluation, split train: left out, image file missing: 2 of open",
        "run, gradients: left out, image file missing: 2 of open",
    ]


def test_a_dataset_without_any_image_is_named(root, tmp_path, capfd):
    for image in (root / "open" / "images").iterdir():
        image.unlink()
    refused(capfd, trained(root, tmp_path / "run", "--quiet", "--skip-missing"), "The dataset open has no training")
    assert trained(root, tmp_path / "run", "--quiet", "--set", "data.datasets=[private]") == 0
    capfd.readouterr()
    evaluated = command(eval_main, tmp_path / "run", "--data", root, "--quiet", "--skip-missing")
    refused(capfd, evaluated, "open has no samples in its split 'test' (left out, image file missing: 3 of test)")


def test_skipping_is_set_where_images_are_files(root, tmp_path):
    for source in discover(root):
        assert skipping(source).options["missing_images"] == "skip"
        assert "missing_images" not in source.options
    (tmp_path / "pubmedqa").mkdir()
    (tmp_path / "pubmedqa" / "ori_pqal.json").write_text('{"1": {"QUESTION": "Why?", "final_decision": "no"}}')
    (tmp_path / "pubmedqa" / "test_ground_truth.json").write_text("{}")
    (source,) = discover(tmp_path)
    assert skipping(source) == source
    assert len(open_source(skipping(source))) == 1


def test_skip_missing_means_nothing_to_a_setup_of_one_s_own(tmp_path, capfd):
    status = command(tugofwar_main, "gradients", "--setup", "a.py:f", "--out", tmp_path / "x", "--skip-missing")
    refused(capfd, status, "--skip-missing has no meaning with --setup")
