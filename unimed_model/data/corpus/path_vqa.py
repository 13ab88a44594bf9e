"""The sample corpus in the Path-VQA layout (VQA): pickled questions, pictures in a folder per split."""

import pickle
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import selection, tissue_wording
from .anatomy import Slice
from .pictures import Row, row, write_picture

QUESTIONS_PER_PICTURE = 2
SPLIT_DIGITS = {"train": 1, "val": 2, "test": 3}
PROTOCOL = 4
"""Of the pickles; fixed, so that equal corpora give equal bytes on every Python."""


def write_path_vqa(
    folder: Path, slices: Sequence[Slice], counts: dict[str, int], rng: np.random.Generator
) -> list[Row]:
    """Write a Path-VQA folder: two questions about each picture; the validation split is empty."""
    rows: list[Row] = []
    for split in SPLIT_DIGITS:
        drawn = selection.draw(selection.of_split(slices, split), counts[split], rng) if split in counts else []
        asked: Counter[tuple[str, str]] = Counter()
        records: list[dict[str, Any]] = []
        for number, slice_ in enumerate(drawn):
            name = f"{split}_{number:04d}"
            path = folder / "images" / split / f"{name}.jpg"
            kind = str(rng.choice(["t1", *tissue_wording.maps(slice_)]))
            write_picture(path, slice_, kind, rng)
            chosen = _least_asked(tissue_wording.questions(slice_, kind), asked, rng)
            records += [_record(question, name, split, number, rank) for rank, question in enumerate(chosen)]
            rows.append(row(folder, path, split, slice_, kind))
        (folder / "qas").mkdir(parents=True, exist_ok=True)
        (folder / "qas" / f"{split}_vqa.pkl").write_bytes(pickle.dumps(records, protocol=PROTOCOL))
    return rows


def _least_asked(
    possible: Sequence[tissue_wording.Question], asked: Counter[tuple[str, str]], rng: np.random.Generator
) -> list[tissue_wording.Question]:
    """Take the questions whose answer has been given least often so far, and count them.

    So every answer to a question comes up about as often as any other, and no answer is right without the picture.
    """
    shuffled = [possible[index] for index in rng.permutation(len(possible))]
    chosen = sorted(shuffled, key=lambda question: asked[question.text, question.answer])[:QUESTIONS_PER_PICTURE]
    asked.update((question.text, question.answer) for question in chosen)
    return chosen


def _record(question: tissue_wording.Question, name: str, split: str, number: int, rank: int) -> dict[str, Any]:
    return {
        "answer_type": "yes/no" if question.type == "yes/no" else "other",
        "img_id": name,
        "label": {question.answer: 1},
        "question_id": SPLIT_DIGITS[split] * 10**8 + number * 10**3 + rank,
        "question_type": question.type,
        "sent": question.text,
    }
