"""What ``scores.json``, ``scores.csv`` and ``sample_statistics.parquet`` say of one model's answers."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from .errors import UserError
from .folders import replacing
from .predictions import by_dataset
from .scoring import FLAVOURS, PRIMARY, Answer, Estimate, Tally, difference, estimate, estimates, save_tallies, tally

SCORES, TABLE, STATISTICS = "scores.json", "scores.csv", "sample_statistics.parquet"
INTERVAL = "95 %, bootstrap over images; over samples where they have no image"


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval; the ends are None where there is none, as on a single image."""

    value: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        return self._text("{:.3f}")

    def _text(self, number: str) -> str:
        ends = [number.format(end) for end in (self.low, self.high) if end is not None]
        return f"{number.format(self.value)} [{', '.join(ends) or 'no interval'}]"


@dataclass(frozen=True)
class Lead(Interval):
    """A difference on the same samples, and how surely it is not 0 (two-sided, paired)."""

    p_value: float | None

    def __str__(self) -> str:
        return self._text("{:+.3f}")


@dataclass(frozen=True)
class DatasetResult:
    """Scores of one dataset.

    Attributes:
        task: its task.
        samples: how many were answered.
        images: on how many images; 0 for text alone, whose intervals are over samples.
        empty: answers without any text; they are scored as they are.
        refusals: answers that decline to answer; they are scored as they are.
        unparsable: answers that spell no box, or none of the classes that are asked for; they are scored as they are.
        dropped: samples that the released scores of reports leave out.
        primary: the metric of Tables 2 and 5, by which baselines are compared.
        metrics: flavour -> metric -> value and interval.
        unavailable: flavour -> metric -> why it was not computed.
        baselines: baseline -> flavour -> the primary metric's name, with its value, and ``lead``, the model's over it.
        skipped: split -> reason -> number of samples that were left out of it; splits with none are not named.
    """

    task: str
    samples: int
    images: int
    empty: int
    refusals: int
    unparsable: int
    dropped: int
    primary: str
    metrics: dict[str, dict[str, Interval]]
    unavailable: dict[str, dict[str, str]]
    baselines: dict[str, dict[str, dict[str, Interval]]] = field(default_factory=dict)
    skipped: dict[str, dict[str, int]] = field(default_factory=dict)


def result_of(tallied: Tally, answers: Sequence[Answer]) -> DatasetResult:
    """Return the scores of one dataset.

    Args:
        tallied: what ``tally`` made of the answers.
        answers: to one dataset.
    """
    metrics: dict[str, dict[str, Interval]] = {flavour: {} for flavour in FLAVOURS}
    unavailable: dict[str, dict[str, str]] = {flavour: {} for flavour in FLAVOURS}
    for (metric, flavour), found in estimates([tallied]).items():
        if math.isnan(found.value):
            unavailable[flavour][metric] = found.undefined or "undefined"
        else:
            metrics[flavour][metric] = interval_of(found)
    for (metric, flavour), reason in tallied.unavailable.items():
        unavailable[flavour][metric] = reason
    return DatasetResult(
        task=tallied.task,
        samples=len(answers),
        images=len({answer.image_id for answer in answers} - {None}),
        **asdict(tallied.counts),
        primary=PRIMARY[tallied.task],
        metrics=metrics,
        unavailable=unavailable,
    )


def with_baselines(
    result: DatasetResult, tallied: Tally, answers: Sequence[Answer], baselines: Mapping[str, Sequence[str]]
) -> DatasetResult:
    """Return a result with its baselines beside it, compared by the primary metric, sample by sample.

    Args:
        result: of a model.
        tallied: of the same.
        answers: of the same.
        baselines: name -> its answers to the same samples.
    """
    compared = {}
    for name, texts in baselines.items():
        answered = [replace(a, prediction=text) for a, text in zip(answers, texts, strict=True)]
        theirs = tally(answered, primary_only=True)
        common = [
            flavour for flavour in FLAVOURS if (result.primary, flavour) in {*tallied.metrics} & {*theirs.metrics}
        ]
        compared[name] = {
            flavour: {
                result.primary: interval_of(estimate([theirs], result.primary, flavour)),
                "lead": lead([tallied], [theirs], result.primary, flavour),
            }
            for flavour in common
        }
    return replace(result, baselines=compared)


def lead(ours: Sequence[Tally], theirs: Sequence[Tally], metric: str, flavour: str) -> Lead:
    """Return how far one model (its seeds) is ahead of another on the same samples."""
    found = difference(ours, theirs, metric, flavour)
    return Lead(found.value, _end(found.low), _end(found.high), found.p_value)


def interval_of(found: Estimate) -> Interval:
    """Return an estimate as it is written."""
    return Interval(found.value, _end(found.low), _end(found.high))


def _end(value: float) -> float | None:
    return None if math.isnan(value) else value


def write_scores(
    folder: Path, results: Mapping[str, DatasetResult], tallies: Sequence[Tally], facts: Mapping[str, Any]
) -> None:
    """Write the three files into a folder.

    Args:
        folder: where to.
        results: dataset -> its scores.
        tallies: of the same datasets.
        facts: what else ``scores.json`` says, such as the split.
    """
    content = {**facts, "interval": INTERVAL, "datasets": {name: asdict(result) for name, result in results.items()}}
    (folder / SCORES).write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    with (folder / TABLE).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("dataset", "task", "flavour", "metric", "value", "low", "high", "samples", "images"))
        writer.writerows(_rows(results))
    save_tallies(folder / STATISTICS, tallies)


def _rows(results: Mapping[str, DatasetResult]) -> list[tuple[Any, ...]]:
    return [
        (name, result.task, flavour, metric, found.value, found.low, found.high, result.samples, result.images)
        for name, result in results.items()
        for flavour, metrics in result.metrics.items()
        for metric, found in metrics.items()
    ]


def require_replaceable(out: Path) -> None:
    """Raise a UserError unless a folder is absent, empty or an evaluation."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; name a folder with --out.")
    if out.is_dir() and any(out.iterdir()) and not (out / SCORES).is_file():
        raise UserError(f"{out} exists and holds no evaluation; choose another --out or remove it.")


def score_answers(answers: Sequence[Answer], out: Path | None = None) -> dict[str, DatasetResult]:
    """Score answers to one or more datasets, and write the scores into a folder if one is named, all or nothing.

    Raises:
        UserError: an output folder that holds something else.
    """
    if out is not None:
        require_replaceable(out)
    grouped = by_dataset(answers)
    tallies = {name: tally(found) for name, found in grouped.items()}
    results = {name: result_of(tallies[name], found) for name, found in grouped.items()}
    if out is not None:
        with replacing(out) as folder:
            write_scores(folder, results, list(tallies.values()), {})
    return results
