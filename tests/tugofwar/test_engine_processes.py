"""Several processes that share a recording measure what one does (gloo on the CPU)."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import tugofwar as tow

from . import ranks, small

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=[2, 3], ids=["2 processes", "3 processes"])
def together(request, tmp_path_factory):
    """The folder, and the scenarios' results by rank."""
    folder = tmp_path_factory.mktemp("processes")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "WORLD_SIZE": str(request.param)}
    command = [sys.executable, "-m", "tests.tugofwar.ranks", str(folder)]
    running = [
        subprocess.Popen(command, env={**environment, "RANK": str(rank)}, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for rank in range(request.param)
    ]
    try:
        errors = [process.communicate(timeout=240)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0] * request.param, "\n".join(errors)
    return folder, [torch.load(folder / f"results-{rank}.pt", weights_only=False) for rank in range(request.param)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The folder, and the scenarios' results in one process."""
    folder = tmp_path_factory.mktemp("one process")
    return folder, {scenario.__name__: ranks.outcome(scenario, folder) for scenario in ranks.SCENARIOS}


@pytest.mark.parametrize("scenario", [scenario.__name__ for scenario in ranks.SCENARIOS])
def test_the_recording_is_that_of_one_process(together, alone, scenario):
    expected = alone[1][scenario]
    tolerance = 2e-6 if scenario == "single" else 1e-9
    for results in together[1]:
        found = results[scenario]
        assert (found.datasets, found.untouched, found.tasks) == (expected.datasets, ("text",), expected.tasks)
        assert found.blocks == expected.blocks
        np.testing.assert_allclose(found.losses, expected.losses, rtol=tolerance)
        for block in expected.blocks:
            if block.name != "(model)":
                pair = (each.select(block.name).gram for each in (found, expected))
                assert small.relative_error(*pair) <= tolerance
        assert small.relative_error(found.gram, expected.gram) <= tolerance


def test_all_processes_return_the_same_bits(together):
    for scenario in ranks.SCENARIOS:
        first, *others = (results[scenario.__name__] for results in together[1])
        for other in others:
            assert (other.gram == first.gram).all()
            assert other.choices == first.choices


def test_scores_are_those_of_one_process(together, alone):
    expected = alone[1]["everything"].statistics
    assert set(expected.levels) == {"dataset", "task"}
    for results in together[1]:
        for level, blocks in results["everything"].statistics.levels.items():
            for name, scores in blocks.items():
                exact = expected.levels[level][name]
                assert scores.undefined == exact.undefined
                # A score at the edge of a bin may fall on its other side.
                assert abs(scores.ten - exact.ten).sum() <= 4
                assert abs(scores.null_signs - exact.null_signs).sum() <= 0.02 * exact.null_signs.sum()


def test_the_geometry_of_adam_is_that_of_one_process(together, alone):
    expected = alone[1]["everything"].in_geometry("adam").gram
    for results in together[1]:
        assert small.relative_error(results["everything"].in_geometry("adam").gram, expected) <= 1e-9


@pytest.mark.parametrize(("name", "tolerance"), [("means", 1e-6), ("scores", 1e-3)])
def test_the_files_are_those_of_one_process(together, alone, name, tolerance):
    found, expected = (load_file(folder[0] / "everything" / f"{name}.safetensors") for folder in (together, alone))
    assert found.keys() == expected.keys()
    for key, value in found.items():
        np.testing.assert_allclose(value, expected[key], rtol=tolerance, atol=1e-9 if name == "means" else 1e-3)
    assert sorted(path.name for path in (together[0] / "everything").iterdir()) == [
        "means.safetensors",
        "scores.safetensors",
    ]


def both_datasets():
    """The Gram matrix of the datasets that reach the model, by plain autograd."""
    return small.gram(small.build(), {name: ranks.data()[name] for name in ("a", "b")})


def test_a_mistake_that_one_process_finds_ends_all_and_the_next_call_resumes(together):
    world = len(together[1])
    for rank, results in enumerate(together[1]):
        message, before, after, recording = results["resumed"]
        share = len(range(rank, 5, world))
        assert message == "The loss of batch 2 of dataset 'b' is nan; a gradient needs a finite loss."
        # Batch 2 is the first of process 1; the others finished their shares, and keep them.
        assert before == (2 * (share + 1) + 1 if rank == 1 else 3 * (share + 1))
        assert after == (share + 1 if rank == 1 else 0)
        assert small.relative_error(recording.gram, both_datasets()) <= 1e-10
    assert list((together[0] / "resumed").iterdir()) == []


def test_kept_factors_are_extended(together):
    world = len(together[1])
    for rank, results in enumerate(together[1]):
        before, after, recording = results["extended"]
        passed = [len(range(rank, batches, world)) for batches in (2, 5)]
        assert before == 3 * (passed[0] + (passed[0] > 0))
        assert after == 3 * (passed[1] - passed[0] + (passed[1] > passed[0]))
        assert small.relative_error(recording.gram, both_datasets()) <= 1e-10


def test_a_model_wrapped_for_training_is_measured_and_goes_on_to_train(together):
    for results in together[1]:
        assert small.relative_error(results["wrapped"].gram, both_datasets()) <= 1e-10


@pytest.mark.parametrize(
    ("scenario", "message"),
    [
        ("foreign_folder", "holds something other than factors"),
        ("full_disk_of_the_last_process", "The disk is full"),
        ("too_few_batches", "Dataset 'a' has 4 batches but 5 are asked for"),
    ],
)
def test_a_mistake_reaches_every_process(together, scenario, message):
    for results in together[1]:
        assert isinstance(results[scenario], tow.UserError)
        assert message in str(results[scenario])
    assert not list((together[0] / scenario).glob(".*"))
