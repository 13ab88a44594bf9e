"""A dataset looked at as a whole: what each split holds, what is wrong with it, and whether it can be trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from unimed_model.data.findings import Finding, Findings
from unimed_model.data.layouts import LAYOUTS
from unimed_model.data.preparation.leakage import Leak, leaks
from unimed_model.data.preparation.pictures import Ledger, examine, key_of
from unimed_model.data.sample import Sample, Samples
from unimed_model.data.sources import DatasetSource, open_source
from unimed_model.errors import AbsentError, UserError

MISSING = "missing image"
UNREADABLE = "unreadable image"
REFUSED = frozenset({MISSING, UNREADABLE, "box outside the image"})
"""Kinds of problems for which a dataset is refused, unless the user says that such samples are to be left out."""
_TOLERANT = {"missing_images": "skip", "outside": "skip"}
"""What lets a reader go on over problems that it would refuse, so that all of them are counted."""


@dataclass(frozen=True)
class SplitReport:
    """One split of a dataset.

    Attributes:
        dataset: its name.
        task: its task.
        split: the split.
        samples: how many the annotations hold; those whose image is missing or unreadable count.
        images: on how many images that are there.
        problems: kind -> how many samples, and the first example.
        absent: why there is nothing, where the files of the split are not in the root; else None.
        unusable: why it cannot be trained on; None where it can.
        usable: how many samples are left without those whose image is missing or unreadable.
    """

    dataset: str
    task: str
    split: str
    samples: int
    images: int
    problems: Mapping[str, Finding] = field(default_factory=dict)
    usable: int = 0
    absent: str | None = None
    unusable: str | None = None


@dataclass(frozen=True)
class Inspection:
    """A dataset: its splits, and what these have in common."""

    source: DatasetSource
    splits: Sequence[SplitReport]
    leaks: Sequence[Leak]

    @property
    def unusable(self) -> str | None:
        """Why the dataset cannot be trained on; None where it can."""
        if all(report.absent for report in self.splits):
            return self.splits[0].absent
        if not any(report.usable or report.unusable for report in self.splits):
            return f"{self.source.name} has no sample that can be used."
        return next((report.unusable for report in self.splits if report.unusable), None)


def inspect(
    source: DatasetSource, ledger: Ledger, *, images: bool = True, skip_missing: bool = False, quiet: bool = False
) -> Inspection:
    """Look at every split of a dataset; nothing that is wrong with it raises.

    Args:
        source: the dataset.
        ledger: what is known of images; what is found out is added.
        images: False looks at annotations alone.
        skip_missing: images that are missing or cannot be read make nothing unusable.
        quiet: no progress bar.
    """
    reports: list[SplitReport] = []
    opened: dict[str, Samples] = {}
    for split in LAYOUTS[source.layout].splits:
        try:
            samples = open_source(source, split, images=images, **tolerant(source))
        except AbsentError as error:
            reports.append(SplitReport(source.name, source.task, split, 0, 0, absent=str(error)))
            continue
        except UserError as error:
            problem = {"unreadable file": Finding(1, str(error), left_out=True)}
            reports.append(SplitReport(source.name, source.task, split, 0, 0, problem, unusable=str(error)))
            continue
        if images:
            found = examine(image_sources(samples), ledger, name=f"{source.name} {split}", quiet=quiet)
            ledger.update(found)
        opened[split] = samples
        now = unreadable(samples, ledger).with_those(missing(samples, ledger)) if images else Findings()
        reports.append(_report(source, split, samples, now, ledger, skip_missing))
    return Inspection(source, reports, leaks(opened, ledger))


def tolerant(source: DatasetSource) -> dict[str, Any]:
    """Return the options that make the source's reader count problems instead of refusing them."""
    if source.prepared is not None:
        return {}
    fields = LAYOUTS[source.layout].options.model_fields
    stated = source.options
    return {name: value for name, value in _TOLERANT.items() if name in fields and name not in stated}


def image_sources(samples: Sequence[Sample]) -> list[Any]:
    """Return where the images of the samples are, each time one is used."""
    return [sample.image_source for sample in samples if sample.image_source is not None]


def unreadable(samples: Sequence[Sample], ledger: Ledger) -> Findings:
    """Return the finding of samples whose image cannot be decoded."""
    findings = Findings()
    for sample in samples:
        picture = ledger.get(key_of(sample.image_source)) if sample.image_source else None
        if picture and picture.problem:
            findings.leave_out(UNREADABLE, picture.problem)
    return findings


def missing(samples: Sequence[Sample], ledger: Ledger) -> Findings:
    """Return the finding of samples whose image was there when they were indexed, and is not any more."""
    findings = Findings()
    for sample in samples:
        if sample.image_source is not None and key_of(sample.image_source) not in ledger:
            findings.leave_out(MISSING, str(sample.image_source.path))
    return findings


def _report(
    source: DatasetSource, split: str, samples: Samples, now: Findings, ledger: Ledger, skip_missing: bool
) -> SplitReport:
    problems = samples.findings.with_those(now)
    # What a prepared folder counts was left out when it was prepared: what is indexed can be used.
    counted = now if source.prepared is not None else problems
    refused = [kind for kind in REFUSED & counted.keys() if not (skip_missing and kind in (MISSING, UNREADABLE))]
    left_out = 0 if source.prepared is not None or MISSING not in samples.findings else samples.findings[MISSING].count
    shown = {s.image_id for s in samples if s.image_source is not None and (not now or _is_fine(s, ledger))}
    reason = None
    if refused:
        kind = min(refused)
        reason = f"{source.name}, {split}: {problems[kind].count} samples with {kind} (first: {problems[kind].first})"
    return SplitReport(
        source.name,
        source.task,
        split,
        len(samples) + left_out,
        len(shown),
        problems,
        usable=len(samples) - sum(found.count for found in now.values()),
        unusable=reason,
    )


def _is_fine(sample: Sample, ledger: Ledger) -> bool:
    picture = ledger.get(key_of(sample.image_source)) if sample.image_source else None
    return picture is not None and not picture.problem
