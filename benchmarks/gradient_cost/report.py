"""Outcomes as tables, the goals beside them."""

import json
import os
import platform
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gradient_cost.job import Job, Outcome
from gradient_cost.plan import MOST_FOR_PEERS, MOST_FOR_STEADY, PEERS, reference_rows
from gradient_cost.scale import Scale
from tugofwar.sizes import format_bytes


@dataclass
class Row:
    """All outcomes of one job, repeats included; ``error`` is that of the Gram matrix, the largest of all repeats."""

    section: str
    label: str
    job: Job
    outcomes: list[Outcome] = field(default_factory=list)
    error: float | None = None

    @property
    def good(self) -> list[Outcome]:
        """Outcomes that are no failures."""
        return [outcome for outcome in self.outcomes if outcome.failure is None]

    @property
    def batches(self) -> int:
        """Number of batches."""
        return len(self.job.numbers)

    def median(self, number: Callable[[Outcome], float | None]) -> float | None:
        """Median over the repeats; None if there is no number."""
        found = [value for outcome in self.good if (value := number(outcome)) is not None]
        return statistics.median(found) if found else None

    @property
    def ratio(self) -> float | None:
        """Time in plain passes of the same batches."""
        return self.median(lambda outcome: outcome.ratio)

    @property
    def memory(self) -> float | None:
        """Bytes above plain passes."""
        return self.median(lambda outcome: outcome.extra_bytes)


@dataclass
class Report:
    """What has been measured so far.

    Attributes:
        scale: of the table.
        rows: in the order of their first outcome.
        references: number of batches to the exact Gram matrix of ``reference_rows``.
    """

    scale: Scale
    rows: list[Row] = field(default_factory=list)
    references: dict[int, NDArray[np.float64]] = field(default_factory=dict)

    def add(self, section: str, label: str, job: Job, outcome: Outcome, gram: NDArray[np.float64] | None) -> None:
        """Take the outcome of a job."""
        if section == "reference":
            if gram is not None:
                self.references[int(label)] = gram
            return
        row = next((row for row in self.rows if (row.section, row.label, row.job) == (section, label, job)), None)
        if row is None:
            row = Row(section, label, job)
            self.rows.append(row)
        row.outcomes.append(outcome)
        if section == "table" and gram is not None and len(gram) in self.references:
            row.error = max(row.error or 0.0, relative_error(gram, self.references[len(gram)]))

    def row(self, method: str, batches: int) -> Row | None:
        """A row of the table that has a good outcome."""
        found = (row for row in self.rows if row.section == "table" and row.job.method == method)
        return next((row for row in found if row.batches == batches and row.good), None)

    def holding_bytes(self, batches: int) -> float:
        """Memory of the naive loop: as measured, or counted where it was not run."""
        naive = self.row("naive loop", batches)
        return (naive.memory if naive else None) or batches * self.scale.gradient_bytes


def relative_error(gram: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    """``max |dK_ab| / sqrt(K_aa K_bb)`` over the rows that the reference has."""
    rows = reference_rows(len(gram))
    norms = np.sqrt(np.diagonal(reference))
    return float(np.abs((gram[np.ix_(rows, rows)] - reference) / np.outer(norms, norms)).max())


def to_markdown(report: Report) -> str:
    """Everything, as it is written to ``results.md``."""
    return "\n".join(
        [
            "# What exact inner products of gradients cost",
            "",
            "Made by `python benchmarks/gradients.py`; `benchmarks/README.md` says what is measured and how.",
            "",
            _setting(report.scale),
            "",
            *_table(report),
            "",
            "## Goals",
            "",
            *_goals(report),
            "",
            "## Growth of ours",
            "",
            *_growth(report),
            "",
        ]
    )


def to_json(report: Report) -> str:
    """The same for programs."""
    rows = []
    for row in report.rows:
        outcomes = [{key: value for key, value in asdict(each).items() if key != "plain_seconds"} for each in row.good]
        failures = sorted({each.failure for each in row.outcomes if each.failure})
        rows.append(
            {
                "section": row.section,
                "label": row.label,
                "method": row.job.method,
                "batches": row.batches,
                "datasets": row.job.datasets,
                "parameters": row.job.scale.parameters,
                "outcomes": outcomes,
                "failures": failures,
                "relative_error": row.error,
            }
        )
    return json.dumps({"scale": asdict(report.scale), "machine": machine(), "rows": rows}, indent=1) + "\n"


def machine() -> str:
    """Processor, cores and versions; no names."""
    versions = [
        f"Python {platform.python_version()}",
        *(f"{name} {version(name)}" for name in ("torch", "transformers")),
    ]
    return f"{_processor()}, {os.cpu_count()} cores, {platform.system()}; {', '.join(versions)}"


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


def _setting(scale: Scale) -> str:
    return (
        f"A connector of {scale.experts} two-layer experts ({scale.inputs} → {scale.width} → {scale.width}) and a soft "
        f"router, {scale.parameters / 1e6:.2f} million parameters, {4 * scale.visual} visual tokens a batch, under a "
        f"frozen Llama of {scale.layers} layers; float32. {machine()}."
    )


def _table(report: Report) -> list[str]:
    lines = [
        "Time is in plain forward and backward passes of the same batches, interleaved with them in the same process: "
        "median over repeats (lowest to highest). *Products*: the part of it after the passes. Memory is the peak "
        "above that of plain passes. The error is `max |dK_ab| / sqrt(K_aa K_bb)` against float64.",
        "",
        "| batches | method | time | products | extra memory | of the naive loop's | relative error |",
        "|---:|---|---|---|---|---|---|",
    ]
    rows = [row for row in report.rows if row.section == "table"]
    for batches in sorted({row.batches for row in rows}):
        lines += [_table_line(report, row) for row in rows if row.batches == batches]
        if batches > MOST_FOR_STEADY:
            counted = format_bytes(batches * report.scale.gradient_bytes)
            lines.append(f"| {batches} | naive loop | not run | | {counted} (counted, not measured) | | |")
        if batches > MOST_FOR_PEERS:
            lines.append(f"| {batches} | {_left_out(batches)} | | | | |")
    return lines


def _left_out(batches: int) -> str:
    if batches > MOST_FOR_STEADY:
        return f"other libraries | not run beyond {MOST_FOR_STEADY} batches"
    return f"the other libraries | not run beyond {MOST_FOR_PEERS} batches"


def _table_line(report: Report, row: Row) -> str:
    start = f"| {row.batches} | {row.job.method} |"
    if row.ratio is None:
        return f"{start} {row.outcomes[-1].failure} | | | | |"
    products = row.median(lambda outcome: outcome.products) or 0.0
    memory, share = "", ""
    if row.memory is not None:
        memory = format_bytes(round(row.memory))
        naive = report.holding_bytes(row.batches)
        share = f"1/{naive / row.memory:.1f}" if 0 < row.memory < naive else f"{row.memory / naive:.1f}"
    error = "no Gram matrix" if row.error is None else f"{row.error:.1e}"
    return f"{start} {_spread(row)} | {products:.3f} | {memory} | {share} | {error} |"


def _spread(row: Row) -> str:
    ratios = [outcome.ratio for outcome in row.good]
    spread = f" ({min(ratios):.3f} to {max(ratios):.3f})" if len(ratios) > 1 else ""
    return f"{statistics.median(ratios):.3f}{spread}"


def _goals(report: Report) -> list[str]:
    lines = ["| goal | measured | met |", "|---|---|---|"]
    for batches, most in ((200, 1.05), (1000, 1.20)):
        row = report.row("ours", batches)
        lines.append(_goal(f"time at {batches} batches at most {most:.2f}", row.ratio if row else None, most, "{:.3f}"))
    ours = [row for row in report.rows if row.section == "table" and row.job.method == "ours" and row.good]
    for row in ours:
        share = None if row.memory is None else row.memory / report.holding_bytes(row.batches)
        what = f"extra memory at {row.batches} batches at most 1/6 of the naive loop's"
        lines.append(_goal(what, share, 1 / 6, "{:.3f}"))
    lines += _against_peers(report)
    errors = [row.error for row in ours if row.error is not None]
    lines.append(_goal("relative error at most 1e-5", max(errors, default=None), 1e-5, "{:.1e}"))
    return lines


def _against_peers(report: Report) -> list[str]:
    lines = []
    for batches in sorted({row.batches for row in report.rows if row.section == "table"}):
        peers = [row for name in PEERS if (row := report.row(name, batches)) and row.ratio is not None]
        if not peers:
            continue
        fastest = min(peers, key=lambda row: row.ratio or 0.0)
        for method in ("ours", "ours, without statistics"):
            row = report.row(method, batches)
            what = f"{method}: never slower than a peer ({batches} batches; fastest: {fastest.job.method})"
            lines.append(_goal(what, row.ratio if row else None, fastest.ratio or 0.0, "{:.3f}"))
    return lines or ["| never slower than a peer | no peer was measured | not known |"]


def _goal(what: str, measured: float | None, most: float, pattern: str) -> str:
    if measured is None:
        return f"| {what} | not measured | not known |"
    return f"| {what} | {pattern.format(measured)} of {pattern.format(most)} | {'yes' if measured <= most else 'no'} |"


def _growth(report: Report) -> list[str]:
    rows = [row for row in report.rows if row.section == "growth"]
    if not rows:
        return ["Not measured."]
    lines = [
        "Under one layer of language model, so that a plain pass is several times cheaper than in the table above and "
        "the ratios are higher. Products are also given relative to the first line of each series.",
        "",
        "| grows | batches | datasets | parameters | passes | products | products, times the first | extra memory |",
        "|---|---:|---:|---:|---|---|---|---|",
    ]
    firsts: dict[str, float] = {}
    for row in rows:
        start = f"| {row.label} | {row.batches} | {row.job.datasets} | {row.job.scale.parameters / 1e6:.1f} M |"
        if not row.good:
            lines.append(f"{start} {row.outcomes[-1].failure} | | | |")
            continue
        (outcome, *_) = row.good
        seconds = outcome.products * row.batches * outcome.plain_seconds
        first = firsts.setdefault(row.label, seconds)
        memory = "" if outcome.extra_bytes is None else format_bytes(outcome.extra_bytes)
        times = f"{seconds / first:.2f}" if first > 0 else ""
        passes = outcome.ratio - outcome.products
        lines.append(f"{start} {passes:.3f} | {outcome.products:.3f} | {times} | {memory} |")
    return lines
