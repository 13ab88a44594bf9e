"""MPx-Single (RG): captions of single MedPix images, from RadFM's `MedPix_single_{train,test}.csv`.

Rows of type `caption` are kept. Cells are parsed as pandas parses them by default, as RadFM's users do, so a
cell `None` or `NA` counts as empty. Empty cells drop a row: those in the three columns used (default), or, as
in the released code, those in any column.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from unimed_model.data.files import note, relative_name
from unimed_model.data.findings import Findings
from unimed_model.data.images import ImageFile
from unimed_model.data.readers.request import ImageOptions, Request, finish
from unimed_model.data.sample import Sample, Samples
from unimed_model.data.templates import evaluation_instruction
from unimed_model.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

SPLITS = ("train", "test")
COLUMNS = ["name", "context", "type"]
_FOLDERS = ("images", "MedPix-Images", ".")


class MPxOptions(ImageOptions):
    """How rows are chosen.

    Attributes:
        dropna: `used` drops rows with an empty cell in name, context or type; `all` in any column.
    """

    dropna: Literal["used", "all"] = "used"


def holds(root: Path, _: MPxOptions) -> bool:
    """Say whether the folder holds a caption file."""
    return any(_table_path(root, split).is_file() for split in SPLITS)


def read(request: Request, options: MPxOptions) -> Samples:
    """Return the captions of a split in row order.

    Raises:
        UserError: an unknown split, a missing or damaged file, a missing column or image, a name that leaves
            the root.
    """
    request.require_split(SPLITS)
    request.require_english()
    path = _table_path(request.root, request.split)
    table = _read_table(path)
    full = table.dropna(subset=COLUMNS if options.dropna == "used" else None)
    full = full[(full["name"].str.strip() != "") & (full["context"].str.strip() != "")]
    captions = full[full["type"].str.strip() == "caption"]
    findings = Findings()
    for kind, left, of in (("empty cell", table, full), ("not a caption", full, captions)):
        out = left.index.difference(of.index)
        findings.leave_out(kind, f"{path}, row {out[0]}" if len(out) else "", len(out))
    rows = zip(captions.index, captions["name"], captions["context"], strict=True)
    samples = [_sample(request, path, int(row), name, context) for row, name, context in rows]
    return finish(request, samples, findings, options.missing_images)


def _table_path(root: Path, split: str) -> Path:
    return root / f"MedPix_single_{split}.csv"


def _read_table(path: Path) -> pd.DataFrame:
    import pandas as pd

    note(path)
    try:
        _check_rows(path)
        table = pd.read_csv(path, dtype=dict.fromkeys(COLUMNS, "str"))
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; complete the download.") from error
    except (csv.Error, ValueError) as error:
        raise UserError(f"{path} is not a complete, valid CSV file ({error}); download it again.") from error
    missing = [column for column in COLUMNS if column not in table.columns]
    if missing:
        raise UserError(f"{path} lacks the column {missing[0]!r}; it needs {', '.join(COLUMNS)}.")
    return table


def _check_rows(path: Path) -> None:
    # pandas fills a row that breaks off with empty cells, which would then pass for an empty record.
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file, strict=True)
        width = len(next(rows, []))
        for row in rows:
            if row and len(row) != width:
                raise UserError(f"{path}, line {rows.line_num}: {len(row)} cells where the header has {width}.")


def _sample(request: Request, path: Path, row: int, name: str, context: str) -> Sample:
    # Row 0 is the first below the header.
    relative = relative_name(name.strip(), f"{path}, row {row}")
    return request.sample(
        sample_id=f"{request.split}-{row}",
        image_id=str(relative),
        patient_id=None,
        instruction=evaluation_instruction("mpx_single"),
        answer=context.strip(),
        meta={"templates": "mpx_single"},
        image_source=ImageFile(_image_path(request.root, relative)),
    )


def _image_path(root: Path, name: object) -> Path:
    candidates = [root / folder / str(name) for folder in _FOLDERS]
    return next((path for path in candidates if path.is_file()), candidates[0])
