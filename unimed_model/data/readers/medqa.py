"""MedQA, the English set (QA): questions of the USMLE with four or five options, which are not shown.

Five options, the paper's form, are in `questions/US/{train,dev,test}.jsonl` (10,178, 1,272 and 1,273 questions), four
in `questions/US/4_options/phrases_no_exclude_{split}.jsonl`, and in files of that name alone in the hub's
GBaker/MedQA-USMLE-4-options, which has no dev. The root may be the folder that holds `questions/`, one or two levels
above it as the archive unpacks, `questions/`, `US/`, or whatever folder the files are in.

Some published questions, answers and options end with a quotation mark that opens nowhere: it is removed, with the
blanks and line breaks around it. Options are kept in `meta`; they may come as `{letter: text}` or as a list of
`{key, value}` (bigbio).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from unimed_model.data.files import note, read_json_lines, text_field
from unimed_model.data.findings import Findings
from unimed_model.data.readers.duplicates import Duplicates
from unimed_model.data.readers.request import LayoutOptions, Request, finish
from unimed_model.data.sample import Sample, Samples
from unimed_model.data.templates import evaluation_instruction
from unimed_model.errors import AbsentError, UserError

SPLITS = ("train", "dev", "test")
_LEVELS = (".", "data_clean", "data_clean/data_clean")
_INNER = ("questions/US", "US", ".")
_FILES = {5: ("{}.jsonl",), 4: ("4_options/phrases_no_exclude_{}.jsonl", "phrases_no_exclude_{}.jsonl")}


class MedQAOptions(LayoutOptions):
    """Which form is read.

    Attributes:
        options: 5 or 4 options for a question; by default those with five where the split has them, else four.
    """

    options: Literal[5, 4] | None = None


def holds(root: Path, options: MedQAOptions) -> bool:
    """Say whether the folder holds a file of the English set."""
    return any(_file(root, split, options) is not None for split in SPLITS)


def read(request: Request, options: MedQAOptions) -> Samples:
    """Return the questions of a split in file order; records without question or answer are left out and counted.

    Raises:
        UserError: an unknown split, a missing file, a damaged line, an answer that is not the marked option.
    """
    request.require_split(SPLITS)
    request.require_english()
    path = _file(request.root, request.split, options)
    if path is None:
        names = " or ".join(name.format(request.split) for name in _names(options))
        raise AbsentError(f"{request.dataset}: {request.root} holds no {names}, which {request.split} needs.")
    note(path.parent)
    findings = Findings()
    samples: list[Sample] = []
    duplicates = Duplicates(findings)
    for number, record in read_json_lines(path):
        where = f"{path}, line {number}"
        sample = _sample(request, where, number, record)
        pair = (sample.meta["subject"], sample.answer)
        if not all(pair):
            findings.leave_out("empty answer" if pair[0] else "empty question", where)
            continue
        duplicates.see(sample, where)
        samples.append(sample)
    return finish(request, samples, findings)


def _names(options: MedQAOptions) -> tuple[str, ...]:
    return _FILES[5] + _FILES[4] if options.options is None else _FILES[options.options]


def _file(root: Path, split: str, options: MedQAOptions) -> Path | None:
    folders = [root / level / inner for level in _LEVELS for inner in _INNER]
    candidates = (folder / name.format(split) for name in _names(options) for folder in folders)
    return next((path for path in candidates if path.is_file()), None)


def _without_stray_quote(text: str) -> str:
    text = text.strip()
    return text[:-1].rstrip() if text.endswith('"') and text.count('"') % 2 else text


def _sample(request: Request, where: str, line: int, record: dict[str, Any]) -> Sample:
    question = _without_stray_quote(text_field(record, "question", where))
    answer = _without_stray_quote(text_field(record, "answer", where))
    meta: dict[str, Any] = {"templates": "medqa", "subject": question}
    options = _options(record, where)
    if options:
        meta["options"] = options
    marked = record.get("answer_idx")
    if options and marked is not None and options.get(str(marked)) != answer:
        raise UserError(f"{where}: the answer is not the text of the option that answer_idx marks.")
    return request.sample(
        sample_id=f"{request.split}-{line}",
        image_id=None,
        patient_id=None,
        instruction=evaluation_instruction("medqa", question),
        answer=answer,
        meta=meta | {key: record[key] for key in ("answer_idx", "meta_info") if key in record},
    )


def _options(record: Mapping[str, Any], where: str) -> dict[str, str]:
    options = record.get("options", {})
    if isinstance(options, list) and all(isinstance(option, dict) for option in options):
        pairs = [(option.get("key"), option.get("value")) for option in options]
    else:
        pairs = list(options.items()) if isinstance(options, dict) else [(None, None)]
    if not all(isinstance(letter, str) and isinstance(text, str) for letter, text in pairs):
        raise UserError(f"{where}: options must be texts by letter, or a list of objects with key and value.")
    return {letter: _without_stray_quote(text) for letter, text in pairs}
