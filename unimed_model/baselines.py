"""What a model must beat before its numbers mean anything; none of them learns features.

Each baseline sees the training split and answers the test split, sample by sample.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .data.boxes import box_text
from .data.sample import Sample

THUMBNAIL_SIDE = 16
Baseline = Callable[[Sequence[Sample], Sequence[Sample]], list[str]]


def of_task(task: str, planes: Mapping[str, str]) -> dict[str, Baseline]:
    """Return the baselines of a task by name.

    Args:
        task: one of ``TASKS``.
        planes: image id -> plane, as the sample corpus tells; empty where it is not known of all images.
    """
    if task == "REC":
        known: dict[str, Baseline] = {"mean box": mean_box, "mean box of the object": mean_box_of_object}
        return known | ({"mean box of object and plane": mean_box_of_object_and_plane(planes)} if planes else {})
    if task == "CLS":
        return {"majority class": majority_answer, "thumbnail neighbour": thumbnail_neighbour}
    return {"majority answer": majority_answer}


def majority_answer(train: Sequence[Sample], test: Sequence[Sample]) -> list[str]:
    """Answer with the most frequent training answer to the same instruction, else with the most frequent one."""
    by_instruction: dict[str, Counter[str]] = defaultdict(Counter)
    for sample in train:
        by_instruction[sample.instruction][sample.answer] += 1
    overall = sum(by_instruction.values(), Counter()).most_common(1)[0][0]
    return [
        by_instruction[s.instruction].most_common(1)[0][0] if s.instruction in by_instruction else overall for s in test
    ]


def thumbnail_neighbour(train: Sequence[Sample], test: Sequence[Sample]) -> list[str]:
    """Answer as the training sample whose 16 x 16 gray thumbnail is nearest in squared distance."""
    known = np.stack([_thumbnail(sample) for sample in train])
    lengths = (known**2).sum(axis=1)
    answers = []
    for sample in test:
        distances = lengths - 2 * known @ _thumbnail(sample)
        answers.append(train[int(distances.argmin())].answer)
    return answers


def _thumbnail(sample: Sample) -> NDArray[np.float32]:
    image = sample.image
    if image is None:
        raise ValueError(f"{sample.sample_id} of {sample.dataset} has no image")
    small = image.convert("L").resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BILINEAR)
    return np.asarray(small, dtype=np.float32).ravel() / np.float32(255)


def mean_box(train: Sequence[Sample], test: Sequence[Sample]) -> list[str]:
    """Answer with the mean of all training boxes."""
    return _mean_box_by(train, test, lambda sample: "")


def mean_box_of_object(train: Sequence[Sample], test: Sequence[Sample]) -> list[str]:
    """Answer with the mean training box of the same object."""
    return _mean_box_by(train, test, lambda sample: str(sample.meta["subject"]))


def mean_box_of_object_and_plane(planes: Mapping[str, str]) -> Baseline:
    """Return a baseline that answers with the mean training box of the same object in the same plane.

    Args:
        planes: image id -> plane, as the sample corpus tells.
    """

    def baseline(train: Sequence[Sample], test: Sequence[Sample]) -> list[str]:
        return _mean_box_by(train, test, lambda s: f"{s.meta['subject']} {planes[str(s.image_id)]}")

    return baseline


def _mean_box_by(train: Sequence[Sample], test: Sequence[Sample], key: Callable[[Sample], str]) -> list[str]:
    boxes: dict[str, list[tuple[int, int, int, int]]] = defaultdict(list)
    for sample in train:
        boxes[key(sample)].append(sample.boxes[0])
    overall = np.concatenate([np.array(group) for group in boxes.values()]).mean(axis=0)
    means = {name: np.array(group).mean(axis=0) for name, group in boxes.items()}
    return [_text(means.get(key(sample), overall), sample) for sample in test]


def _text(box: NDArray[np.float64], sample: Sample) -> str:
    """A box in the format of the sample's reference."""
    x1, y1, x2, y2 = (round(value) for value in box)
    return box_text((x1, y1, x2, y2), braces=sample.answer.startswith("{"))
