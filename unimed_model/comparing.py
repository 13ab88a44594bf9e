"""Two models on the same samples: both values, their difference, and how surely it is one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import UserError
from .predictions import by_dataset, read_predictions
from .scores import STATISTICS, Interval, Lead, interval_of, lead
from .scoring import FLAVOURS, Tally, estimate, load_tallies, tally

Side = dict[str, list[Tally]]
"""Dataset -> the tallies of a model's runs (seeds)."""


@dataclass(frozen=True)
class Compared:
    """One metric of one dataset.

    Attributes:
        first: of the first model; with several runs, their mean.
        second: of the second.
        difference: first minus second, paired by sample.
    """

    first: Interval
    second: Interval
    difference: Lead


@dataclass(frozen=True)
class DatasetComparison:
    """One dataset.

    Attributes:
        task: its task.
        samples: how many were answered.
        runs: of the first and of the second model.
        metrics: flavour -> metric -> what came out.
        unavailable: flavour -> metric -> why one of the two lacks it.
    """

    task: str
    samples: int
    runs: tuple[int, int]
    metrics: dict[str, dict[str, Compared]]
    unavailable: dict[str, dict[str, str]]


def open_side(names: str) -> Side:
    """Return the tallies of a model: an evaluation folder, run folder or prediction file, or several with commas.

    Raises:
        UserError: one of them does not exist or holds neither statistics nor predictions; or the runs were not asked
            the same samples.
    """
    # a path may have a comma itself
    paths = [Path(names)] if Path(names).exists() else [Path(name.strip()) for name in names.split(",") if name.strip()]
    if not paths:
        raise UserError("Name a run folder, an evaluation folder or a file of predictions.")
    runs = [{found.dataset: found for found in _tallies(path)} for path in paths]
    for path, run in zip(paths[1:], runs[1:], strict=True):
        if set(run) != set(runs[0]):
            raise UserError(f"{path} and {paths[0]} hold other datasets, so they are no runs of one model.")
    side = {name: [run[name] for run in runs] for name in runs[0]}
    for name, tallies in side.items():
        for path, found in zip(paths, tallies, strict=True):
            _require_same_samples(tallies[0], found, f"{name} in {paths[0]} and {path}")
    return side


def _tallies(path: Path) -> list[Tally]:
    if not path.exists():
        raise UserError(f"{path} does not exist; name a run folder, an evaluation folder or a file of predictions.")
    if not path.is_dir():
        return _of_predictions(path)
    for folder in (path, path / "evaluation"):
        if (folder / STATISTICS).is_file():
            return load_tallies(folder / STATISTICS)
        if (folder / "predictions.jsonl").is_file():
            return _of_predictions(folder / "predictions.jsonl")
    raise UserError(f"{path} holds no evaluation; make one with: unimed-eval {path} --data ROOT")


def _of_predictions(path: Path) -> list[Tally]:
    return [tally(answers) for answers in by_dataset(read_predictions(path)).values()]


def _require_same_samples(first: Tally, second: Tally, where: str) -> None:
    if first.task != second.task:
        raise UserError(f"{where} have the tasks {first.task} and {second.task}.")
    if lacking := set(first.ids) ^ set(second.ids):
        raise UserError(
            f"{where} are answers to other samples: {len(lacking)} of them, such as {min(lacking)!r}, are in only one."
        )


def compare(
    first: Mapping[str, Sequence[Tally]], second: Mapping[str, Sequence[Tally]]
) -> dict[str, DatasetComparison]:
    """Return dataset -> the comparison of two models, for the datasets that both have answered.

    Raises:
        UserError: they share no dataset, or other samples of one.
    """
    shared = [name for name in first if name in second]
    if not shared:
        raise UserError(f"They share no dataset: the first has {', '.join(first)}, the second {', '.join(second)}.")
    for name in shared:
        _require_same_samples(first[name][0], second[name][0], f"{name} of the first and of the second")
    return {name: _compared(first[name], second[name]) for name in shared}


def _compared(first: Sequence[Tally], second: Sequence[Tally]) -> DatasetComparison:
    everywhere = set.intersection(*(set(found.metrics) for found in (*first, *second)))
    metrics: dict[str, dict[str, Compared]] = {flavour: {} for flavour in FLAVOURS}
    unavailable: dict[str, dict[str, str]] = {flavour: {} for flavour in FLAVOURS}
    for metric, flavour in first[0].metrics:
        if (metric, flavour) in everywhere:
            ours, theirs = (estimate(side, metric, flavour) for side in (first, second))
            metrics[flavour][metric] = Compared(
                interval_of(ours),
                interval_of(theirs),
                lead(first, second, metric, flavour),
            )
    for found in (*first, *second):
        for (metric, flavour), reason in found.unavailable.items():
            unavailable[flavour][metric] = reason
    return DatasetComparison(first[0].task, len(first[0].ids), (len(first), len(second)), metrics, unavailable)
