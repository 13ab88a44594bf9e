"""What `unimed-data check` says: a table, problems with their first example, terms; or the same for a program."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from unimed_model.data.layouts import PUBLISHED
from unimed_model.data.preparation.inspection import Inspection, SplitReport
from unimed_model.data.terms import TERMS

_HEADER = ("dataset", "task", "split", "samples", "paper", "images", "problems")


def rows(inspections: Sequence[Inspection], wanted: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return one object per dataset and split: `dataset, task, split, samples, images, problems`.

    `problems` is kind -> `count` of samples and the `first` example; further keys are `paper`, the number of samples
    in Table 4 (or null), and `usable`.

    Args:
        inspections: what was found.
        wanted: published datasets that were asked for and are not in the root.
    """
    found = [_row(inspection, report) for inspection in inspections for report in inspection.splits]
    for name in wanted:
        folder = PUBLISHED[name].folder
        absent = {"absent": {"count": 0, "first": f"the root has no folder {folder} with the files of {name}"}}
        found.append({"dataset": name, "task": None, "split": None, "samples": 0, "images": 0, "problems": absent})
        found[-1] |= {"paper": None, "usable": False}
    return found


def _row(inspection: Inspection, report: SplitReport) -> dict[str, Any]:
    problems = {kind: {"count": found.count, "first": found.first} for kind, found in report.problems.items()}
    if report.absent:
        problems["absent"] = {"count": 0, "first": report.absent}
    for leak in inspection.leaks:
        if leak.splits[1] == report.split:
            problems[f"{leak.kind} also in {leak.splits[0]}"] = {"count": leak.count, "first": leak.first}
    return {
        "dataset": report.dataset,
        "task": report.task,
        "split": report.split,
        "samples": report.samples,
        "images": report.images,
        "problems": problems,
        "paper": _paper(report.dataset, report.split),
        "usable": report.unusable is None and report.absent is None,
    }


def _paper(dataset: str, split: str) -> int | None:
    terms = TERMS.get(dataset)
    if terms is None or terms.paper is None or split not in ("train", "test"):
        return None
    return terms.paper[split == "test"]


def text(found: Sequence[dict[str, Any]], inspections: Sequence[Inspection], offered: Sequence[str]) -> str:
    """Return the report for a person.

    Args:
        found: as `rows` gives it.
        inspections: the same, as it was found.
        offered: names of all datasets that the root offers.
    """
    return "\n".join([*_table(found), *_problems(found), *_terms(found), *_rest(inspections, offered)])


def _table(found: Sequence[dict[str, Any]]) -> Iterator[str]:
    cells = [_HEADER] + [
        (
            row["dataset"],
            row["task"] or "-",
            row["split"] or "-",
            "absent" if "absent" in row["problems"] else str(row["samples"]),
            "-" if row["paper"] is None else str(row["paper"]),
            str(row["images"] or "-"),
            str(len(row["problems"].keys() - {"absent"}) or "-"),
        )
        for row in found
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        left, right = line[:3], line[3:]
        aligned = [cell.ljust(w) for cell, w in zip(left, widths[:3], strict=True)]
        aligned += [cell.rjust(w) for cell, w in zip(right, widths[3:], strict=True)]
        yield "  ".join(aligned).rstrip()


def _problems(found: Sequence[dict[str, Any]]) -> Iterator[str]:
    for row in found:
        for kind, problem in row["problems"].items():
            count = f"{problem['count']} x " if problem["count"] else ""
            yield f"{row['dataset']} {row['split'] or ''}".strip() + f": {count}{kind}: {problem['first']}"


def _terms(found: Sequence[dict[str, Any]]) -> Iterator[str]:
    for name in dict.fromkeys(row["dataset"] for row in found):
        terms = TERMS.get(name)
        if terms is not None:
            yield f"{name}: licence {terms.licence}; access {terms.access}; {terms.source}"
            if terms.known:
                yield f"{name}: known: {terms.known}"


def _rest(inspections: Sequence[Inspection], offered: Sequence[str]) -> Iterator[str]:
    absent = [name for name in PUBLISHED if name not in offered]
    if absent:
        yield f"not in this root: {', '.join(absent)}"
    for inspection in inspections:
        if inspection.unusable:
            yield f"unusable: {inspection.unusable}"
