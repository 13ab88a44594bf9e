"""Boxes: pixels `[x, y, w, h]` -> hundredths `(x1, y1, x2, y2)` -> the text a language model reads."""

import math
import re
from collections.abc import Sequence
from typing import Literal

Box = tuple[int, int, int, int]
PixelBox = tuple[float, float, float, float]
"""Left, top, width and height in pixels."""
Rounding = Literal["floor", "nearest"]

SCALE = 100
_BOX = re.compile(r"<(\d{1,3})><(\d{1,3})><(\d{1,3})><(\d{1,3})>")
# Float annotations that end exactly at the border may overshoot it by rounding.
_TOLERANCE = 1e-6


def box_problem(box: Sequence[float], size: tuple[int, int]) -> str | None:
    """Return what is wrong with a pixel box `[x, y, w, h]` in an image of (width, height), or None."""
    x, y, w, h = box
    if not all(math.isfinite(value) for value in box):
        return "is not finite"
    if w <= 0 or h <= 0:
        return "is empty"
    beyond = x + w > size[0] + _TOLERANCE or y + h > size[1] + _TOLERANCE
    return "leaves the image" if x < 0 or y < 0 or beyond else None


def clip(box: Sequence[float], size: tuple[int, int]) -> PixelBox:
    """Return the part of a pixel box `[x, y, w, h]` inside an image of (width, height), perhaps empty."""
    x, y, w, h = box
    left, top = max(x, 0), max(y, 0)
    return left, top, min(x + w, size[0]) - left, min(y + h, size[1]) - top


def union(boxes: Sequence[PixelBox]) -> PixelBox:
    """Return the smallest pixel box `[x, y, w, h]` around one or more others."""
    x, y = min(box[0] for box in boxes), min(box[1] for box in boxes)
    return x, y, max(box[0] + box[2] for box in boxes) - x, max(box[1] + box[3] for box in boxes) - y


def normalise(box: Sequence[float], size: tuple[int, int], rounding: Rounding = "floor") -> Box:
    """Return `(x1, y1, x2, y2)` in hundredths of the image, 0..100, of a pixel box `[x, y, w, h]`.

    Args:
        box: left, top, width, height in pixels, inside the image.
        size: (width, height) of the image in pixels.
        rounding: `floor` as in the released code (the paper does not say), computed as `floor(100 x / width)`
            so that whole hundredths stay exact; `nearest` rounds halves up.
    """
    x, y, w, h = box
    half = 0.5 if rounding == "nearest" else 0.0
    x1, y1, x2, y2 = (
        min(SCALE, math.floor(value * SCALE / side + half))
        for value, side in ((x, size[0]), (y, size[1]), (x + w, size[0]), (y + h, size[1]))
    )
    return x1, y1, x2, y2


def to_pixels(box: Box, size: tuple[int, int]) -> PixelBox:
    """Return `[x, y, w, h]` in pixels of a box in hundredths, in an image of (width, height)."""
    x1, y1, x2, y2 = box
    width, height = size
    return x1 * width / SCALE, y1 * height / SCALE, (x2 - x1) * width / SCALE, (y2 - y1) * height / SCALE


def box_text(box: Box, braces: bool = False) -> str:
    """Return `<x1><y1><x2><y2>`, as the paper prints it; with `braces` as the released code does."""
    text = "".join(f"<{value}>" for value in box)
    return f"{{{text}}}" if braces else text


def boxes_in(text: str) -> tuple[Box, ...]:
    """Return every box written in a text, with or without braces, in order; numbers are not checked."""
    found = (tuple(map(int, match)) for match in _BOX.findall(text))
    return tuple((x1, y1, x2, y2) for x1, y1, x2, y2 in found)
