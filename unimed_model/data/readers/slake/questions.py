"""Slake's questions (VQA): the three official files, or each image's `question.json` where there are none.

English by default (`language="zh"` or `"all"` for the rest). Records without an answer are left out and
counted; the published files have exactly one. A sample is called by its `qid`, or by image, file and place where that
is not a whole number of its own.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unimed_model.data.files import read_json_records, text_field
from unimed_model.data.findings import Findings
from unimed_model.data.images import ImageFile
from unimed_model.data.readers import slake
from unimed_model.data.readers.duplicates import Duplicates
from unimed_model.data.readers.request import ImageOptions, Request, finish
from unimed_model.data.sample import Sample, Samples
from unimed_model.data.templates import evaluation_instruction
from unimed_model.errors import AbsentError, UserError

_BY_IMAGE = "question.json"
LANGUAGES = ("en", "zh", "all")
_META = ("answer_type", "base_type", "content_type", "location", "modality", "triple")


def holds(root: Path, _: ImageOptions) -> bool:
    """Say whether the folder holds Slake questions."""
    return bool(slake.question_files(root)) or any(_question_files_by_image(root))


def read(request: Request, options: ImageOptions) -> Samples:
    """Return the questions of a split in file order.

    Raises:
        UserError: an unknown split or language, a missing or damaged file or image, an `img_name` that leaves
            the root.
    """
    if request.language not in LANGUAGES:
        raise UserError(f"{request.dataset} has no language {request.language!r}; it has en, zh, or all.")
    findings = Findings()
    duplicates = Duplicates(findings)
    samples: list[Sample] = []
    levels = slake.image_levels(request.root) if request.images else [request.root / "imgs"]
    records = list(_records(request))
    times = Counter(qid for _, _, record in records if (qid := _qid(record)) is not None)
    for path, index, record in records:
        where = f"{path}, record {index}"
        if request.language not in ("all", text_field(record, "q_lang", where)):
            continue
        qid = _qid(record)
        name = _place(path, index, record, where) if qid is None or times[qid] > 1 else str(qid)
        sample = _sample(request, levels, record, where, name)
        empty = [key for key, text in (("answer", sample.answer), ("question", sample.meta["subject"])) if not text]
        if empty:
            findings.leave_out(f"empty {empty[0]}", where)
            continue
        duplicates.see(sample, where)
        samples.append(sample)
    with slake.hinting_at_archives(request.root):
        return finish(request, samples, findings, options.missing_images)


def _records(request: Request) -> Iterator[tuple[Path, int, dict[str, Any]]]:
    wanted = None if request.split in slake.OFFICIAL else slake.images_of_split(request)
    for path in _sources(request):
        for index, record in enumerate(read_json_records(path)):
            where = f"{path}, record {index}"
            number = slake.image_number(slake.image_name(record, where).parts[0])
            if wanted is not None:
                slake.require_in_split_range(number, request.root)
            if wanted is None or number in wanted:
                yield path, index, record


def _sources(request: Request) -> list[Path]:
    if request.split in slake.OFFICIAL:
        return [slake.question_file(request)]
    paths = list(slake.question_files(request.root).values()) or list(_question_files_by_image(request.root))
    if not paths:
        raise AbsentError(
            f"{request.dataset}: {request.root} holds none of train.json, validate.json, test.json and no "
            "imgs/xmlabN/question.json."
        )
    return paths


def _question_files_by_image(root: Path) -> Iterator[Path]:
    files = (folder / _BY_IMAGE for folder in slake.image_folders(root))
    return (path for path in files if path.is_file())


def _qid(record: dict[str, Any]) -> int | None:
    # An image's own question.json may lack it, or number anew.
    qid = record.get("qid")
    return qid if isinstance(qid, int) and not isinstance(qid, bool) else None


def _place(path: Path, index: int, record: dict[str, Any], where: str) -> str:
    folder = path.parent.name if path.name == _BY_IMAGE else slake.image_name(record, where).parts[0]
    return f"{folder}-{path.stem}-{index}"


def _sample(request: Request, levels: list[Path], record: dict[str, Any], where: str, sample_id: str) -> Sample:
    name = slake.image_name(record, where)
    question = text_field(record, "question", where)
    return request.sample(
        sample_id=sample_id,
        image_id=name.parts[0],
        patient_id=None,
        instruction=evaluation_instruction("vqa", question),
        answer=text_field(record, "answer", where),
        meta={
            "templates": "vqa",
            "subject": question,
            "language": record["q_lang"],
            **{key: record[key] for key in _META if key in record},
        },
        image_source=ImageFile(slake.image_path(levels, name) if request.images else levels[0] / name),
    )
