"""The prediction file: a JSON object per line, with what was asked, what was answered and what is right.

Anyone's model can be scored from one: ``id``, ``task``, ``prediction`` and ``reference`` are enough.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .closed import nearest
from .data.privacy import FLAG, passed_on
from .data.sample import TASKS, Sample
from .errors import UserError
from .scoring import Answer, parse_box

ANSWER_TYPES = ("OPEN", "CLOSED")
_TEXTS = ("prompt", "prediction", "reference")
_LARGEST = 1e9  # pixels; nothing finite in JSON is sure to fit a float


def record_of(sample: Sample, prediction: str, allowed: bool = False) -> dict[str, Any]:
    """Return the line of one answer as a JSON object; what is not known of a sample has no key.

    Args:
        sample: as the processor's profile writes it: its instruction is the prompt, its answer the reference.
        prediction: what the model answered.
        allowed: whether text may be written whose licence forbids passing it on; else it is null.
    """
    texts = dict(zip(_TEXTS, (sample.instruction, prediction, sample.answer), strict=True))
    known = {name: sample.meta[name] for name in ("answer_type", "box_pixels", "image_size") if name in sample.meta}
    return {
        "dataset": sample.dataset,
        "task": sample.task,
        "id": sample.sample_id,
        "image_id": sample.image_id,
        **{name: passed_on(text, sample, allowed) for name, text in texts.items()},
        **_of_task(sample.task, known),
        **({"restricted": True} if sample.restricted else {}),
    }


def _of_task(task: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """What a reader tells of a sample that scoring of its task has a use for."""
    if task == "VQA":
        return {"answer_type": known["answer_type"]} if known.get("answer_type") in ANSWER_TYPES else {}
    if task == "REC":
        return {name: list(known[name]) for name in ("box_pixels", "image_size") if name in known}
    return {}


def line_of(record: Mapping[str, Any]) -> str:
    """Return an object as one line of the file, its end included."""
    return json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"


def answer_of(sample: Sample, prediction: str) -> Answer:
    """Return what scoring reads of one answer; arguments as in ``record_of``."""
    return _answer(record_of(sample, prediction, allowed=True))


def read_predictions(path: Path) -> list[Answer]:
    """Return the answers of a prediction file, in its order.

    Args:
        path: JSON lines, UTF-8; keys that are not known are passed over, and so are blank lines.

    Raises:
        UserError: no such file, no answers, or a line that is damaged, lacks a key, has a value of another type, an
            unknown task, a text that was withheld, or an id for the second time; names the file and the line.
    """
    answers: list[Answer] = []
    seen: dict[tuple[str, str], int] = {}
    tasks: dict[str, str] = {}
    for number, record in _records(path):
        where = f"{path}, line {number}"
        answer = _checked(record, where)
        key = (answer.dataset, answer.id)
        if key in seen:
            raise UserError(
                f"{where}: the id {answer.id!r} of {answer.dataset} stands in line {seen[key]} already; "
                "an id is unique within its dataset."
            )
        if tasks.setdefault(answer.dataset, answer.task) != answer.task:
            raise UserError(
                f"{where}: {answer.dataset} has the task {tasks[answer.dataset]} in lines above and {answer.task} "
                "here; a dataset has one task."
            )
        seen[key] = number
        answers.append(answer)
    if not answers:
        raise UserError(f"{path} holds no predictions; each line is an object with id, task, prediction and reference.")
    return answers


def by_dataset(answers: Iterable[Answer]) -> dict[str, list[Answer]]:
    """Return dataset -> its answers, in their order."""
    grouped: dict[str, list[Answer]] = {}
    for answer in answers:
        grouped.setdefault(answer.dataset, []).append(answer)
    return grouped


def _records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file of predictions, such as {path / 'predictions.jsonl'}.")
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, parsed_line(line, f"{path}, line {number}")
    except FileNotFoundError as error:
        raise UserError(f"There is no prediction file {path}.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from error


def parsed_line(line: bytes, where: str) -> dict[str, Any]:
    """Return the JSON object of one line.

    Raises:
        UserError: it is none; the sentence starts with `where`.
    """
    try:
        record = json.loads(line.decode("utf-8-sig"), parse_constant=_refuse_constant)
        # half of a character, escaped, would be read here and could not be written anywhere
        json.dumps(record, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not valid JSON ({_reason(error)}).") from error
    if not isinstance(record, dict):
        raise UserError(f"{where}: a JSON object is needed, not {_kind(record)}.")
    return record


def _reason(error: Exception) -> str:
    """What was wrong, without the text that the codecs quote."""
    if isinstance(error, UnicodeEncodeError):
        return "it escapes half of a character"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start + 1} is not UTF-8"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _checked(record: Mapping[str, Any], where: str) -> Answer:
    for key in ("id", "task", "prediction", "reference"):
        if key not in record:
            raise UserError(f"{where}: the key {key!r} is missing.")
    if record["task"] not in TASKS:
        raise UserError(f"{where}: {_unknown_task(record['task'])}")
    for key in ("prediction", "reference"):
        if record[key] is None and record.get("restricted"):
            raise UserError(
                f"{where}: the text is withheld, because its licence forbids passing it on; score where the answers "
                f"were made, with unimed-eval RUN {FLAG}, or take such lines out."
            )
        _require(isinstance(record[key], str), where, key, "a text", record[key])
    for key in ("id", "image_id"):
        value = record.get(key)
        absent = key == "image_id" and value is None
        _require(absent or _is_name(value), where, key, "a text or a whole number", value)
    _check_optional(record, where)
    answer = _answer(record)
    if answer.task == "REC" and parse_box(answer.reference) is None:
        raise UserError(f"{where}: the reference of a REC sample must be a box, such as <12><30><45><80>.")
    return answer


def _check_optional(record: Mapping[str, Any], where: str) -> None:
    dataset, answer_type = record.get("dataset"), record.get("answer_type")
    box, size = record.get("box_pixels"), record.get("image_size")
    _require(dataset is None or (isinstance(dataset, str) and dataset != ""), where, "dataset", "a name", dataset)
    _require(answer_type in (None, *ANSWER_TYPES), where, "answer_type", "OPEN or CLOSED", answer_type)
    _require(box is None or _numbers(box, 4), where, "box_pixels", "four numbers [x, y, width, height]", box)
    _require(size is None or _is_size(size), where, "image_size", "two whole numbers [width, height] above 0", size)


def _require(holds: bool, where: str, key: str, wanted: str, value: Any) -> None:
    if not holds:
        raise UserError(f"{where}: {key!r} must be {wanted}, not {_kind(value)}.")


def _is_name(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _is_size(value: Any) -> bool:
    return _numbers(value, 2) and all(isinstance(side, int) and side > 0 for side in value)


def _numbers(value: Any, count: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == count
        and all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) <= _LARGEST for v in value)
    )


def _kind(value: Any) -> str:
    """What a value is, without quoting a text, which may be one that must not be passed on."""
    if value is None:
        return "null"
    names = {
        str: "a text",
        bool: "true or false",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "an object",
    }
    return names[type(value)]


def _unknown_task(task: Any) -> str:
    if not isinstance(task, str):
        return f"'task' must be one of {', '.join(TASKS)}, not {_kind(task)}."
    return f"there is no task {task[:40]!r}; the nearest is {nearest(task, TASKS)!r} (all: {', '.join(TASKS)})."


def _answer(record: Mapping[str, Any]) -> Answer:
    image, box, size = record.get("image_id"), record.get("box_pixels"), record.get("image_size")
    return Answer(
        id=str(record["id"]),
        dataset=record.get("dataset") or record["task"],
        task=record["task"],
        prediction=record["prediction"],
        reference=record["reference"],
        image_id=None if image is None else str(image),
        answer_type=record.get("answer_type"),
        box_pixels=None if box is None else tuple(float(value) for value in box),
        image_size=None if size is None else (int(size[0]), int(size[1])),
    )
