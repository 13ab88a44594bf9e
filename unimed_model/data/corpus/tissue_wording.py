"""Questions and captions about tissue maps and T1 pictures, of another kind than those of ``wording``.

Each is true by the template's construction, and asked only where the answer is clear.
"""

from dataclasses import dataclass

import numpy as np

from . import wording
from .anatomy import Mask, Slice

MAPS = ("gray", "white")
PLACES = {
    "lower": "in the lower part",
    "middle": "in the middle",
    "upper": "in the upper part",
    "posterior": "in the back part",
    "anterior": "in the front part",
    "medial": "near the midline",
    "lateral": "far from the midline",
}
"""Name of a band of positions -> where a slice in it lies."""
WIDE, HIGH = 1.06, 0.94
"""Width over height of the brain from which on it is called wider than high, and the other way round."""
MUCH_GRAY = 0.6
CLEAR_TENTH = 0.04
"""How much a tissue fills is asked for only this close to a whole tenth."""
NEAR = 20
"""A section within this many millimetres of the anterior commissure is called near it."""
CLEAR_NEAR = 3
BOTH_HALVES = 5
"""A sagittal section this many millimetres from the midline, or farther, cuts one half of the brain alone."""
CLEAR_PART = 0.55
"""A tissue lies more in one part of a section when at least this share of it does."""


@dataclass(frozen=True)
class Question:
    """One question with its answer, and its type in the vocabulary of Path-VQA."""

    text: str
    answer: str
    type: str


def maps(slice_: Slice) -> tuple[str, ...]:
    """Return the maps that show something of a slice, ``gray``, ``white`` or both."""
    return tuple(kind for kind in MAPS if slice_.shows(slice_.tissue(kind)))


def questions(slice_: Slice, kind: str) -> list[Question]:
    """Return every question that can be asked of a slice drawn as ``kind``, in a fixed order."""
    asked = [
        Question("which plane is this section in?", slice_.plane.name, "other"),
        _yes_no("is white matter brighter than gray matter in this picture?", kind != "gray"),
    ]
    if kind in MAPS:
        asked.append(Question("which tissue does this map show?", _tissue(kind), "other"))
        asked += _amount(_share(slice_, kind))
    if slice_.band is not None:
        asked.append(Question("where in the brain does this section lie?", PLACES[slice_.band.name], "where"))
    return asked + _shape(slice_, kind) + _shares(slice_) + _nearness(slice_) + _halves(slice_)


def caption(slice_: Slice, kind: str) -> str:
    """Describe the map of a tissue in one slice: plane, place, how much of it there is, and where most of it lies."""
    article = "an" if slice_.plane.name == "axial" else "a"
    return (
        f"{_tissue(kind).capitalize()} map of {article} {slice_.plane.name} section, {wording.distance(slice_)}. "
        f"The tissue fills {_percent(_share(slice_, kind))} of the section, {_balance(slice_, kind)}."
    )


def _amount(share: float) -> list[Question]:
    rounded = round(10 * share)
    if abs(share - rounded / 10) > CLEAR_TENTH:
        return []
    return [Question("how much of the section does this tissue fill?", _percent(share), "how many/how much")]


def _shape(slice_: Slice, kind: str) -> list[Question]:
    if kind == "white":
        return []  # a map of white matter does not show where the brain ends
    rows, columns = _extent(slice_.brain)
    ratio = (columns.stop - columns.start) / (rows.stop - rows.start)
    if HIGH < ratio < WIDE:
        return []
    return [_yes_no("is the brain wider than it is high in this picture?", ratio >= WIDE)]


def _shares(slice_: Slice) -> list[Question]:
    if abs(slice_.gray_share - MUCH_GRAY) < wording.CLEAR_SHARE:
        return []
    return [_yes_no("does gray matter fill more than 60 percent of the section?", slice_.gray_share > MUCH_GRAY)]


def _nearness(slice_: Slice) -> list[Question]:
    away = abs(slice_.position)
    if abs(away - NEAR) < CLEAR_NEAR:
        return []
    return [_yes_no(f"does this section pass within {NEAR} mm of the anterior commissure?", away < NEAR)]


def _halves(slice_: Slice) -> list[Question]:
    if slice_.plane.name == "sagittal" and slice_.position < BOTH_HALVES:
        return []
    count = "one" if slice_.plane.name == "sagittal" else "two"
    return [Question("how many halves of the brain does this section cut?", count, "how many/how much")]


def _balance(slice_: Slice, kind: str) -> str:
    """Say in which half of the drawn brain, upper or lower, more of a tissue lies."""
    rows, _ = _extent(slice_.brain)
    tissue = slice_.tissue(kind)
    middle = (rows.start + rows.stop) // 2
    above = float(tissue[:middle].sum()) / max(int(tissue.sum()), 1)
    names = ("front", "back") if slice_.plane.name == "axial" else ("upper", "lower")
    if above >= CLEAR_PART:
        return f"more of it in the {names[0]} half"
    if above <= 1 - CLEAR_PART:
        return f"more of it in the {names[1]} half"
    return f"about as much in the {names[0]} as in the {names[1]} half"


def _extent(mask: Mask) -> tuple[slice, slice]:
    """Rows and columns that a mask spans."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _percent(share: float) -> str:
    return f"about {10 * round(10 * share)} percent"


def _share(slice_: Slice, kind: str) -> float:
    return slice_.gray_share if kind == "gray" else slice_.white_share


def _tissue(kind: str) -> str:
    return f"{kind} matter"


def _yes_no(text: str, truth: bool) -> Question:
    return Question(text, "yes" if truth else "no", "yes/no")
