"""Path-VQA (VQA): questions about pathology images, official splits train, val and test.

Layout: `qas/` beside `images/{train,val,test}/`, in the root or in a folder of the root (`pvqa/`, `split/`), as
archives unpack. The questions of a split are read from the first of these that is there:

- `qas/{split}_vqa.pkl`: `img_id`, `sent`, `label` (answer -> score; the first answer is taken), `answer_type`,
  `question_type`, `question_id`;
- `qas/{split}/{split}_qa.pkl`: `image`, `question`, `answer`;
- the hub's `data/{train,validation,test}-*.parquet`, which lacks the duplicates of the others and all ids.

A question is closed where its answer type is yes/no, or, in the forms without one, where its answer is yes or no.
The published files hold 19,755, 6,279 and 6,761 questions; of these 101, 20 and 42 repeat another's image, question
and answer, and are kept. Answers lose the blanks at their ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unimed_model.data.cells import find_shards
from unimed_model.data.files import note, relative_name, unpacked
from unimed_model.data.images import ImageFile
from unimed_model.data.pickles import read_pickle
from unimed_model.data.readers.request import ImageOptions, Request
from unimed_model.data.readers.vqa import Question, answer_type, as_samples, as_text, hub_questions, text_of
from unimed_model.data.sample import Samples
from unimed_model.errors import AbsentError, UserError

SPLITS = ("train", "val", "test")
_HUB = {"train": "train", "val": "validation", "test": "test"}
_FOLDERS = ("pvqa", "split", "pvqa/pvqa")
_SUFFIXES = (".jpg", ".png", ".jpeg")


def holds(root: Path, _: ImageOptions) -> bool:
    """Say whether the folder holds the questions of any split, in any form."""
    return any(_pickle(root, split) or find_shards(root, _HUB[split]) for split in SPLITS)


def read(request: Request, options: ImageOptions) -> Samples:
    """Return the questions of a split in file order.

    Raises:
        UserError: an unknown split, a missing or damaged file or image, a pickle that asks for more than data, an
            image name that leaves the root.
    """
    request.require_split(SPLITS)
    request.require_english()
    return as_samples(request, _questions(request), options)


def _questions(request: Request) -> Iterator[Question]:
    path = _pickle(request.root, request.split)
    if path is not None:
        return _from_pickle(request, path)
    shards = find_shards(request.root, _HUB[request.split])
    if shards:
        return hub_questions(shards, request.split)
    split = request.split
    raise AbsentError(
        f"{request.dataset}: {request.root} holds no qas/{split}_vqa.pkl, qas/{split}/{split}_qa.pkl or "
        f"data/{_HUB[split]}-*.parquet, one of which {split} needs."
    )


def _pickle(root: Path, split: str) -> Path | None:
    folder = unpacked(root, "qas", *_FOLDERS)
    if folder is None:
        return None
    note(folder / "qas")
    candidates = [folder / "qas" / f"{split}_vqa.pkl", folder / "qas" / split / f"{split}_qa.pkl"]
    return next((path for path in candidates if path.is_file()), None)


def _from_pickle(request: Request, path: Path) -> Iterator[Question]:
    records = read_pickle(path)
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise UserError(f"{path} must hold a list of dictionaries.")
    images = _Images(request, path)
    ids = Counter(record.get("question_id") for record in records if type(record.get("question_id")) is int)
    told = path.name.endswith("_vqa.pkl")
    for number, record in enumerate(records):
        where = f"{path}, record {number}"
        name = text_of(record, "img_id" if told else "image", where)
        answer = _answer(record, where) if told else text_of(record, "answer", where)
        stated = record.get("answer_type")
        meta = {"form": "vqa.pkl" if told else "qa.pkl"}
        if isinstance(record.get("question_type"), str):
            meta["question_type"] = record["question_type"].strip()
        yield Question(
            where,
            sample_id=_sample_id(request.split, number, record, ids),
            image_id=name,
            question=text_of(record, "sent" if told else "question", where),
            answer=answer,
            answer_type=answer_type(answer) if stated is None else "CLOSED" if stated == "yes/no" else "OPEN",
            image=images.named(name, where),
            meta=meta,
        )


def _answer(record: dict[str, Any], where: str) -> str:
    label = record.get("label")
    if not isinstance(label, dict):
        raise UserError(f"{where}: the key 'label' must be a dictionary of answers with their scores.")
    return as_text(next(iter(label), None), "label", where)


def _sample_id(split: str, number: int, record: dict[str, Any], ids: Counter[object]) -> str:
    question_id = record.get("question_id")
    return str(question_id) if type(question_id) is int and ids[question_id] == 1 else f"{split}-{number}"


class _Images:
    """The image files of one split, each looked for once."""

    def __init__(self, request: Request, questions: Path) -> None:
        qas = next(folder for folder in questions.parents if folder.name == "qas")
        self._folder = qas.parent / "images" / request.split
        self._look = request.images
        self._known: dict[str, ImageFile] = {}

    def named(self, name: str, where: str) -> ImageFile:
        """Return the image of an `img_id`; where none exists, the place where the download puts it."""
        if name not in self._known:
            path = self._folder / relative_name(name, where)
            candidates = [path.with_name(path.name + suffix) for suffix in _SUFFIXES]
            present = (file for file in candidates if file.is_file()) if self._look else iter(())
            self._known[name] = ImageFile(next(present, candidates[0]))
        return self._known[name]
