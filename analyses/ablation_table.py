"""The table of an ablation in the paper's layout, and the comparison of two of its arms."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analyses.ablation_runs import read_record
from analyses.ablation_scores import METRIC_NAMES, Arm, Results, Score, percent, require_flavour, results, value_text
from analyses.ablation_tables import QA, require_arm, table_named
from analyses.paper_tables import DATASETS, TOTAL
from analyses.printing import ABSENT, Grid, printed, require_format
from tugofwar.errors import UserError
from unimed_model.errors import UserError as ScoringError
from unimed_model.scoring import PRIMARY, difference

NOT_RUN = "not run"


def table_text(out: Path, form: str, flavour: str) -> str:
    """Return the table of an ablation.

    Args:
        out: folder of the ablation.
        form: ``markdown``, ``csv`` or ``latex``.
        flavour: ``paper`` or ``released``.

    Raises:
        UserError: no ablation there, or an unknown format or flavour.
    """
    require_format(form)
    found = results(out, flavour)
    return printed(form, grid(found), records(found))


def grid(found: Results) -> Grid:
    """Return the table as the paper lays it out: per task the datasets' values side by side, and Delta."""
    headings = [*found.table.headings, "Arm", "Seeds"]
    for task, datasets in found.tasks.items():
        names = " / ".join(DATASETS.get(name, name) for name in datasets)
        headings += [f"{task} {METRIC_NAMES[PRIMARY[task]]}: {names}", f"Δ {task}"]
    headings += [f"{TOTAL} Δ", "Connector parameters"]
    rows = [_row(found, arm) for arm in found.arms]
    rules = [
        number for number, arm in enumerate(found.arms) if number and arm.row.ours > found.arms[number - 1].row.ours
    ]
    if found.table.name == "2d":  # a group per rank, as in the paper
        rules = [number for number, arm in enumerate(found.arms) if number and arm.row.baseline is None]
    title = f"Table {found.table.name}: {found.table.title} (preset {found.preset}, scores as in: {found.flavour})"
    return Grid(title, headings, rows, _notes(found), rules)


def _row(found: Results, arm: Arm) -> list[str]:
    cells = [*arm.row.labels, arm.row.arm, _seeds(arm, found.seeds)]
    for task, datasets in found.tasks.items():
        values = [_value(arm.values.get(name)) for name in datasets]
        cells += [" / ".join(values) if arm.seeds else ABSENT, _delta(arm, task)]
    return [*cells, _delta(arm, TOTAL), ABSENT if arm.parameters is None else f"{arm.parameters:,}"]


def _seeds(arm: Arm, asked: int) -> str:
    if not arm.seeds:
        return NOT_RUN
    return str(asked) if len(arm.seeds) == asked else f"{len(arm.seeds)} of {asked}"


def _value(score: Score | None) -> str:
    return ABSENT if score is None else value_text(score)


def _delta(arm: Arm, group: str) -> str:
    if arm.row.baseline is None:
        return ""
    score = arm.deltas.get(group)
    if score is None or score.value is None:
        return ABSENT
    interval = "" if score.low is None or score.high is None else f" [{score.low:.1f}, {score.high:.1f}]"
    return f"{score.value:.1f}%{interval}"


def _notes(found: Results) -> list[str]:
    notes = [
        "Values in percent: mean over seeds ± standard deviation over seeds (where there are several), [95 % "
        "interval].",
        f"Δ: mean relative gain over the baseline of the same table (Section 4.1), [95 % interval]; {TOTAL} Δ: over "
        "all datasets" + (", QA left out, which the paper's tables do not have." if QA in found.tasks else "."),
    ]
    waiting = [arm.row.arm for arm in found.arms if not arm.seeds]
    if waiting:
        notes.append(f"Not run yet: {', '.join(waiting)}.")
    short = [f"{arm.row.arm} ({len(arm.seeds)})" for arm in found.arms if 0 < len(arm.seeds) < found.seeds]
    if short:
        notes.append(f"Fewer seeds than the {found.seeds} asked for: {', '.join(short)}.")
    if ours := [arm.row.arm for arm in found.arms if arm.row.ours]:
        notes.append(f"Not in the paper: {', '.join(ours)}.")
    return [*notes, *_reasons(found)]


def _reasons(found: Results) -> list[str]:
    """Why values or intervals are missing, each reason once, with where it holds."""
    where: dict[str, list[str]] = {}
    for arm in found.arms:
        for name, score in arm.values.items():
            if score.reason:
                where.setdefault(score.reason.rstrip("."), []).append(f"{arm.row.arm} {DATASETS.get(name, name)}")
        for group, score in arm.deltas.items():
            if score.reason:
                where.setdefault(score.reason.rstrip("."), []).append(f"{arm.row.arm} Δ {group}")
    return [f"No value or no interval, {reason}: {', '.join(places)}." for reason, places in where.items()]


def records(found: Results) -> list[dict[str, Any]]:
    """Return the numbers of the table, one per record: a value per arm and dataset, a Delta per arm and task."""
    lines = []
    for arm in found.arms:
        task_of = {name: runs[0].task for name, runs in arm.tallies.items()}
        for name in (name for datasets in found.tasks.values() for name in datasets if name in arm.values):
            metric = PRIMARY[task_of[name]]
            lines.append(_record(found, arm, task_of[name], name, metric, arm.values[name]))
        groups = [group for group in (*found.tasks, TOTAL) if group in arm.deltas]
        lines += [_record(found, arm, group, None, "delta", arm.deltas[group]) for group in groups]
        if not arm.seeds:
            lines.append(_record(found, arm, None, None, None, Score(reason=NOT_RUN)))
    return lines


def _record(
    found: Results, arm: Arm, task: str | None, dataset: str | None, metric: str | None, score: Score
) -> dict[str, Any]:
    return {
        "table": found.table.name,
        "arm": arm.row.arm,
        "baseline": arm.row.baseline,
        "seeds": len(arm.seeds),
        "seeds_asked": found.seeds,
        "parameters": arm.parameters,
        "task": task,
        "dataset": dataset,
        "metric": metric,
        "flavour": found.flavour,
        "value": score.value,
        "low": score.low,
        "high": score.high,
        "deviation": score.deviation,
        "reason": score.reason,
    }


def comparison_text(out: Path, arm: str, other: str, form: str, flavour: str) -> str:
    """Return the paired difference of two arms of an ablation, arm minus other, on every dataset.

    Args:
        out: folder of the ablation.
        arm: an arm of its table.
        other: another.
        form: ``markdown``, ``csv`` or ``latex``.
        flavour: ``paper`` or ``released``.

    Raises:
        UserError: an unknown arm, format or flavour, an arm without a finished run, or other samples in the two.
    """
    require_format(form)
    require_flavour(flavour)
    for name in (arm, other):
        require_arm(table_named(read_record(out)["table"]), name)
    found = results(out, flavour)
    arms = {candidate.row.arm: candidate for candidate in found.arms}
    for name in (arm, other):
        if not arms[name].seeds:
            raise UserError(f"{name} has no finished run in {out}; run it first.")
    lines = _differences(found, arms[arm], arms[other])
    headings = ["Dataset", "Metric", arm, other, "Difference", "p"]
    rows = [
        [
            DATASETS.get(line["dataset"], line["dataset"]),
            METRIC_NAMES[line["metric"]],
            value_text(arms[arm].values[line["dataset"]]),
            value_text(arms[other].values[line["dataset"]]),
            value_text(Score(line["value"], line["low"], line["high"])),
            ABSENT if line["p_value"] is None else f"{line['p_value']:.3g}",
        ]
        for line in lines
    ]
    notes = [
        f"Difference: {arm} minus {other}, paired by sample, in percentage points, [95 % interval]; p two-sided, not "
        "adjusted for the number of datasets.",
        *(f"{line['dataset']}: {line['reason']}" for line in lines if line["reason"]),
    ]
    return printed(form, Grid(f"{arm} against {other} (scores as in: {flavour})", headings, rows, notes), lines)


def _differences(found: Results, arm: Arm, other: Arm) -> list[dict[str, Any]]:
    shared = [
        name for datasets in found.tasks.values() for name in datasets if name in arm.tallies and name in other.tallies
    ]
    if not shared:
        raise UserError(f"{arm.row.arm} and {other.row.arm} were evaluated on no common dataset.")
    return [_difference(name, arm.tallies, other.tallies, found.flavour) for name in shared]


def _difference(
    name: str, ours: Mapping[str, Sequence[Any]], theirs: Mapping[str, Sequence[Any]], flavour: str
) -> dict[str, Any]:
    metric = PRIMARY[ours[name][0].task]
    try:
        found = difference(ours[name], theirs[name], metric, flavour)
        score, p_value = percent(found), found.p_value
    except ScoringError as error:
        score, p_value = Score(reason=str(error)), None
    return {
        "dataset": name,
        "metric": metric,
        "flavour": flavour,
        "value": score.value,
        "low": score.low,
        "high": score.high,
        "p_value": p_value,
        "reason": score.reason,
    }
