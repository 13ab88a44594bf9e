"""MIMIC-CXR from PhysioNet's own tables, its reports parsed into sections.

`mimic-cxr-2.0.0-split.csv.gz` says which image belongs to which split (`train`, `validate`, `test`); every view of a
study is a record of its own. Tables may be unpacked. Reports come, in this order, from `mimic_cxr_sectioned.csv`
(written by the publishers' own script), from unpacked `files/p19/p19999991/s59999991.txt`, or from
`mimic-cxr-reports.zip`. As the paper says of RadFM's reports, studies without report or without findings are left
out, and those with findings over 800 characters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unimed_model.data.files import relative_name
from unimed_model.data.readers.csv_tables import read_csv
from unimed_model.data.readers.mimic_cxr.records import SPLITS, Record, first_file, progress
from unimed_model.data.readers.mimic_cxr.reports import Reports, has_reports, open_reports
from unimed_model.errors import AbsentError, UserError

if TYPE_CHECKING:
    import pandas as pd

_SPLIT = ("mimic-cxr-2.0.0-split.csv.gz", "mimic-cxr-2.0.0-split.csv")
_METADATA = ("mimic-cxr-2.0.0-metadata.csv.gz", "mimic-cxr-2.0.0-metadata.csv")
_NAMES = {"train": "train", "val": "validate", "test": "test"}
_TYPES = {"dicom_id": "str", "study_id": "int32", "subject_id": "int32", "split": "category"}
_DETAILS = {
    "dicom_id": "str",
    "ViewPosition": "str",
    "PerformedProcedureStepDescription": "str",
    "Rows": "float32",
    "Columns": "float32",
    "StudyDate": "float64",
}


def splits(places: Sequence[Path]) -> tuple[str, ...]:
    """Return the splits that the folders hold: none without reports."""
    return SPLITS if first_file(places, *_SPLIT) and has_reports(places) else ()


def records(
    places: Sequence[Path],
    wanted_splits: Sequence[str],
    wanted: Callable[[str], bool] | None,
    longest: int | None,
) -> Iterator[Record]:
    """Yield the images of some splits in the order of the table.

    Args:
        places: folders to look into.
        wanted_splits: of `train`, `val` and `test`.
        wanted: says of an image id whether its record is needed; the reports of others are not read.
        longest: characters of findings, above which a study is left out; None: no limit.

    Raises:
        UserError: a missing or damaged file. No report is quoted.
    """
    path, part = _images(places, wanted_splits)
    columns = (part.index, part["dicom_id"], part["study_id"], part["subject_id"])
    with open_reports(places) as reports:
        target = _Targets(reports, longest)
        for row, dicom, study, subject in progress(zip(*columns, strict=True), len(part)):
            if wanted is None or wanted(dicom):
                text, problem = target(int(subject), int(study))
                image = f"p{str(subject)[:2]}/p{subject}/s{study}/{relative_name(dicom, f'{path}, row {row}')}.jpg"
                yield Record(image, text, f"{path}, row {row}", problem)


def _images(places: Sequence[Path], wanted_splits: Sequence[str]) -> tuple[Path, pd.DataFrame]:
    path = first_file(places, *_SPLIT)
    if path is None:
        raise AbsentError(f"{places[0]} holds no {_SPLIT[0]}, which the split {wanted_splits[0]!r} needs.")
    table = read_csv(path, _TYPES)
    if table.isna().to_numpy().any() or not table["split"].isin(list(_NAMES.values())).all():
        raise UserError(f"{path}: every row needs its ids and one of the splits {', '.join(_NAMES.values())}.")
    return path, table[table["split"].isin([_NAMES[split] for split in wanted_splits])]


def details(places: Sequence[Path], images: Collection[str]) -> dict[str, dict[str, Any]]:
    """Return image id -> what the table of metadata tells of it, by column; nothing without that table.

    Args:
        places: folders to look into.
        images: the ids that are needed.

    Raises:
        UserError: the table is damaged or lacks a column.
    """
    path = first_file(places, *_METADATA)
    if path is None:
        return {}
    table = read_csv(path, _DETAILS).set_index("dicom_id")
    needed = table[table.index.isin(list(images))]
    return {
        str(dicom): {str(key): _plain(value) for key, value in row.items() if _is_told(value)}
        for dicom, row in zip(needed.index, needed.to_dict("records"), strict=True)
    }


class _Targets:
    """The target of a study and what is wrong with it; the views of a study share it."""

    def __init__(self, reports: Reports, longest: int | None) -> None:
        self._reports = reports
        self._longest = longest
        self._known: dict[int, tuple[str, str | None]] = {}

    def __call__(self, subject: int, study: int) -> tuple[str, str | None]:
        if study not in self._known:
            self._known[study] = self._target(subject, study)
        return self._known[study]

    def _target(self, subject: int, study: int) -> tuple[str, str | None]:
        found = self._reports.sections(subject, study)
        if found is None:
            return "", "missing report"
        if not found.findings:
            return "", "no findings section"
        if self._longest is not None and len(found.findings) > self._longest:
            return "", f"findings over {self._longest} characters"
        return found.target(), None


def _is_told(value: Any) -> bool:
    # an empty cell is NaN
    return isinstance(value, str) or math.isfinite(value)


def _plain(value: Any) -> str | int:
    return value if isinstance(value, str) else int(value)
