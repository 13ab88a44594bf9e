"""MIMIC-CXR (RG): chest radiographs, each with the report of its study.

The paper's text and its code disagree on where the reports come from, so three sources are read: R2Gen's
`annotation.json` (`r2gen`, what the released code opens), RadFM's tables (`radfm`, what the paper names) and
PhysioNet's own tables and reports (`official`). `source` chooses; by default it is the first present in this order,
and every sample says which (`meta["source"]`).

The paper trains on 9,997 images, a selection that is not published. R2Gen's `annotation_small.json` is taken as it is
where present. Else as many images are drawn by rank of their DICOM id, in proportion to the groups p10 to p19, out
of all whose report is usable: so the draw depends neither on the order of the files nor on which images were
downloaded. `train.txt` and `test.txt` in the root, or the lists of an earlier preparation, go before both.
Texts are restricted: they may not be passed on, and no error or finding quotes them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from unimed_model.data import splits
from unimed_model.data.findings import Findings
from unimed_model.data.images import ImageFile
from unimed_model.data.readers.duplicates import Duplicates
from unimed_model.data.readers.mimic_cxr import official, r2gen, radfm
from unimed_model.data.readers.mimic_cxr.records import SPLITS, Record, folders, image_folder
from unimed_model.data.readers.request import ImageOptions, Request, finish
from unimed_model.data.sample import Samples
from unimed_model.data.splits import Lists
from unimed_model.data.templates import evaluation_instruction
from unimed_model.errors import AbsentError

Source = Literal["r2gen", "radfm", "official"]
_PRESENT: dict[Source, Callable[[Sequence[Path]], tuple[str, ...]]] = {
    "r2gen": r2gen.splits,
    "radfm": radfm.splits,
    "official": official.splits,
}
_POOL = "mimic_cxr"

RULE = (
    "by image: the lists train.txt and test.txt of the folder, which name DICOM ids; without them the source's own "
    "splits, and for training the records of annotation_small.json or else, of all with a usable report, the images "
    "whose digests of seed and DICOM id are lowest, from the groups p10 to p19 in proportion to their size"
)


class MimicOptions(ImageOptions):
    """Which reports are read, and how many for training.

    Attributes:
        restricted: true, as PhysioNet's licence wants it.
        source: where reports come from; `auto`: the first of the three that the root holds.
        selection: images drawn for training; None: all.
        longest_findings: characters; with `official`, studies with longer findings are left out; None: no limit.
    """

    restricted: bool = True
    source: Literal["auto", "r2gen", "radfm", "official"] = "auto"
    selection: Annotated[int, Field(ge=1)] | None = 9997
    longest_findings: Annotated[int, Field(ge=1)] | None = 800


def holds(root: Path, options: MimicOptions) -> bool:
    """Say whether the folder holds reports of the chosen source."""
    return _source(folders(root), options) is not None


def read(request: Request, options: MimicOptions) -> Samples:
    """Return the images of a split in the order of the source.

    Raises:
        UserError: an unknown split or one that the source has not, no source, a missing or damaged file, a missing
            image, split lists that are incomplete or overlap.
    """
    request.require_split(SPLITS)
    request.require_english()
    places = folders(request.root)
    source = _source(places, options)
    if source is None:
        raise AbsentError(f"{request.dataset}: {_absence(request.root, options)}.")
    findings = Findings()
    selected = source == "r2gen" and r2gen.selected(places)
    lists = splits.listed(request.root) or (None if selected else request.lists)
    reader = _Reader(places, source, options, findings)
    found = _listed(request, reader, lists, findings) if lists else reader([request.split])
    records = list(_usable(found, findings))
    if request.split == "train" and not lists and not selected:
        records = _drawn(records, options.selection, request.seed)
    if source == "official":
        known = official.details(places, {record.image_id for record in records})
        records = [replace(record, meta=known.get(record.image_id, {})) for record in records]
    return _samples(request, options, places, source, records, findings)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads records of the chosen source: of some splits, and perhaps of some images alone."""

    places: Sequence[Path]
    source: Source
    options: MimicOptions
    findings: Findings

    def __call__(self, wanted_splits: Sequence[str], wanted: Callable[[str], bool] | None = None) -> Iterable[Record]:
        if self.source == "r2gen":
            return r2gen.records(self.places, wanted_splits, wanted)
        if self.source == "radfm":
            return radfm.records(self.places, wanted_splits, wanted, self.findings)
        return official.records(self.places, wanted_splits, wanted, self.options.longest_findings)


def _source(places: Sequence[Path], options: MimicOptions) -> Source | None:
    return next((name for name, has in _PRESENT.items() if options.source in ("auto", name) and has(places)), None)


def _absence(root: Path, options: MimicOptions) -> str:
    needed = {
        "r2gen": f"{r2gen.ALL} (r2gen)",
        "radfm": "mimic_caption_train.csv or mimic_caption_test.csv (radfm)",
        "official": "mimic-cxr-2.0.0-split.csv.gz with mimic-cxr-reports.zip (official)",
    }
    chosen = needed.values() if options.source == "auto" else [needed[options.source]]
    return f"{root} holds no reports; it needs {', or '.join(chosen)}"


def _listed(request: Request, reader: _Reader, lists: Lists, findings: Findings) -> Iterator[Record]:
    names = lists.get(request.split)
    if names is None:  # validation images, which lists of the paper's kind do not name
        others = frozenset[str]().union(*lists.values())
        yield from reader([request.split], lambda image: image not in others)
        return
    found = set()
    for record in reader(_PRESENT[reader.source](reader.places), names.__contains__):
        found.add(record.image_id)
        yield record
    absent = sorted(names - found)
    where = f"{absent[0]} in the list of {request.split}" if absent else ""
    findings.note("listed, but without record", where, len(absent))


def _usable(records: Iterable[Record], findings: Findings) -> Iterator[Record]:
    for record in records:
        if record.problem:
            findings.leave_out(record.problem, record.where)
        else:
            yield record


def _drawn(records: list[Record], count: int | None, seed: int) -> list[Record]:
    if count is None:
        return records
    groups: dict[str, set[str]] = defaultdict(set)
    for record in records:
        groups[record.group].add(record.image_id)
    chosen = splits.stratified(groups, count, seed, _POOL)
    return [record for record in records if record.image_id in chosen]


def _samples(
    request: Request,
    options: MimicOptions,
    places: Sequence[Path],
    source: Source,
    records: Sequence[Record],
    findings: Findings,
) -> Samples:
    images = [record.image for record in records]
    folder = image_folder(request.root, places if request.images else (), images)
    times: Counter[str] = Counter()
    duplicates = Duplicates(findings)
    samples = []
    for record in records:
        times[record.image_id] += 1
        repeated = times[record.image_id]
        sample = request.sample(
            sample_id=record.image_id if repeated == 1 else f"{record.image_id}-{repeated}",
            image_id=record.image_id,
            patient_id=record.patient_id,
            instruction=evaluation_instruction(_POOL),
            answer=record.text,
            meta={"templates": _POOL, "study_id": record.study_id, "source": source, **record.meta},
            image_source=ImageFile(folder / record.image),
        )
        samples.append(sample)
        duplicates.see(sample, record.where)
    return finish(request, samples, findings, options.missing_images)
