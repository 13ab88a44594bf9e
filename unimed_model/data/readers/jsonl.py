"""Users' own data (any task): one JSON object per line.

    {"image": "images/a.png", "question": "Is the frame striped?", "answer": "Yes", "task": "VQA", "dataset": "frames"}

The root is one `.jsonl` file or a folder of them. Records of `train.jsonl`, `val.jsonl` and `test.jsonl` belong to the
split of that name; those of other files to the one their key `split` names, `train` without that key. Records whose
`dataset` names another dataset are passed over. What a record holds is said in `jsonl_records`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unimed_model.data.files import note, note_absent, read_json_lines
from unimed_model.data.findings import Findings
from unimed_model.data.readers.duplicates import Duplicates
from unimed_model.data.readers.jsonl_records import JsonlOptions, NoImageFile, sample_of
from unimed_model.data.readers.request import Request, finish, missing_images
from unimed_model.data.sample import TASKS, Sample, Samples
from unimed_model.errors import AbsentError, UserError

SPLITS = ("train", "val", "test")
SUFFIX = ".jsonl"

Place = tuple[Path, int]
"""File and line number."""


def holds(root: Path, _: JsonlOptions) -> bool:
    """Say whether the root is a `.jsonl` file or a folder with one."""
    return bool(_files(root))


def task_in(root: Path, name: str, options: JsonlOptions) -> str:
    """Return the task of a dataset, from its first record or else the options.

    Raises:
        UserError: no record belongs to the dataset, or neither says a task.
    """
    dataset = options.dataset or name
    others: dict[str, None] = {}
    for place, record in _records(_files(root)):
        if _belongs(record, dataset, place):
            return _task(record, options, place)
        others[record["dataset"]] = None
    raise _no_record(root, dataset, others)


def offered(root: Path) -> dict[str, str]:
    """Return dataset -> task of the files of a root whose records all name their dataset; else nothing.

    Raises:
        UserError: the first record names its dataset but a later one does not, or a line is damaged.
    """
    tasks: dict[str, str] = {}
    for path in _files(root):
        ours = False
        for place, record in _records([path]):
            name = record.get("dataset")
            if name is None and not ours:
                return {}
            if not isinstance(name, str):
                raise UserError(f"{_where(place)}: the key 'dataset' must name a dataset, as in the records before.")
            ours = True
            if name not in tasks:
                tasks[name] = _task(record, JsonlOptions(), place)
    return tasks


def read(request: Request, options: JsonlOptions) -> Samples:
    """Return the records of a dataset and split in file order; `language` is not asked about.

    Raises:
        UserError: an unknown split or one without records, a damaged line or record, records of several tasks, an id
            that occurs twice, a missing image. No text of a record is quoted.
    """
    request.require_split(SPLITS)
    findings = Findings()
    duplicates = Duplicates(findings)
    samples: list[Sample] = []
    places: dict[str, Place] = {}
    absent: list[Path] = []
    for place, record in _of_split(request, options):
        where = _where(place)
        if _task(record, options, place) != request.task:
            raise UserError(
                f"{where}: the records of {request.dataset} before are of the task {request.task}; a dataset has one."
            )
        try:
            sample = sample_of(request, options, record, place, findings)
        except NoImageFile as missing:
            note_absent(missing.path)
            absent.append(missing.path)
            continue
        if sample is None:
            continue
        if sample.sample_id in places:
            raise UserError(f"{where}: the id of {_where(places[sample.sample_id])} occurs again.")
        places[sample.sample_id] = place
        duplicates.see(sample, where)
        samples.append(sample)
    if absent and options.missing_images == "error":
        raise missing_images(request.dataset, absent)
    findings.leave_out("missing image", str(absent[0]) if absent else "", len(absent))
    return finish(request, samples, findings, options.missing_images)


def _files(root: Path) -> list[Path]:
    if root.is_dir():
        note(root)
        return sorted(path for path in root.glob(f"*{SUFFIX}") if path.is_file())
    return [root] if root.suffix == SUFFIX and root.is_file() else []


def _records(paths: list[Path]) -> Iterator[tuple[Place, dict[str, Any]]]:
    for path in paths:
        for number, record in read_json_lines(path):
            yield (path, number), record


def _of_split(request: Request, options: JsonlOptions) -> Iterator[tuple[Place, dict[str, Any]]]:
    dataset = options.dataset or request.dataset
    others: dict[str, None] = {}
    splits: set[str] = set()
    for place, record in _records(
        [path for path in _files(request.root) if path.stem not in SPLITS or path.stem == request.split]
    ):
        if not _belongs(record, dataset, place):
            others[record["dataset"]] = None
            continue
        split = _split(record, place)
        splits.add(split)
        if split == request.split:
            yield place, record
    if request.split in splits:
        return
    if splits or not others:
        there = f"; those of {dataset} are of {', '.join(sorted(splits))}" if splits else ""
        raise AbsentError(f"{request.dataset}: {request.root} holds no record of the split {request.split!r}{there}.")
    raise _no_record(request.root, dataset, others)


def _belongs(record: dict[str, Any], dataset: str, place: Place) -> bool:
    name = record.get("dataset", dataset)
    if not isinstance(name, str):
        raise UserError(f"{_where(place)}: 'dataset' must be a text, not {type(name).__name__}.")
    return name == dataset


def _split(record: dict[str, Any], place: Place) -> str:
    of_file = place[0].stem if place[0].stem in SPLITS else None
    split = record.get("split", of_file or "train")
    if split not in SPLITS:
        raise UserError(f"{_where(place)}: 'split' must be one of {', '.join(SPLITS)}.")
    if of_file not in (None, split):
        raise UserError(f"{_where(place)}: 'split' says {split}, but this file is of the split {of_file}.")
    return str(split)


def _task(record: dict[str, Any], options: JsonlOptions, place: Place) -> str:
    task = record.get("task", options.task)
    if task is None:
        raise UserError(
            f"{_where(place)}: the key 'task' is missing; it, or the option task, must say {', '.join(TASKS)}."
        )
    if task not in TASKS:
        raise UserError(f"{_where(place)}: 'task' must be one of {', '.join(TASKS)}.")
    return str(task)


def _no_record(root: Path, dataset: str, others: dict[str, None]) -> UserError:
    there = f"; it holds {', '.join(others)}" if others else ""
    return AbsentError(f"{root} holds no record of the dataset {dataset!r}{there}.")


def _where(place: Place) -> str:
    return f"{place[0]}, line {place[1]}"
