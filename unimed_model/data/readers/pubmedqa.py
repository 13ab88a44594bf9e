"""PubMedQA's labelled part (QA): questions answered with yes, no or maybe; the abstract is not shown.

Two forms of the root are read: the repository's `data/` with `ori_pqal.json` and `test_ground_truth.json`,
whose 500 ids are the test set and the other 500 the training set; or the output of the official split
script, `test_set.json` beside `pqal_fold{0..9}/{train,dev}_set.json`, where train and dev of any one fold are
together those 500. No random numbers are needed.
"""

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from unimed_model.data.files import read_json, text_field
from unimed_model.data.findings import Findings
from unimed_model.data.readers.request import LayoutOptions, Request, finish
from unimed_model.data.sample import Sample, Samples
from unimed_model.data.templates import evaluation_instruction
from unimed_model.errors import UserError

SPLITS = ("train", "test")
ANSWERS = ("yes", "no", "maybe")
TRAINING_RECORDS = 500

Records = dict[str, dict[str, Any]]


def holds(root: Path, _: LayoutOptions) -> bool:
    """Say whether the folder holds PubMedQA in either form."""
    return _repository_folder(root) is not None or _fold_folder(root) is not None


def read(request: Request, _: LayoutOptions) -> Samples:
    """Return the questions of a split in file order.

    Raises:
        UserError: an unknown split, a missing or damaged file, a decision that is not yes, no or maybe.
    """
    request.require_split(SPLITS)
    request.require_english()
    repository, fold = _repository_folder(request.root), _fold_folder(request.root)
    if repository is not None:
        records = _from_repository(repository, request.split)
    elif fold is not None:
        records = _from_fold(fold, request.split)
    else:
        raise UserError(
            f"{request.dataset}: {request.root} holds neither ori_pqal.json (with test_ground_truth.json) "
            "nor train_set.json."
        )
    return finish(request, [_sample(request, key, record) for key, record in records.items()], Findings())


def _repository_folder(root: Path) -> Path | None:
    return next((f for f in (root, root / "data") if (f / "ori_pqal.json").is_file()), None)


def _fold_folder(root: Path) -> Path | None:
    return next((f for f in _fold_candidates(root) if (f / "train_set.json").is_file()), None)


def _fold_candidates(root: Path) -> Iterator[Path]:
    for folder in (root, root / "data"):
        yield folder
        yield from (folder / f"pqal_fold{number}" for number in range(10))


def _from_repository(folder: Path, split: str) -> Records:
    path = folder / "ori_pqal.json"
    records = _read_records(path)
    truth = read_json(folder / "test_ground_truth.json")
    if not isinstance(truth, Mapping):
        raise UserError(f"{folder / 'test_ground_truth.json'} must hold a JSON object, id -> decision.")
    for key, decision in truth.items():
        found = records.get(key, {}).get("final_decision")
        if found != decision:
            raise UserError(f"{path}: record {key} has the decision {found!r}, the ground truth says {decision!r}.")
    return {key: record for key, record in records.items() if (key in truth) == (split == "test")}


def _from_fold(folder: Path, split: str) -> Records:
    if split == "test":
        beside = [path for path in (folder / "test_set.json", folder.parent / "test_set.json") if path.is_file()]
        if not beside:
            raise UserError(f"{folder} and the folder above hold no test_set.json.")
        return _read_records(beside[0])
    records = _read_records(folder / "train_set.json")
    if (folder / "dev_set.json").is_file():
        return records | _read_records(folder / "dev_set.json")
    if len(records) != TRAINING_RECORDS:
        # The caller's line is not known here: the message names the folder instead.
        warnings.warn(
            f"{folder} has no dev_set.json: {len(records)} training records instead of {TRAINING_RECORDS}.",
            stacklevel=2,
        )
    return records


def _read_records(path: Path) -> Records:
    records = read_json(path)
    if not isinstance(records, dict) or not all(isinstance(record, dict) for record in records.values()):
        raise UserError(f"{path} must hold a JSON object, id -> record.")
    for key, record in records.items():
        where = f"{path}, record {key}"
        text_field(record, "QUESTION", where)
        if text_field(record, "final_decision", where) not in ANSWERS:
            raise UserError(f"{where}: final_decision must be yes, no or maybe, not {record['final_decision']!r}.")
    return records


def _sample(request: Request, key: str, record: dict[str, Any]) -> Sample:
    question = record["QUESTION"].strip()
    return request.sample(
        sample_id=key,
        image_id=None,
        patient_id=None,
        instruction=evaluation_instruction("pubmedqa", question),
        answer=record["final_decision"].strip(),
        meta={"templates": "pubmedqa", "subject": question},
    )
