"""Answers that are none: counted beside the scores, never dropped from them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .answers import Answer
from .boxes import parse_box
from .words import normalise

REFUSALS = (
    "i cannot",
    "i can't",
    "i can not",
    "i am unable",
    "i'm unable",
    "i am not able",
    "i'm not able",
    "i am sorry",
    "i'm sorry",
    "sorry,",
    "as an ai",
    "as a language model",
    "as a large language model",
    "it is not possible to",
    "unable to determine",
    "unable to answer",
    "cannot be determined",
)
"""An answer that begins with one of these, whatever follows, is a refusal."""

_REFUSAL = re.compile("|".join(map(re.escape, REFUSALS)))


@dataclass(frozen=True)
class Counts:
    """How many answers of a dataset were none; each is counted under the first of these that fits.

    Attributes:
        empty: nothing but blanks.
        refusals: begin with one of `REFUSALS`.
        unparsable: REC answers that spell no box; CLS answers and answers to closed questions that are not among
            the right answers of the dataset's samples of that kind.
        dropped: samples that the released scores of reports leave out (an empty prediction or reference); they are
            in the paper's, with the score 0.
    """

    empty: int = 0
    refusals: int = 0
    unparsable: int = 0
    dropped: int = 0


def is_empty(text: str) -> bool:
    """Return whether a text is nothing but blanks."""
    return not text.strip()


def is_refusal(text: str) -> bool:
    """Return whether an answer declines to answer."""
    return _REFUSAL.match(text.strip().lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")) is not None


def counted(answers: Sequence[Answer], dropped: int = 0) -> Counts:
    """Return the counts of one dataset's answers."""
    empty = [is_empty(answer.prediction) for answer in answers]
    refused = [is_refusal(answer.prediction) for answer in answers]
    known = {normalise(answer.reference) for answer in answers if _has_classes(answer)}
    unparsable = [
        not (nothing or declined) and _unparsable(answer, known)
        for answer, nothing, declined in zip(answers, empty, refused, strict=True)
    ]
    return Counts(sum(empty), sum(refused), sum(unparsable), dropped)


def _has_classes(answer: Answer) -> bool:
    return answer.task == "CLS" or (answer.task == "VQA" and answer.closed)


def _unparsable(answer: Answer, known: set[str]) -> bool:
    if answer.task == "REC":
        return parse_box(answer.prediction) is None
    return _has_classes(answer) and normalise(answer.prediction) not in known
