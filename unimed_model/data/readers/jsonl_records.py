"""What a record of the generic JSON-lines form holds, and the sample it makes.

| key | value |
|---|---|
| `image` | file, relative to the folder of the `.jsonl` file; not for QA |
| `prompt` | the instruction, verbatim, for training and evaluation |
| `question` | instead: fills the slot of the task's pool of instructions (VQA, QA; for REC it is the object's name) |
| `answer` | the target; for REC it may be left to the box |
| `boxes` | list of `[x1, y1, x2, y2]` in hundredths of width and height, 0 to 100, or as `box_format` says |
| `id`, `image_id`, `patient_id` | texts or whole numbers |
| `task`, `dataset`, `split` | see `jsonl` |

Without prompt, REG asks about its one box and needs no question, RG needs none either, and a question of RG or CLS,
whose pools have no slot, is the instruction. All other keys are kept in `meta`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from unimed_model.data.boxes import SCALE, Box, box_problem, box_text, boxes_in, normalise
from unimed_model.data.files import relative_name
from unimed_model.data.findings import Findings
from unimed_model.data.images import ImageFile
from unimed_model.data.readers.request import ImageOptions, Request
from unimed_model.data.sample import Sample
from unimed_model.data.templates import evaluation_instruction
from unimed_model.errors import UserError

POOLS = {"QA": "qa", "VQA": "vqa", "RG": "mpx_single", "REC": "refer", "REG": "identify"}
_KNOWN = ("image", "prompt", "question", "answer", "boxes", "id", "image_id", "patient_id", "task", "dataset", "split")
_OURS = ("templates", "subject", "profile")


class JsonlOptions(ImageOptions):
    """Which records are read, and how.

    Attributes:
        dataset: what the key `dataset` says of them; the dataset's own name when None.
        task: of records without the key `task`.
        box_format: `hundredths` of the image; or pixels as `[x, y, width, height]` or `[x1, y1, x2, y2]`, which are
            rounded down to hundredths and need the image files.
    """

    dataset: str | None = None
    task: Literal["QA", "VQA", "RG", "REC", "REG", "CLS"] | None = None
    box_format: Literal["hundredths", "pixels_xywh", "pixels_xyxy"] = "hundredths"


class NoImageFile(Exception):
    """The size of an image is needed, and its file is missing."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path


def sample_of(
    request: Request, options: JsonlOptions, record: Mapping[str, Any], place: tuple[Path, int], findings: Findings
) -> Sample | None:
    """Return the sample of a record; None where it is left out, which is counted.

    Raises:
        UserError: a key is missing or has a value of the wrong kind, or answer and box disagree; names file and line,
            and never quotes the record.
        NoImageFile: pixel boxes of an image that is missing.
    """
    where = f"{place[0]}, line {place[1]}"
    _check_keys(record, where)
    name = _image_name(request, record, where)
    image = ImageFile(place[0].parent / name) if name else None
    boxes = _boxes(request, options, record, image, where, findings)
    if boxes is None:
        return None
    answer, boxes = _answer(request.task, record, boxes, where)
    instruction, meta = _instruction(request.task, record, boxes, where)
    for kind, text in (("empty answer", answer), ("empty question", instruction)):
        if not text.strip():
            findings.leave_out(kind, where)
            return None
    return request.sample(
        sample_id=_identifier(record, "id", where) or f"{place[0].stem}-{place[1]}",
        image_id=_identifier(record, "image_id", where) or name,
        patient_id=_identifier(record, "patient_id", where),
        instruction=instruction,
        answer=answer,
        boxes=boxes,
        meta={**{key: value for key, value in record.items() if key not in _KNOWN}, **meta},
        image_source=image,
    )


def _check_keys(record: Mapping[str, Any], where: str) -> None:
    ours = [key for key in _OURS if key in record]
    if ours:
        raise UserError(f"{where}: the key {ours[0]!r} has a meaning of its own here; rename it.")
    for key in ("image", "prompt", "question", "answer"):
        if key in record and not isinstance(record[key], str):
            raise UserError(f"{where}: {key!r} must be a text, not {type(record[key]).__name__}.")


def _image_name(request: Request, record: Mapping[str, Any], where: str) -> str | None:
    if request.task == "QA":
        if "image" in record:
            raise UserError(f"{where}: QA is asked without image; the task of questions about images is VQA.")
        return None
    if "image" not in record:
        raise UserError(f"{where}: the key 'image' is missing, which {request.task} needs.")
    return relative_name(record["image"], where).as_posix()


def _identifier(record: Mapping[str, Any], key: str, where: str) -> str | None:
    value = record.get(key)
    if value is not None and (not isinstance(value, str | int) or isinstance(value, bool) or not str(value).strip()):
        raise UserError(f"{where}: {key!r} must be a text or a whole number.")
    return None if value is None else str(value)


def _boxes(
    request: Request,
    options: JsonlOptions,
    record: Mapping[str, Any],
    image: ImageFile | None,
    where: str,
    findings: Findings,
) -> tuple[Box, ...] | None:
    """Return the boxes in hundredths; None where one of them is no box inside the image, which is counted."""
    given = record.get("boxes", [])
    if not isinstance(given, list) or not all(_four_numbers(box) for box in given):
        raise UserError(f"{where}: 'boxes' must be a list of boxes of four numbers, such as [[10, 20, 30, 40]].")
    if options.box_format == "hundredths":
        if any(value != int(value) for box in given for value in box):
            raise UserError(f"{where}: 'boxes' must be in whole hundredths; of pixels, state the option box_format.")
        boxes = [_box(box) for box in given]
        inside = all(map(_inside, boxes))
    else:
        size = _size(request, image, where) if given else (1, 1)
        pixels = [_corner_and_size(box, options.box_format) for box in given]
        inside = not any(box_problem(box, size) for box in pixels)
        boxes = [normalise(box, size) for box in pixels] if inside else []
    if not inside:
        findings.leave_out("box outside the image", where)
        return None
    return tuple(boxes)


def _four_numbers(box: Any) -> bool:
    numbers = isinstance(box, list) and [isinstance(v, int | float) and not isinstance(v, bool) for v in box]
    return numbers == [True] * 4 and all(abs(value) < float("inf") for value in box)


def _inside(box: Box) -> bool:
    x1, y1, x2, y2 = box
    return 0 <= x1 <= x2 <= SCALE and 0 <= y1 <= y2 <= SCALE


def _box(box: list[float]) -> Box:
    x1, y1, x2, y2 = (int(value) for value in box)
    return x1, y1, x2, y2


def _corner_and_size(box: list[float], box_format: str) -> tuple[float, float, float, float]:
    x, y, third, fourth = box
    return (x, y, third, fourth) if box_format == "pixels_xywh" else (x, y, third - x, fourth - y)


def _size(request: Request, image: ImageFile | None, where: str) -> tuple[int, int]:
    if image is None or not request.images:
        raise UserError(f"{where}: boxes in pixels need the size of their image, so images=False cannot read them.")
    if not image.path.is_file():
        raise NoImageFile(image.path)
    return image.size()


def _answer(task: str, record: Mapping[str, Any], boxes: tuple[Box, ...], where: str) -> tuple[str, tuple[Box, ...]]:
    if task != "REC":
        if "answer" not in record:
            raise UserError(f"{where}: the key 'answer' is missing.")
        return record["answer"].strip(), boxes
    if "answer" not in record:
        if len(boxes) != 1:
            raise UserError(f"{where}: without 'answer' REC needs one box in 'boxes', not {len(boxes)}.")
        return box_text(boxes[0]), boxes
    answer = record["answer"].strip()
    written = boxes_in(answer)
    if answer and (not written or boxes not in ((), written)):
        raise UserError(f"{where}: the answer of REC must write its box as in '<10><20><30><40>', the one in 'boxes'.")
    if any(not _inside(box) for box in written):
        raise UserError(
            f"{where}: the box in the answer must lie in 0 to {SCALE}, left before right and top before bottom."
        )
    return answer, written


def _instruction(
    task: str, record: Mapping[str, Any], boxes: tuple[Box, ...], where: str
) -> tuple[str, dict[str, Any]]:
    """Return the instruction, and the pool and subject that go into `meta`."""
    question = record.get("question", "").strip()
    if "prompt" in record:
        return record["prompt"], {"subject": question or record["prompt"]}
    if task in ("RG", "CLS") and "question" in record:
        return question, {"subject": question}
    subject = _SUBJECTS[task](record, boxes, where)
    if task != "RG" and not subject:
        return "", {}
    return evaluation_instruction(POOLS[task], subject), {"templates": POOLS[task], "subject": subject}


def _asked(record: Mapping[str, Any], _: tuple[Box, ...], where: str) -> str:
    if "question" not in record:
        raise UserError(f"{where}: the key 'prompt' or 'question' is missing.")
    return str(record["question"]).strip()


def _boxed(_: Mapping[str, Any], boxes: tuple[Box, ...], where: str) -> str:
    if len(boxes) != 1:
        raise UserError(f"{where}: without 'prompt' REG needs one box in 'boxes', not {len(boxes)}.")
    return box_text(boxes[0])


_SUBJECTS: dict[str, Callable[[Mapping[str, Any], tuple[Box, ...], str], str]] = {
    "QA": _asked,
    "VQA": _asked,
    "CLS": _asked,
    "REC": _asked,
    "REG": _boxed,
    "RG": lambda *_: "",
}
