"""Which metrics a task has, and the statistics of every sample under each."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from . import paper, regions, released, reports
from .answers import PRIMARY, Answer
from .statistics import Metric, Reasons, Statistics, counted

_Score = Callable[[Answer], float]


def statistics(answers: Sequence[Answer], primary_only: bool = False) -> tuple[Statistics, Reasons]:
    """Return the statistics of one dataset's answers under the metrics of their task, and why some are missing.

    Args:
        answers: to one dataset.
        primary_only: under the task's primary metric alone, which for reports saves most of the time.

    Raises:
        UserError: a box question whose reference is no box.
    """
    task = answers[0].task
    if not primary_only:
        return _TASKS[task](answers)
    found, reasons = reports.bleu(answers) if task == "RG" else _TASKS[task](answers)
    primary = PRIMARY[task]
    return (
        {metric: values for metric, values in found.items() if metric[0] == primary},
        {metric: reason for metric, reason in reasons.items() if metric[0] == primary},
    )


def _choice(answers: Sequence[Answer]) -> tuple[Statistics, Reasons]:
    """QA and CLS. No script for QA was published: its released accuracy is that of CLS."""
    return _means(answers, _ACCURACY), {}


def _phrase(answers: Sequence[Answer]) -> tuple[Statistics, Reasons]:
    """REG: accuracy, BLEU-1 and F1."""
    return _means(answers, _PHRASE), {}


def _question(answers: Sequence[Answer]) -> tuple[Statistics, Reasons]:
    """VQA: everything overall, on open and on closed questions, and recall on open ones (Med-MoE's protocol)."""
    overall = _means(answers, {**_PHRASE, ("accuracy", "released"): _released_vqa_accuracy})
    closed = np.array([answer.closed for answer in answers])
    kinds = (("open", ~closed, {**overall, **_means(answers, _RECALL)}), ("closed", closed, overall))
    found, reasons = dict(overall), {}
    for kind, members, statistics_of_all in kinds:
        for (name, flavour), values in statistics_of_all.items():
            if members.any():
                found[f"{name}_{kind}", flavour] = values * members[:, None]
            else:
                reasons[f"{name}_{kind}", flavour] = f"no question is {kind}"
    return found, reasons


def _released_vqa_accuracy(answer: Answer) -> float:
    """The scripts tell the accuracy of closed questions only; open ones are judged here as they judge classes."""
    score = released.accuracy_closed if answer.closed else released.accuracy
    return score(answer.prediction, answer.reference)


def _report(answers: Sequence[Answer]) -> tuple[Statistics, Reasons]:
    found, reasons = reports.released_statistics(answers)
    return {**reports.paper_statistics(answers), **found}, reasons


def _means(answers: Sequence[Answer], scores: Mapping[Metric, _Score]) -> Statistics:
    return {metric: counted([score(answer) for answer in answers]) for metric, score in scores.items()}


def _of_texts(score: Callable[[str, str], float]) -> _Score:
    return lambda answer: score(answer.prediction, answer.reference)


_ACCURACY: Mapping[Metric, _Score] = {
    ("accuracy", "paper"): _of_texts(paper.accuracy),
    ("accuracy", "released"): _of_texts(released.accuracy),
}
_PHRASE: Mapping[Metric, _Score] = {
    **_ACCURACY,
    ("bleu_1", "paper"): lambda answer: paper.bleu(answer.prediction, answer.reference, 1),
    ("bleu_1", "released"): _of_texts(released.bleu_1),
    ("f1", "paper"): _of_texts(paper.f1),
    ("f1", "released"): _of_texts(released.f1),
}
_RECALL: Mapping[Metric, _Score] = {
    ("recall", "paper"): _of_texts(paper.recall),
    ("recall", "released"): _of_texts(released.recall),
}
_TASKS: Mapping[str, Callable[[Sequence[Answer]], tuple[Statistics, Reasons]]] = {
    "QA": _choice,
    "VQA": _question,
    "RG": _report,
    "REC": regions.statistics,
    "REG": _phrase,
    "CLS": _choice,
}
