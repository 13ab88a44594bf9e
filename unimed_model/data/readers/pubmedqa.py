"""PubMedQA's labelled part (QA): questions answered with yes, no or maybe; the abstract is not shown.

Three forms are read, from the first that is there, in the root, its `data/`, or one folder deeper:

- the repository's `ori_pqal.json` beside `test_ground_truth.json`, whose 500 ids are the test set; the other 500 are
  the training set;
- what the official split script writes: `test_set.json` beside `pqal_fold{0..9}/{train,dev}_set.json`, where train and
  dev of any one fold are together those 500. The root may also be a fold's folder, or hold `train_set.json` itself;
- the hub's `pqa_labeled/train-*.parquet` (qiaojin/PubMedQA), which knows no split: the repository's
  `test_ground_truth.json` must be put beside it.

No random numbers are needed.
"""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unimed_model.data.cells import find_shards, read_rows
from unimed_model.data.files import note, read_json, text_field
from unimed_model.data.findings import Findings
from unimed_model.data.readers.request import LayoutOptions, Request, finish
from unimed_model.data.sample import Sample, Samples
from unimed_model.data.templates import evaluation_instruction
from unimed_model.errors import AbsentError, UserError

SPLITS = ("train", "test")
ANSWERS = ("yes", "no", "maybe")
TRAINING_RECORDS = 500
_QUESTIONS, _TRUTH, _TEST, _TRAIN, _DEV = (
    f"{name}.json" for name in ("ori_pqal", "test_ground_truth", "test_set", "train_set", "dev_set")
)
_HUB = "pqa_labeled"


@dataclass(frozen=True, slots=True)
class _Record:
    where: str
    question: str
    decision: str


Records = dict[str, _Record]
"""PubMed id -> record."""


def holds(root: Path, _: LayoutOptions) -> bool:
    """Say whether the folder holds PubMedQA, or a part of it, in any form."""
    return any(_find(root, name) for name in (_QUESTIONS, _TRUTH, _TEST, _TRAIN)) or bool(_shards(root))


def read(request: Request, _: LayoutOptions) -> Samples:
    """Return the questions of a split in file order; records without a question are left out and counted.

    Raises:
        UserError: an unknown split, a missing or damaged file, a decision that is not yes, no or maybe.
    """
    request.require_split(SPLITS)
    request.require_english()
    findings = Findings()
    samples: list[Sample] = []
    for key, record in _records(request).items():
        if record.question:
            samples.append(_sample(request, key, record))
        else:
            findings.leave_out("empty question", record.where)
    return finish(request, samples, findings)


def _records(request: Request) -> Records:
    root, split = request.root, request.split
    questions, fold, test, shards = _find(root, _QUESTIONS), _find(root, _TRAIN), _test_set(root), _shards(root)
    if questions is not None and (questions.parent / _TRUTH).is_file():
        note(questions.parent)
        return _part(_read_records(questions), questions, questions.parent / _TRUTH, split)
    if split == "train" and fold is not None:
        return _from_fold(fold.parent)
    if split == "test" and test is not None:
        return _read_records(test)
    if shards:
        return _part(_from_hub(shards), shards[0], _truth_near(shards[0], root), split)
    if questions is not None:
        raise _without_truth(questions)
    if _find(root, _TRUTH) is not None and fold is None and test is None:
        raise UserError(f"{request.dataset}: {_QUESTIONS} is missing: {root} holds {_TRUTH} alone, without questions.")
    needed = f"{_TRAIN} (in a folder pqal_fold0, say)" if split == "train" else f"{_TEST}, beside the folds"
    raise AbsentError(
        f"{request.dataset}: {root} holds no {needed}, and no {_QUESTIONS} with {_TRUTH}, one of which {split} needs."
    )


def _folders(root: Path) -> Iterator[Path]:
    deeper = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    for folder in (root, root / "data", *deeper, *(path / "data" for path in deeper)):
        yield folder
        yield from (folder / f"pqal_fold{number}" for number in range(10))


def _find(root: Path, name: str) -> Path | None:
    return next((folder / name for folder in _folders(root) if (folder / name).is_file()), None)


def _test_set(root: Path) -> Path | None:
    above = root.parent / _TEST
    fold_itself = root.name.startswith("pqal_fold") or (root / _TRAIN).is_file()
    return _find(root, _TEST) or (above if fold_itself and above.is_file() else None)


def _shards(root: Path) -> list[Path]:
    return find_shards(root, "train", _HUB)


def _truth_near(shard: Path, root: Path) -> Path:
    inside = [folder for folder in shard.parents if folder == root or root in folder.parents]
    folders = [folder for place in (*inside, shard.parent.parent) for folder in (place, place / "data")]
    found = next((folder / _TRUTH for folder in folders if (folder / _TRUTH).is_file()), None)
    if found is None:
        raise _without_truth(shard)
    note(found.parent)
    return found


def _without_truth(path: Path) -> UserError:
    return UserError(
        f"{path.parent / _TRUTH} is missing: {path.name} does not say which of its records are the test set; put that "
        "file, from data/ of PubMedQA's repository, beside it."
    )


def _part(records: Records, path: Path, truth_path: Path, split: str) -> Records:
    truth = read_json(truth_path)
    if not isinstance(truth, Mapping):
        raise UserError(f"{truth_path} must hold a JSON object, id -> decision.")
    for key, decision in truth.items():
        if key not in records:
            raise UserError(f"{path}: record {key}, which {truth_path.name} names, is missing; complete the download.")
        if records[key].decision != decision:
            raise UserError(f"{path}: record {key} has another decision than {truth_path.name}; download both again.")
    return {key: record for key, record in records.items() if (key in truth) == (split == "test")}


def _from_fold(folder: Path) -> Records:
    note(folder)
    records = _read_records(folder / _TRAIN)
    if (folder / _DEV).is_file():
        return records | _read_records(folder / _DEV)
    if len(records) != TRAINING_RECORDS:
        # The caller's line is not known here: the message names the folder instead.
        warnings.warn(
            f"{folder} has no {_DEV}: {len(records)} training records instead of {TRAINING_RECORDS}.",
            stacklevel=2,
        )
    return records


def _from_hub(shards: list[Path]) -> Records:
    records: Records = {}
    for row in read_rows(shards, ("pubid", "question", "final_decision")):
        key = str(row.values["pubid"])
        if key in records:
            raise UserError(f"{row.where}: the pubid {key} occurs twice.")
        records[key] = _record(row.values, "question", row.where)
    return records


def _read_records(path: Path) -> Records:
    records = read_json(path)
    if not isinstance(records, dict) or not all(isinstance(record, dict) for record in records.values()):
        raise UserError(f"{path} must hold a JSON object, id -> record.")
    return {key: _record(record, "QUESTION", f"{path}, record {key}") for key, record in records.items()}


def _record(values: dict[str, Any], question: str, where: str) -> _Record:
    record = _Record(where, text_field(values, question, where), text_field(values, "final_decision", where))
    if record.decision not in ANSWERS:
        raise UserError(f"{where}: final_decision must be yes, no or maybe.")
    return record


def _sample(request: Request, key: str, record: _Record) -> Sample:
    return request.sample(
        sample_id=key,
        image_id=None,
        patient_id=None,
        instruction=evaluation_instruction("pubmedqa", record.question),
        answer=record.decision,
        meta={"templates": "pubmedqa", "subject": record.question},
    )
