"""VQA-RAD (VQA): questions by clinicians about radiology images of MedPix.

Three forms are read, from the first that is there:

- the download of osf.io/89kps as it unpacks: `VQA_RAD Dataset Public.json` beside `VQA_RAD Image Folder/`. Its
  `phrase_type` tells the split: `freeform` and `para` train, `test_freeform` and `test_para` test;
- `trainset.json` and `testset.json` beside `images/`, as aioz-ai/MICCAI19-MedVQA (MEVF) made them and many took over;
- the hub's `data/{train,test}-*.parquet` (flaviagiammarino/vqa-rad), which has neither ids nor kinds of answer: there
  an answer is closed where it is yes or no.

What is established, and from where. The public file: 2,248 records, of which 1,797 train (1,206 freeform, 591 para)
and 451 test (308 and 143), with the keys qid, phrase_type, qid_linked_id, image_case_url, image_name, image_organ,
evaluation, question, question_rephrase, question_relation, question_frame, question_type, answer and answer_type (the
hub's card, readers in several repositories, aioz-ai/MICCAI19-MedVQA issue 6). `testset.json`: the same 451, 272 closed
and 179 open, on 203 images. `trainset.json`: 3,064, which are the 1,797 and 1,267 made of `question_frame`
(`phrase_type` frame); 466 of them repeat another's image, question and answer. Ten answers are numbers, two answer
types end in a blank, and some questions and answers have blanks at their ends (all counted on a published copy).
Parquet: 1,793 and 451, after four training records that repeat others were dropped (card). The split is by question:
images stand on both sides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unimed_model.data.cells import find_shards
from unimed_model.data.files import note, read_json_records, relative_name, unpacked
from unimed_model.data.images import ImageFile
from unimed_model.data.readers.request import ImageOptions, Request
from unimed_model.data.readers.vqa import Question, answer_type, as_samples, hub_questions, text_of
from unimed_model.data.sample import Samples
from unimed_model.errors import AbsentError, UserError

SPLITS = ("train", "test")
_PUBLIC = ("VQA_RAD Dataset Public.json", "VQA_RAD_Dataset_Public.json")
_IMAGES = ("VQA_RAD Image Folder", "VQA_RAD_Image_Folder", "images")
_FOLDERS = ("VQA_RAD", "data_RAD", "osfstorage-archive")
_PHRASES = ("freeform", "para", "frame")
_META = ("question_type", "phrase_type", "image_organ")


def holds(root: Path, _: ImageOptions) -> bool:
    """Say whether the folder holds the questions of a split, in any form."""
    return any(_json_file(root, split) or find_shards(root, split) for split in SPLITS)


def read(request: Request, options: ImageOptions) -> Samples:
    """Return the questions of a split in file order.

    Raises:
        UserError: an unknown split, a missing or damaged file or image, an unknown `phrase_type` or `answer_type`,
            an image name that leaves the root.
    """
    request.require_split(SPLITS)
    request.require_english()
    return as_samples(request, _questions(request), options)


def _questions(request: Request) -> Iterator[Question]:
    path = _json_file(request.root, request.split)
    if path is not None:
        return _from_json(request, path)
    shards = find_shards(request.root, request.split)
    if shards:
        return hub_questions(shards, request.split)
    raise AbsentError(
        f"{request.dataset}: {request.root} holds no {_PUBLIC[0]!r}, {request.split}set.json or "
        f"data/{request.split}-*.parquet, one of which {request.split} needs."
    )


def _json_file(root: Path, split: str) -> Path | None:
    for name in (*_PUBLIC, f"{split}set.json"):
        folder = unpacked(root, name, *_FOLDERS)
        if folder is not None:
            note(folder)
            return folder / name
    return None


def _from_json(request: Request, path: Path) -> Iterator[Question]:
    records = [(number, record) for number, record in enumerate(read_json_records(path))]
    public = path.name in _PUBLIC
    if public:
        records = [(n, r) for n, r in records if _split(r, f"{path}, record {n}") == request.split]
    ids = Counter(_stated_id(record) for _, record in records)
    folders = [path.parent / name for name in (_IMAGES if public else reversed(_IMAGES))]
    folder = next((folder for folder in folders if folder.is_dir()), folders[0])
    for number, record in records:
        where = f"{path}, record {number}"
        name = relative_name(text_of(record, "image_name", where), where)
        answer = text_of(record, "answer", where)
        stated = _stated_id(record)
        yield Question(
            where,
            sample_id=stated if stated is not None and ids[stated] == 1 else f"{request.split}-{number}",
            image_id=str(name),
            question=text_of(record, "question", where),
            answer=answer,
            answer_type=_answer_type(record, where) or answer_type(answer),
            image=ImageFile(folder / name),
            meta={
                "form": "public.json" if public else "set.json",
                **{key: text_of(record, key, where) for key in _META if key in record},
            },
        )


def _split(record: dict[str, Any], where: str) -> str:
    phrase = text_of(record, "phrase_type", where)
    if phrase.removeprefix("test_") not in _PHRASES:
        raise UserError(f"{where}: phrase_type must be one of {', '.join(_PHRASES)}, or of these after test_.")
    return "test" if phrase.startswith("test_") else "train"


def _answer_type(record: dict[str, Any], where: str) -> str:
    if "answer_type" not in record:
        return ""
    stated = text_of(record, "answer_type", where).upper()
    if stated not in ("OPEN", "CLOSED"):
        raise UserError(f"{where}: answer_type must be OPEN or CLOSED.")
    return stated


def _stated_id(record: dict[str, Any]) -> str | None:
    value = record.get("qid", record.get("question_id"))
    return str(value).strip() if isinstance(value, int | str) and str(value).strip().isdigit() else None
