"""REC: how well a box that an answer spells covers the right one, in both flavours."""

from collections.abc import Sequence

import numpy as np

from unimed_model.errors import UserError

from .answers import Answer
from .boxes import box_iou, in_pixels, parse_box, parse_released_box
from .statistics import Reasons, Statistics, counted
from .words import generated

NO_PIXELS = "needs box_pixels and image_size of every sample"


def statistics(answers: Sequence[Answer]) -> tuple[Statistics, Reasons]:
    """Return IoU and R@0.5 of every answer; one that spells no box scores 0.

    Raises:
        UserError: a reference that is no box.
    """
    paper = np.array([_paper_iou(answer) for answer in answers])
    found = {("iou", "paper"): counted(paper), ("recall_at_0.5", "paper"): counted(paper >= 0.5)}  # eq. 24
    released = [_released_iou(answer) for answer in answers]
    if None in released:
        return found, {("iou", "released"): NO_PIXELS, ("recall_at_0.5", "released"): NO_PIXELS}
    pixels = np.array(released, dtype=np.float64)
    found["iou", "released"] = counted(pixels)
    found["recall_at_0.5", "released"] = counted(pixels > 0.5)
    return found, {}


def _paper_iou(answer: Answer) -> float:
    """IoU (eq. 23) of the boxes that two texts spell, in hundredths."""
    wanted = parse_box(answer.reference)
    if wanted is None:
        raise UserError(f"{answer.dataset}: the reference of {answer.id!r} is no box such as <16><36><42><61>.")
    said = parse_box(answer.prediction)
    return 0.0 if said is None else box_iou(said, wanted)


def _released_iou(answer: Answer) -> float | None:
    """IoU in pixels of the original image, border pixels counted, with the box as annotated; None if it is unknown."""
    if answer.box_pixels is None or answer.image_size is None:
        return None
    # a model that was taught boxes without braces cannot be held to them
    braces = answer.reference.lstrip().startswith("{")
    said = parse_released_box(generated(answer.prediction), braces)
    x, y, width, height = answer.box_pixels
    return 0.0 if said is None else box_iou(in_pixels(said, answer.image_size), (x, y, x + width, y + height), border=1)
