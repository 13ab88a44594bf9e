"""MedQA, the English five-option set (QA): `questions/US/{train,dev,test}.jsonl`; the options are not shown.

The root may be the folder that holds `questions/`, or one or two levels above it, as the archive unpacks.
Some published questions and answers end with a quotation mark that opens nowhere: it is removed, with the
blanks around it.
"""

from pathlib import Path
from typing import Any

from unimed_model.data.files import read_json_lines, text_field
from unimed_model.data.findings import Findings
from unimed_model.data.readers.request import LayoutOptions, Request, finish
from unimed_model.data.sample import Sample, Samples
from unimed_model.data.templates import evaluation_instruction
from unimed_model.errors import UserError

SPLITS = ("train", "dev", "test")
_LEVELS = (".", "data_clean", "data_clean/data_clean")


def holds(root: Path, _: LayoutOptions) -> bool:
    """Say whether the folder holds a file of the English set."""
    return _folder(root) is not None


def read(request: Request, _: LayoutOptions) -> Samples:
    """Return the questions of a split in file order; records without an answer are left out and counted.

    Raises:
        UserError: an unknown split, a missing file, a damaged line, an answer that is not the marked option.
    """
    request.require_split(SPLITS)
    request.require_english()
    folder = _folder(request.root)
    if folder is None:
        raise UserError(f"{request.dataset}: {request.root} holds no questions/US/{request.split}.jsonl.")
    path = folder / f"{request.split}.jsonl"
    findings = Findings()
    samples = []
    for number, record in read_json_lines(path):
        where = f"{path}, line {number}"
        sample = _sample(request, where, number, record)
        if sample.answer and sample.meta["subject"]:
            samples.append(sample)
        else:
            findings.leave_out("empty answer" if sample.meta["subject"] else "empty question", where)
    return finish(request, samples, findings)


def _folder(root: Path) -> Path | None:
    folders = [root / level / "questions" / "US" for level in _LEVELS]
    return next((f for f in folders if any((f / f"{s}.jsonl").is_file() for s in SPLITS)), None)


def _without_stray_quote(text: str) -> str:
    text = text.strip()
    return text[:-1].rstrip() if text.endswith('"') and text.count('"') % 2 else text


def _sample(request: Request, where: str, line: int, record: dict[str, Any]) -> Sample:
    question = _without_stray_quote(text_field(record, "question", where))
    answer = text_field(record, "answer", where)
    options, marked = record.get("options"), record.get("answer_idx")
    if isinstance(options, dict) and marked is not None and str(options.get(marked)).strip() != answer:
        raise UserError(f"{where}: the answer {answer!r} is not the text of option {marked!r}.")
    return request.sample(
        sample_id=f"{request.split}-{line}",
        image_id=None,
        patient_id=None,
        instruction=evaluation_instruction("medqa", question),
        answer=_without_stray_quote(answer),
        meta={
            "templates": "medqa",
            "subject": question,
            **{key: record[key] for key in ("options", "answer_idx", "meta_info") if key in record},
        },
    )
