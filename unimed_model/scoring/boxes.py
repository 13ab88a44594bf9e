"""Boxes as answers: what a text spells, and how much two boxes share (eq. 23 and 24)."""

import re

BOX = re.compile(r"\{?<(\d{1,3})><(\d{1,3})><(\d{1,3})><(\d{1,3})>\}?")
"""The paper's box text, with or without the released code's braces."""

RELEASED_BOX = re.compile(r"\{<(\d{1,3})><(\d{1,3})><(\d{1,3})><(\d{1,3})>\}")
"""What an answer must start with for the released script; what follows is ignored."""

BARE_BOX = re.compile(r"<(\d{1,3})><(\d{1,3})><(\d{1,3})><(\d{1,3})>")
"""The same in a format of prompts that has no braces."""

HUNDREDTHS = 100

Box = tuple[float, float, float, float]


def parse_box(text: str) -> Box | None:
    """Return the box `(x1, y1, x2, y2)` in hundredths that a whole answer spells; None when it spells none."""
    return _numbers(BOX.fullmatch("".join(text.split())))


def parse_released_box(text: str, braces: bool = True) -> Box | None:
    """Return the box `(x1, y1, x2, y2)` in hundredths that an answer starts with; None when it does with none.

    Args:
        text: the answer.
        braces: whether the box must stand in braces, as in the released format of prompts.
    """
    return _numbers((RELEASED_BOX if braces else BARE_BOX).match(text.replace(" ", "")))


def _numbers(match: re.Match[str] | None) -> Box | None:
    if match is None:
        return None
    x1, y1, x2, y2 = (float(number) for number in match.groups())
    return (x1, y1, x2, y2)


def box_iou(first: Box, second: Box, border: float = 0.0) -> float:
    """Return intersection over union of two boxes `(x1, y1, x2, y2)` (eq. 23); 0 when they share nothing.

    Args:
        first: a box.
        second: another, in the same unit.
        border: added to every width and height: 0 as in the paper; 1 where coordinates are taken as pixels that
            belong to the box, as in the released script.
    """
    width = min(first[2], second[2]) - max(first[0], second[0]) + border
    height = min(first[3], second[3]) - max(first[1], second[1]) + border
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0] + border) * (box[3] - box[1] + border) for box in (first, second)]
    return width * height / (sum(areas) - width * height)


def in_pixels(box: Box, size: tuple[int, int]) -> Box:
    """Return a box in hundredths `(x1, y1, x2, y2)` in pixels of an image of (width, height)."""
    width, height = size
    x1, y1, x2, y2 = box
    return (x1 / HUNDREDTHS * width, y1 / HUNDREDTHS * height, x2 / HUNDREDTHS * width, y2 / HUNDREDTHS * height)
