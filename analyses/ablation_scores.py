"""What the runs of an ablation came to: scores of every arm and dataset, Deltas of every arm and task."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analyses.ablation_runs import EVALUATION, STATISTICS, is_finished, read_record, run_folder
from analyses.ablation_tables import COLUMNS, QA, Row, Table, table_named
from analyses.paper_tables import DATASETS, TOTAL
from analyses.printing import ABSENT
from tugofwar.errors import UserError
from unimed_model.closed import nearest
from unimed_model.errors import UserError as ScoringError
from unimed_model.scoring import FLAVOURS, PRIMARY, Estimate, Tally, delta, estimate, load_tallies

METRIC_NAMES: Mapping[str, str] = {
    "accuracy": "Accuracy",
    "bleu_1": "BLEU-1",
    "bleu_4": "BLEU-4",
    "f1": "F1",
    "iou": "IoU",
    "meteor": "METEOR",
    "recall_at_0.5": "R@0.5",
    "rouge_1": "ROUGE-1",
    "rouge_2": "ROUGE-2",
    "rouge_l": "ROUGE-L",
}
"""Metric -> how the paper writes it."""


@dataclass(frozen=True)
class Score:
    """A number of a table, in percent.

    Attributes:
        value: mean over runs; None if there is none.
        low: lower end of its 95 % interval; None if there is none.
        high: upper end.
        deviation: standard deviation over runs; None with a single one.
        reason: why there is no value or no interval.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    deviation: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Arm:
    """An arm and what is there of it.

    Attributes:
        row: its row of the table.
        seeds: those whose runs are finished.
        parameters: of connector and router; None before a run is finished.
        tallies: dataset -> of each finished run.
        values: dataset -> score by the task's primary metric.
        deltas: task or ``Total`` -> Delta; empty for a baseline and where either has no run.
    """

    row: Row
    seeds: tuple[int, ...]
    parameters: int | None
    tallies: Mapping[str, Sequence[Tally]]
    values: Mapping[str, Score]
    deltas: Mapping[str, Score]


@dataclass(frozen=True)
class Results:
    """An ablation as it stands.

    Attributes:
        table: the table.
        seeds: runs asked for per arm.
        flavour: how answers are scored.
        tasks: task -> its datasets, in the order of the columns.
        arms: in the order of the rows.
        preset: what was trained.
    """

    table: Table
    seeds: int
    flavour: str
    tasks: Mapping[str, Sequence[str]]
    arms: Sequence[Arm]
    preset: str


def results(out: Path, flavour: str) -> Results:
    """Return what the finished runs in an ablation's folder came to.

    Raises:
        UserError: no ablation, an unknown flavour, or an evaluation that cannot be read.
    """
    require_flavour(flavour)
    record = read_record(out)
    table = table_named(record["table"])
    found = {row.arm: _tallies(out, row.arm, record["seeds"]) for row in table.rows}
    arms = [_arm(out, row, found, flavour) for row in table.rows]
    return Results(table, record["seeds"], flavour, _columns(record["datasets"], arms), arms, str(record.get("preset")))


def require_flavour(flavour: str) -> None:
    """Raise a UserError, with the nearest name, unless a flavour is known."""
    if flavour not in FLAVOURS:
        raise UserError(f"There is no flavour {flavour!r}; the nearest is {nearest(flavour, FLAVOURS)!r}.")


def percent(found: Estimate, runs: Sequence[float] = (), scale: float = 100.0) -> Score:
    """Return an estimate as a score in percent.

    Args:
        found: the estimate.
        runs: value of each run, for the standard deviation.
        scale: what the estimate is multiplied by.
    """

    def finite(number: float) -> float | None:
        return float(number * scale) if np.isfinite(number) else None

    deviation = finite(float(np.std(runs, ddof=1))) if len(runs) > 1 else None
    interval = (None, None) if found.undefined else (finite(found.low), finite(found.high))
    return Score(finite(found.value), *interval, deviation, found.undefined)


def value_text(score: Score) -> str:
    """Return a value with its deviation over runs and its interval."""
    if score.value is None:
        return ABSENT
    deviation = "" if score.deviation is None else f" ± {score.deviation:.2f}"
    interval = "" if score.low is None or score.high is None else f" [{score.low:.2f}, {score.high:.2f}]"
    return f"{score.value:.2f}{deviation}{interval}"


def score(tallies: Sequence[Tally], metric: str, flavour: str) -> Score:
    """Return a metric of one or several runs on the same samples; a score without value says why."""
    try:
        found = estimate(tallies, metric, flavour)
        return percent(found, [tally.value(metric, flavour) for tally in tallies])
    except ScoringError as error:
        return Score(reason=str(error))


def _arm(out: Path, row: Row, found: Mapping[str, Mapping[int, Sequence[Tally]]], flavour: str) -> Arm:
    tallies = _by_dataset(found[row.arm])
    values = {name: score(runs, PRIMARY[runs[0].task], flavour) for name, runs in tallies.items()}
    baseline = _by_dataset(found[row.baseline]) if row.baseline else {}
    deltas = _deltas(tallies, baseline, flavour) if tallies and baseline else {}
    seeds = tuple(found[row.arm])
    return Arm(row, seeds, _parameters(out, row.arm, seeds), tallies, values, deltas)


def _deltas(
    ours: Mapping[str, Sequence[Tally]], theirs: Mapping[str, Sequence[Tally]], flavour: str
) -> dict[str, Score]:
    tasks = {name: runs[0].task for name, runs in ours.items()}
    groups = {task: [name for name in tasks if tasks[name] == task] for task in COLUMNS}
    groups[TOTAL] = [name for name in tasks if tasks[name] != QA]
    return {group: _delta(names, ours, theirs, flavour) for group, names in groups.items() if names}


def _delta(
    names: Sequence[str], ours: Mapping[str, Sequence[Tally]], theirs: Mapping[str, Sequence[Tally]], flavour: str
) -> Score:
    """Delta over some datasets (Section 4.1), which the baseline must have, too."""
    lacking = [name for name in names if name not in theirs]
    if lacking:
        return Score(reason=f"the baseline was not evaluated on {', '.join(lacking)}")
    models, baselines = ({name: side[name] for name in names} for side in (ours, theirs))
    try:
        return percent(delta(models, baselines, PRIMARY.__getitem__, flavour), scale=1.0)
    except ScoringError as error:
        return Score(reason=str(error))


def _tallies(out: Path, arm: str, seeds: int) -> dict[int, list[Tally]]:
    """Tallies of an arm's finished runs, by seed."""
    found = {}
    for seed in range(seeds):
        run = run_folder(out, arm, seed)
        if is_finished(run):
            found[seed] = load_tallies(run / EVALUATION / STATISTICS)
    return found


def _by_dataset(runs: Mapping[int, Sequence[Tally]]) -> dict[str, list[Tally]]:
    """Tallies by dataset, those that every run has."""
    grouped: dict[str, list[Tally]] = {}
    for tallies in runs.values():
        for tally in tallies:
            grouped.setdefault(tally.dataset, []).append(tally)
    return {name: tallies for name, tallies in grouped.items() if len(tallies) == len(runs)}


def _columns(offered: Mapping[str, str], arms: Sequence[Arm]) -> dict[str, list[str]]:
    """Task -> datasets: the paper's in its order, then others in the root's; those of no finished run only if none is.

    Args:
        offered: dataset -> task, in the data root's order.
        arms: the arms.
    """
    evaluated = {name: runs[0].task for arm in arms for name, runs in arm.tallies.items()}
    known = evaluated or dict(offered)
    order = [*(name for name in DATASETS if name in known), *offered, *known]
    names = [name for name in dict.fromkeys(order) if name in known]
    columns = {task: [name for name in names if known[name] == task] for task in COLUMNS}
    return {task: datasets for task, datasets in columns.items() if datasets}


def _parameters(out: Path, arm: str, seeds: Sequence[int]) -> int | None:
    for seed in seeds:
        content: Any = json.loads((run_folder(out, arm, seed) / "run.json").read_text(encoding="utf-8"))
        parameters = content.get("parameters")
        if isinstance(parameters, dict) and isinstance(parameters.get("connector"), int):
            return int(parameters["connector"])
    return None
