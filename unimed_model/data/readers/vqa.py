"""What the readers of visual questions share: how a record becomes a sample, and the hub's Parquet form."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unimed_model.data.cells import read_rows
from unimed_model.data.findings import Findings
from unimed_model.data.images import ImageSource
from unimed_model.data.readers.duplicates import Duplicates
from unimed_model.data.readers.request import ImageOptions, Request, finish
from unimed_model.data.sample import Sample, Samples
from unimed_model.data.templates import evaluation_instruction
from unimed_model.errors import UserError

COLUMNS = ("question", "answer")
IMAGE = "image"
_LISTED = 3


@dataclass(frozen=True, slots=True)
class Question:
    """A record of any of the published forms.

    Attributes:
        where: file and record, for a message.
        sample_id: unique in the split.
        image_id: shared by all questions about one image.
        question: without blanks at its ends, as the answer is.
        answer: the answer.
        answer_type: OPEN or CLOSED.
        image: how to open the image.
        has_image: False where the data themselves lack it.
        meta: what else the record tells.
    """

    where: str
    sample_id: str
    image_id: str
    question: str
    answer: str
    answer_type: str
    image: ImageSource
    has_image: bool = True
    meta: dict[str, Any] = field(default_factory=dict)


def text_of(record: dict[str, Any], key: str, where: str) -> str:
    """Return a text or number of a record as text, without blanks at its ends; null is the empty text.

    Raises:
        UserError: the key is missing, or its value is something else; the sentence starts with `where`.
    """
    if key not in record:
        raise UserError(f"{where}: the key {key!r} is missing.")
    return as_text(record[key], key, where)


def as_text(value: object, key: str, where: str) -> str:
    """Return a text or number as text, without blanks at its ends; null and not-a-number are the empty text.

    Raises:
        UserError: it is something else; the sentence starts with `where`.
    """
    if isinstance(value, str):
        return value.strip()
    if value is None or value != value:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{where}: {key!r} must be a text or a number, not of type {type(value).__name__}.")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def answer_type(answer: str) -> str:
    """Return CLOSED for yes and no, else OPEN: for the forms that do not say."""
    return "CLOSED" if answer.lower() in ("yes", "no") else "OPEN"


def hub_questions(shards: Sequence[Path], split: str) -> Iterator[Question]:
    """Yield the rows of `data/<split>-*.parquet` with the columns image, question and answer.

    There are no ids: an image is named by a digest of its bytes, a question by its row in the split.

    Raises:
        UserError: a shard is missing or damaged, or a cell is not a text.
    """
    for number, row in enumerate(read_rows(shards, COLUMNS, IMAGE)):
        answer = text_of(row.values, "answer", row.where)
        assert row.image is not None
        yield Question(
            row.where,
            sample_id=f"{split}-{number}",
            image_id=row.digest or f"{split}-{number}",
            question=text_of(row.values, "question", row.where),
            answer=answer,
            answer_type=answer_type(answer),
            image=row.image,
            has_image=row.digest is not None,
            meta={"form": "parquet"},
        )


def as_samples(request: Request, questions: Iterable[Question], options: ImageOptions) -> Samples:
    """Return the questions as samples; what is empty or lacks its image is left out, duplicates are noted.

    Raises:
        UserError: images are missing and the options do not say to skip them.
    """
    findings = Findings()
    samples: list[Sample] = []
    lacking: list[str] = []
    duplicates = Duplicates(findings)
    for asked in questions:
        if not asked.question or not asked.answer:
            findings.leave_out("empty answer" if asked.question else "empty question", asked.where)
            continue
        if request.images and not asked.has_image:
            lacking.append(asked.where)
            continue
        samples.append(_sample(request, asked))
        duplicates.see(samples[-1], asked.where)
    if lacking and options.missing_images == "error":
        raise _missing(request.dataset, lacking)
    if lacking:
        findings.leave_out("missing image", lacking[0], len(lacking))
    return finish(request, samples, findings, options.missing_images)


def _missing(dataset: str, places: Sequence[str]) -> UserError:
    listed = "; ".join(places[:_LISTED]) + ("; …" if len(places) > _LISTED else "")
    cells = "cell holds" if len(places) == 1 else "cells hold"
    return UserError(
        f"{dataset}: {len(places)} {cells} no image ({listed}); download the files again, leave these samples out with "
        "--skip-missing (missing_images='skip'), or ask for annotations alone (images=False)."
    )


def _sample(request: Request, asked: Question) -> Sample:
    return request.sample(
        sample_id=asked.sample_id,
        image_id=asked.image_id,
        patient_id=None,
        instruction=evaluation_instruction("vqa", asked.question),
        answer=asked.answer,
        meta={"templates": "vqa", "subject": asked.question, "answer_type": asked.answer_type, **asked.meta},
        image_source=asked.image,
    )
