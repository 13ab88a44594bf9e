"""The sample corpus in the layouts without pictures: MedQA and PubMedQA (QA)."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from . import statements, text_questions
from .anatomy import Slice
from .pictures import Row, write_json, write_json_lines

LETTERS = "ABCDE"
FIRST_ID = 900_000_001
"""No article has so large a number in PubMed."""

Asked = TypeVar("Asked", text_questions.Question, statements.Statement)


def write_medqa(folder: Path, _: Sequence[Slice], counts: dict[str, int], rng: np.random.Generator) -> list[Row]:
    """Write a MedQA folder: questions with five options, as many of each topic; it has no pictures."""
    seen: set[str] = set()
    for split, count in counts.items():
        drawn = _different(text_questions.TOPICS, count, seen, rng)
        write_json_lines(folder / "questions" / "US" / f"{split}.jsonl", [_with_options(asked) for asked in drawn])
    return []


def write_pubmedqa(folder: Path, _: Sequence[Slice], counts: dict[str, int], rng: np.random.Generator) -> list[Row]:
    """Write a PubMedQA folder: one table of all questions, and the decisions of the test set; it has no pictures."""
    seen: set[str] = set()
    kinds = [partial(draw, decision) for draw, decisions in statements.KINDS for decision in decisions]
    records: dict[str, dict[str, object]] = {}
    truth: dict[str, str] = {}
    for split, count in counts.items():
        for asked in _different(kinds, count, seen, rng):
            key = str(FIRST_ID + len(records))
            records[key] = _with_context(asked)
            if split == "test":
                truth[key] = asked.decision
    write_json(folder / "ori_pqal.json", records)
    write_json(folder / "test_ground_truth.json", truth)
    return []


def _different(
    kinds: Sequence[Callable[[np.random.Generator], Asked]], count: int, seen: set[str], rng: np.random.Generator
) -> list[Asked]:
    """Draw questions that are not among those seen, as many of each kind to within one, in random order."""
    drawn: list[Asked] = []
    while len(drawn) < count:
        asked = kinds[len(drawn) % len(kinds)](rng)
        if asked.text not in seen:
            seen.add(asked.text)
            drawn.append(asked)
    return [drawn[index] for index in rng.permutation(count)]


def _with_options(asked: text_questions.Question) -> dict[str, object]:
    options = dict(zip(LETTERS, asked.options, strict=True))
    return {
        "question": asked.text,
        "answer": asked.answer,
        "options": options,
        "meta_info": asked.topic,
        "answer_idx": LETTERS[asked.options.index(asked.answer)],
    }


def _with_context(asked: statements.Statement) -> dict[str, object]:
    return {
        "QUESTION": asked.text,
        "CONTEXTS": [statements.CONVENTIONS],
        "LABELS": ["CONVENTIONS"],
        "MESHES": [],
        "YEAR": None,
        "reasoning_required_pred": asked.decision,
        "reasoning_free_pred": asked.decision,
        "final_decision": asked.decision,
        "LONG_ANSWER": asked.reason,
    }
