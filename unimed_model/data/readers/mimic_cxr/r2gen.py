"""MIMIC-CXR as R2Gen gives it, which is what Uni-Med's released code reads: `annotation.json`.

One object with the lists `train`, `val` and `test`; a record has `image_path`, a list of one path relative to
`files/`, and `report`, whose text is kept as it is. `annotation_small.json`, with the list `train` alone, is a
selection of the training records that takes their place.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from unimed_model.data.files import read_json
from unimed_model.data.readers.mimic_cxr.records import SPLITS, Record, first_file, image_of, progress
from unimed_model.errors import AbsentError, UserError

ALL = "annotation.json"
SELECTION = "annotation_small.json"


def splits(places: Sequence[Path]) -> tuple[str, ...]:
    """Return the splits that the folders may hold: a file can lack some of them."""
    if first_file(places, ALL):
        return SPLITS
    return ("train",) if first_file(places, SELECTION) else ()


def selected(places: Sequence[Path]) -> bool:
    """Say whether the training records come selected."""
    return first_file(places, SELECTION) is not None


def records(
    places: Sequence[Path], wanted_splits: Sequence[str], wanted: Callable[[str], bool] | None
) -> Iterator[Record]:
    """Yield the records of some splits in file order.

    Args:
        places: folders to look into.
        wanted_splits: of `train`, `val` and `test`.
        wanted: says of an image id whether its record is needed; then the training records of `annotation.json` are
            looked through as well, behind the selection.

    Raises:
        UserError: a missing or damaged file, or a record without image or report. No report is quoted.
    """
    every, selection = first_file(places, ALL), first_file(places, SELECTION)
    seen: set[str] = set()
    if selection and "train" in wanted_splits:
        found = list(_of_split(selection, read_json(selection), "train"))
        yield from (record for record in found if wanted is None or wanted(record.image_id))
        seen = {record.image_id for record in found}
        wanted_splits = [split for split in wanted_splits if split != "train" or (wanted and every)]
    if not wanted_splits:
        return
    if every is None:
        raise AbsentError(f"{places[0]} holds no {ALL}, which the split {wanted_splits[0]!r} needs.")
    content = read_json(every)
    if not isinstance(content, dict) or not any(name in content for name in SPLITS):
        raise UserError(f"{every} must hold an object of lists of records, {', '.join(SPLITS)}.")
    present = [split for split in wanted_splits if split in content]
    if not present:
        raise AbsentError(f"{every} holds no list {wanted_splits[0]!r}.")
    for split in present:
        for record in _of_split(every, content, split):
            if (wanted is None or wanted(record.image_id)) and record.image_id not in seen:
                yield record


def _of_split(path: Path, content: Any, split: str) -> Iterator[Record]:
    entries = content.get(split) if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise UserError(f"{path} holds no list {split!r}; it must be an object of lists of records.")
    for number, entry in enumerate(progress(entries, len(entries))):
        yield _record(entry, f"{path}, {split}, record {number}")


def _record(entry: Any, where: str) -> Record:
    if not isinstance(entry, dict):
        raise UserError(f"{where}: an object is needed, not {type(entry).__name__}.")
    for key in ("image_path", "report"):
        if key not in entry:
            raise UserError(f"{where}: the key {key!r} is missing.")
    names = entry["image_path"]
    if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
        raise UserError(f"{where}: 'image_path' must be a list of one path.")
    report = entry["report"]
    if not isinstance(report, str | None):
        raise UserError(f"{where}: 'report' must be a text, not {type(report).__name__}.")
    text = (report or "").strip()
    return Record(image_of(names[0], where), text, where, None if text else "empty answer")
