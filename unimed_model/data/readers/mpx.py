"""MPx-Single (RG): captions of single MedPix images, from RadFM's `MedPix_single_{train,test}.csv`.

Rows of type `caption` are kept, however that word is written. Two choices decide how many there are, and what each
makes of a file stands in the findings. Cells are parsed as pandas parses them by default, as RadFM's users do, so a
cell `None` or `NA` counts as empty (`keep_default_na`). Empty cells drop a row: those in the three columns used
(default), or, as in the released code, those in any column (`dropna`).

The tables lie in the root, in `data_csv/` or one folder down; the images in `images/` or `MedPix-Images/`, beside the
tables, or in a folder inside one of these, as the archive unpacks. Where they are is seen once, at the first names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from unimed_model.data.files import relative_name, unpacked
from unimed_model.data.findings import Findings
from unimed_model.data.images import ImageFile
from unimed_model.data.readers.csv_tables import read_csv, rows_of_empty_words
from unimed_model.data.readers.duplicates import Duplicates
from unimed_model.data.readers.request import ImageOptions, Request, finish
from unimed_model.data.sample import Sample, Samples
from unimed_model.data.templates import evaluation_instruction
from unimed_model.errors import AbsentError

if TYPE_CHECKING:
    import pandas as pd

SPLITS = ("train", "test")
COLUMNS = ["name", "context", "type"]
_FOLDERS = ("images", "MedPix-Images", ".")
_TRIED = 100


class MPxOptions(ImageOptions):
    """How rows are chosen.

    Attributes:
        dropna: `used` drops rows with an empty cell in name, context or type; `all` in any column.
        keep_default_na: whether words such as `None` and `NA` are empty cells, as by pandas' default; else text.
    """

    dropna: Literal["used", "all"] = "used"
    keep_default_na: bool = True


def holds(root: Path, _: MPxOptions) -> bool:
    """Say whether the folder holds a caption file."""
    return any(_table_folder(root, split) for split in SPLITS)


def read(request: Request, options: MPxOptions) -> Samples:
    """Return the captions of a split in row order.

    Raises:
        UserError: an unknown split, a missing or damaged file, a missing column or image, a name that leaves
            the root.
    """
    request.require_split(SPLITS)
    request.require_english()
    folder = _table_folder(request.root, request.split)
    if folder is None:
        raise AbsentError(f"{request.dataset}: {request.root / _table_name(request.split)} is missing.")
    path = folder / _table_name(request.split)
    findings = Findings()
    captions = _captions(path, options, findings)
    rows = [(int(row), str(name)) for row, name in zip(captions.index, captions["name"], strict=True)]
    names = [relative_name(name.strip(), f"{path}, row {row}").as_posix() for row, name in rows]
    images = _image_folder(request, folder, names)
    samples = [
        _sample(request, row, images / name, name, context)
        for (row, _), name, context in zip(rows, names, captions["context"], strict=True)
    ]
    duplicates = Duplicates(findings)
    for (row, _), sample in zip(rows, samples, strict=True):
        duplicates.see(sample, f"{path}, row {row}")
    return finish(request, samples, findings, options.missing_images)


def _table_name(split: str) -> str:
    return f"MedPix_single_{split}.csv"


def _table_folder(root: Path, split: str) -> Path | None:
    return unpacked(root, _table_name(split), "data_csv")


def _captions(path: Path, options: MPxOptions, findings: Findings) -> pd.DataFrame:
    types = dict.fromkeys(COLUMNS, "str")
    table = read_csv(path, types, others=True, words_are_text=not options.keep_default_na)
    full = table.dropna(subset=COLUMNS)
    full = full[(full["name"].str.strip() != "") & (full["context"].str.strip() != "")]
    captions = full[full["type"].str.strip().str.lower() == "caption"]
    empty = table.index.difference(full.index)
    findings.leave_out("empty cell", f"{path}, row {empty[0]}" if len(empty) else "", len(empty))
    if options.keep_default_na:
        words = rows_of_empty_words(path, table, COLUMNS)
        where = f"{path}, row {words[0]}" if len(words) else ""
        findings.note('cell such as "None" read as empty', where, len(words))
    return _without_empty_unused_cells(path, captions, options, findings)


def _without_empty_unused_cells(
    path: Path, captions: pd.DataFrame, options: MPxOptions, findings: Findings
) -> pd.DataFrame:
    full = captions.dropna()
    out = captions.index.difference(full.index)
    record = findings.note if options.dropna == "used" else findings.leave_out
    record("empty cell in an unused column", f"{path}, row {out[0]}" if len(out) else "", len(out))
    return captions if options.dropna == "used" else full


def _sample(request: Request, row: int, image: Path, name: str, context: str) -> Sample:
    # Row 0 is the first below the header.
    return request.sample(
        sample_id=f"{request.split}-{row}",
        image_id=name,
        patient_id=None,
        instruction=evaluation_instruction("mpx_single"),
        answer=context.strip(),
        meta={"templates": "mpx_single"},
        image_source=ImageFile(image),
    )


def _image_folder(request: Request, tables: Path, names: Sequence[str]) -> Path:
    usual = [base / name for base in dict.fromkeys((request.root, tables)) for name in _FOLDERS]
    if request.images:
        for folders in (usual, _inner(usual)):
            for name in names[:_TRIED]:
                for folder in folders:
                    if (folder / name).is_file():
                        return folder
    return usual[0]


def _inner(folders: Sequence[Path]) -> list[Path]:
    return [inner for folder in folders if folder.is_dir() for inner in sorted(_folders_in(folder))]


def _folders_in(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        yield from (Path(entry.path) for entry in entries if entry.is_dir())
