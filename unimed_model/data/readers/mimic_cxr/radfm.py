"""MIMIC-CXR as RadFM gives it, which is what the paper's text names: `mimic_caption_{train,test}.csv`.

Columns `image_path`, in the authors' own folder, and `label`: "Findings: …", "Impression: …" or both. The table is
read as RadFM reads it, by pandas' default, so that a label `None` or `NA` counts as empty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from unimed_model.data.findings import Findings
from unimed_model.data.readers.csv_tables import read_csv, rows_of_empty_words
from unimed_model.data.readers.mimic_cxr.records import Record, first_file, id_of, image_of, progress
from unimed_model.errors import AbsentError

COLUMNS = ("image_path", "label")
_TABLES = {split: f"mimic_caption_{split}.csv" for split in ("train", "test")}


def splits(places: Sequence[Path]) -> tuple[str, ...]:
    """Return the splits that the folders hold."""
    return tuple(split for split, name in _TABLES.items() if first_file(places, name))


def records(
    places: Sequence[Path],
    wanted_splits: Sequence[str],
    wanted: Callable[[str], bool] | None,
    findings: Findings,
) -> Iterator[Record]:
    """Yield the records of some splits in row order; rows without image path are left out and counted.

    Args:
        places: folders to look into.
        wanted_splits: of `train` and `test`.
        wanted: says of an image id whether its record is needed.
        findings: get what is wrong with the tables.

    Raises:
        UserError: another split, a missing or damaged file, or a path that leaves the data folder. No label is quoted.
    """
    for split in wanted_splits:
        if split not in _TABLES:
            raise AbsentError(f"RadFM's tables have no split {split!r}; they have {', '.join(_TABLES)}.")
        path = first_file(places, _TABLES[split])
        if path is None:
            raise AbsentError(f"{places[0]} holds no {_TABLES[split]}, which the split {split!r} needs.")
        yield from _of_table(path, wanted, findings)


def _of_table(path: Path, wanted: Callable[[str], bool] | None, findings: Findings) -> Iterator[Record]:
    table = read_csv(path, dict.fromkeys(COLUMNS, "str"))
    words = rows_of_empty_words(path, table, COLUMNS)
    findings.note('cell such as "None" read as empty', f"{path}, row {words[0]}" if len(words) else "", len(words))
    filled = table.fillna("")
    rows = zip(filled.index, filled["image_path"], filled["label"], strict=True)
    for row, name, label in progress(rows, len(filled)):
        where, text = f"{path}, row {row}", label.strip()
        if not name.strip():
            findings.leave_out("empty cell", where)
            continue
        image = image_of(name, where)
        if wanted is None or wanted(id_of(image)):
            yield Record(image, text, where, None if text else "empty answer")
