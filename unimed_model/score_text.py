"""Scores and comparisons as aligned text for a terminal, both flavours side by side."""

from collections.abc import Iterable, Mapping, Sequence

from .comparing import Compared, DatasetComparison
from .data.left_out import missing_images, missing_line
from .scores import DatasetResult, Lead
from .scoring import FLAVOURS

_NONE = "-"


def results_text(results: Mapping[str, DatasetResult]) -> str:
    """Return a table per dataset, and at the end, once, why metrics are not available."""
    parts = [_result_text(name, result) for name, result in results.items()]
    reasons = _reasons((result.task, result.unavailable) for result in results.values())
    return "\n".join([*parts, *reasons])


def _result_text(name: str, result: DatasetResult) -> str:
    on_images = f" on {result.images} images" if result.images else ""
    head = f"{name} ({result.task}): {result.samples} samples{on_images}; {_counts(result)}"
    metrics = list(dict.fromkeys(metric for flavour in FLAVOURS for metric in result.metrics[flavour]))
    rows = [(metric, *(_cell(result.metrics[flavour].get(metric)) for flavour in FLAVOURS)) for metric in metrics]
    for baseline, found in result.baselines.items():
        theirs = (found.get(flavour, {}) for flavour in FLAVOURS)
        rows.append((f"{result.primary} of {baseline}", *(_cell(f.get(result.primary)) for f in theirs)))
        rows.append(("  lead over it", *(_cell(found.get(flavour, {}).get("lead")) for flavour in FLAVOURS)))
    missing = missing_images(result.skipped)
    table = _table([("", *FLAVOURS), *rows])
    return "\n".join([head, table, *([f"  {missing_line(missing)}"] if missing else [])])


def _counts(result: DatasetResult) -> str:
    counted = f"{result.empty} empty, {result.unparsable} unparsable, {result.refusals} refused"
    return f"{counted}, {result.dropped} left out of the released scores" if result.dropped else counted


def _cell(found: object) -> str:
    if found is None:
        return _NONE
    return f"{found}, p {_p_value(found.p_value)}" if isinstance(found, Lead) else str(found)


def _p_value(value: float | None) -> str:
    if value is None:
        return _NONE
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def comparison_text(results: Mapping[str, DatasetComparison]) -> str:
    """Return a table per dataset, and at the end, once, why metrics are not available."""
    parts = [_comparison_text(name, result) for name, result in results.items()]
    reasons = _reasons((result.task, result.unavailable) for result in results.values())
    return "\n".join([*parts, *reasons])


def _comparison_text(name: str, result: DatasetComparison) -> str:
    runs = "" if result.runs == (1, 1) else f", {result.runs[0]} and {result.runs[1]} runs"
    metrics = list(dict.fromkeys(metric for flavour in FLAVOURS for metric in result.metrics[flavour]))
    rows = [
        (metric, flavour, *_compared_cells(found))
        for metric in metrics
        for flavour in FLAVOURS
        if (found := result.metrics[flavour].get(metric)) is not None
    ]
    header = ("", "", "first", "second", "first - second", "p")
    return f"{name} ({result.task}): {result.samples} samples{runs}\n{_table([header, *rows])}"


def _compared_cells(found: Compared) -> tuple[str, ...]:
    return str(found.first), str(found.second), str(found.difference), _p_value(found.difference.p_value)


def _reasons(unavailable: Iterable[tuple[str, Mapping[str, Mapping[str, str]]]]) -> list[str]:
    """Why metrics are not available: each reason once, with the metrics and tasks that it is the reason for."""
    lacking: dict[str, dict[str, None]] = {}
    for task, by_flavour in unavailable:
        for flavour, reasons in by_flavour.items():
            for metric, reason in reasons.items():
                lacking.setdefault(reason, {})[f"{task} {metric} ({flavour})"] = None
    return [f"not available: {', '.join(metrics)}: {reason}" for reason, metrics in lacking.items()]


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(f"  {line.rstrip()}" for line in lines)
