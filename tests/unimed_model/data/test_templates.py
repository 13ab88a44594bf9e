import random
from collections.abc import Mapping

import pytest

from unimed_model.data import IDENTIFIERS, TASKS, Sample, training_instruction
from unimed_model.data.templates import (
    EVALUATION,
    RELEASED_EVALUATION,
    RELEASED_TRAINING,
    TRAINING,
    classification_instruction,
    evaluation_instruction,
)


def _sample(**meta: str) -> Sample:
    return Sample("any", "REC", "train", "1", "a", None, "fixed", "answer", meta=meta)


def test_pool_sizes_are_those_of_appendix_c() -> None:
    assert {pool: len(entries) for pool, entries in TRAINING.items()} == {
        "medqa": 2,
        "pubmedqa": 2,
        "vqa": 2,
        "refer": 7,
        "identify": 7,
        "mimic_cxr": 5,
        "mpx_single": 10,
        "qa": 2,  # not the paper's: of users' own questions
    }


def test_released_pools_are_as_large_so_that_they_draw_alike() -> None:
    sizes = [{pool: len(entries) for pool, entries in pools.items()} for pools in (TRAINING, RELEASED_TRAINING)]
    assert sizes[0] == sizes[1]
    assert {pool for pool in TRAINING if TRAINING[pool] != RELEASED_TRAINING[pool]} == {"pubmedqa", "refer", "identify"}


@pytest.mark.parametrize(("training", "evaluation"), [(TRAINING, EVALUATION), (RELEASED_TRAINING, RELEASED_EVALUATION)])
def test_every_evaluation_instruction_is_in_its_training_pool(
    training: Mapping[str, tuple[str, ...]], evaluation: Mapping[str, str]
) -> None:
    assert set(evaluation) == set(training)
    assert all(evaluation[pool] in training[pool] for pool in training)


@pytest.mark.parametrize("pool", ["medqa", "pubmedqa", "qa", "vqa", "refer", "identify"])
def test_pools_with_a_subject_have_one_slot(pool: str) -> None:
    assert all(entry.count("{}") == 1 for entry in TRAINING[pool] + RELEASED_TRAINING[pool])


def test_paper_wording() -> None:
    assert evaluation_instruction("refer", "Liver") == "Give me the location of Liver."
    box = "<16><36><42><61>"
    assert evaluation_instruction("identify", box) == "What object is in this location <16><36><42><61>?"
    expected = 'If you are a doctor, please answer the following question using "yes", "no" or "maybe": Why?'
    assert evaluation_instruction("pubmedqa", "Why?") == expected


def test_training_draws_every_entry_and_repeats_with_its_seed() -> None:
    sample = _sample(templates="refer", subject="Left {Kidney}")
    drawn = {training_instruction(sample, random.Random(seed)) for seed in range(200)}
    assert drawn == {entry.replace("{}", "Left {Kidney}") for entry in TRAINING["refer"]}
    assert training_instruction(sample, random.Random(3)) == training_instruction(sample, random.Random(3))


def test_without_pool_the_instruction_is_fixed() -> None:
    assert training_instruction(_sample(), random.Random(0)) == "fixed"


def test_class_lists() -> None:
    assert classification_instruction("Which is it", ["a", "b", "c"]) == "Which is it: a, b, or c?"
    assert classification_instruction("Which is it", ["a", "b"]) == "Which is it: a or b?"


def test_identifiers_are_those_of_table_1() -> None:
    assert [IDENTIFIERS[task] for task in TASKS] == ["qa", "vqa", "caption", "refer", "identify", "cls"]
