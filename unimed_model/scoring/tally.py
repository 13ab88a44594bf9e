"""Everything that scoring needs to know of one dataset's answers, without their text."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from unimed_model.errors import UserError

from .aggregates import aggregate_of
from .answers import PRIMARY, Answer
from .counts import Counts, counted
from .metrics import statistics
from .reports import dropped
from .statistics import Metric


@dataclass(frozen=True)
class Tally:
    """Additive statistics of every sample under every metric.

    Attributes:
        dataset: name of the dataset.
        task: its task.
        ids: of the samples.
        clusters: of each sample: what the bootstrap draws together, its image or it alone.
        statistics: (metric, flavour) -> (samples, k) array; summed over samples it determines the score.
        counts: answers that are none.
        unavailable: (metric, flavour) -> why it could not be computed.
    """

    dataset: str
    task: str
    ids: tuple[str, ...]
    clusters: tuple[str, ...]
    statistics: Mapping[Metric, NDArray[np.float64]]
    counts: Counts = field(default_factory=Counts)
    unavailable: Mapping[Metric, str] = field(default_factory=dict)

    @property
    def metrics(self) -> list[Metric]:
        """(metric, flavour) of all scores there are."""
        return list(self.statistics)

    def value(self, metric: str, flavour: str) -> float:
        """Return a score in [0, 1].

        Raises:
            UserError: the dataset has no such score; says why.
        """
        return float(aggregate_of(self.task, metric, flavour)(self.of(metric, flavour).sum(axis=0)))

    def scored(self, metric: str, flavour: str) -> int:
        """Return how many samples count in a score: of closed questions, say, or of reports that are not dropped.

        Raises:
            UserError: the dataset has no such score; says why.
        """
        return int(self.of(metric, flavour).any(axis=1).sum())

    def of(self, metric: str, flavour: str) -> NDArray[np.float64]:
        """Return the (samples, k) statistics of a metric.

        Raises:
            UserError: the dataset has no such score; says why.
        """
        found = self.statistics.get((metric, flavour))
        if found is not None:
            return found
        reason = self.unavailable.get((metric, flavour))
        if reason is None:
            have = ", ".join(f"{name} ({kind})" for name, kind in self.metrics)
            reason = f"a {self.task} dataset has {have}"
        raise UserError(f"{self.dataset} has no {metric} ({flavour}): {reason}.")


def tally(answers: Sequence[Answer], primary_only: bool = False) -> Tally:
    """Score the answers to one dataset's samples under every metric of its task, in both flavours.

    Args:
        answers: to one dataset.
        primary_only: under the primary metric alone.

    Raises:
        UserError: no answers, answers of several datasets or tasks, an unknown task, an id that comes twice, or a box
            question whose reference is no box.
    """
    _check(answers)
    first = answers[0]
    found, unavailable = statistics(answers, primary_only)
    left_out = sum(map(dropped, answers)) if first.task == "RG" else 0
    return Tally(
        dataset=first.dataset,
        task=first.task,
        ids=tuple(answer.id for answer in answers),
        clusters=tuple(answer.cluster for answer in answers),
        statistics=found,
        counts=counted(answers, left_out),
        unavailable=unavailable,
    )


def _check(answers: Sequence[Answer]) -> None:
    if not answers:
        raise UserError("there are no answers to score.")
    kinds = {(answer.dataset, answer.task) for answer in answers}
    if len(kinds) > 1:
        (name, task), (other, another) = sorted(kinds)[:2]
        raise UserError(f"answers are scored by dataset, but here are {name} ({task}) and {other} ({another}).")
    if answers[0].task not in PRIMARY:
        raise UserError(f"{answers[0].dataset}: unknown task {answers[0].task!r}; tasks are {', '.join(PRIMARY)}.")
    twice = [name for name, times in Counter(answer.id for answer in answers).items() if times > 1]
    if twice:
        raise UserError(f"{answers[0].dataset}: the id {twice[0]!r} comes more than once.")
