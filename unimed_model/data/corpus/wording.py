"""Questions, answers and captions about a slice, each true by the template's construction."""

from dataclasses import dataclass

from .anatomy import Slice

PICTURES = {"t1": "T1-weighted MRI", "gray": "gray matter map", "white": "white matter map"}
ONE_THIRD = 1 / 3
CLEAR_SHARE = 0.03
"""White matter's share of the brain is asked about only this far or farther from one third."""
CLEAR_DISTANCE = 5
"""Sides of the anterior commissure are asked for only this many millimetres or more away from it."""


@dataclass(frozen=True)
class Question:
    """One question with its answer, in the vocabulary of Slake's ``question.json``."""

    text: str
    answer: str
    closed: bool
    content: str


def questions(slice_: Slice, kind: str) -> list[Question]:
    """Return every question that can be asked of a slice drawn as ``kind``, in a fixed order."""
    plane = slice_.plane.name
    asked = [
        Question("Which plane is this slice in?", plane, False, "Plane"),
        Question("What does this picture show?", PICTURES[kind], False, "Modality"),
        Question("Is this a sagittal slice?", _yes(plane == "sagittal"), True, "Plane"),
    ]
    if kind == "t1":
        asked += _tissue_questions(slice_) + _position_questions(slice_)
    return asked


def _tissue_questions(slice_: Slice) -> list[Question]:
    if abs(slice_.white_share - ONE_THIRD) < CLEAR_SHARE:
        return []
    text = "Does white matter fill more than a third of the brain in this slice?"
    return [Question(text, _yes(slice_.white_share > ONE_THIRD), True, "Size")]


def _position_questions(slice_: Slice) -> list[Question]:
    if slice_.plane.name == "sagittal":
        if slice_.band is None:
            return []
        near = slice_.band.name == "medial"
        return [Question("Is this slice close to the midline of the brain?", _yes(near), True, "Position")]
    if abs(slice_.position) < CLEAR_DISTANCE:
        return []
    side = "above" if slice_.plane.name == "axial" else "in front of"
    text = f"Is this slice {side} the anterior commissure?"
    return [Question(text, _yes(slice_.position > 0), True, "Position")]


def caption(slice_: Slice, kind: str) -> str:
    """Describe a slice in two sentences: plane, distance from the origin, tissue shares to 5 percent."""
    gray, white = (5 * round(20 * share) for share in (slice_.gray_share, slice_.white_share))
    return (
        f"{slice_.plane.name.capitalize()} {PICTURES[kind]} of an average brain, {distance(slice_)}. "
        f"Gray matter fills {gray} percent and white matter {white} percent of the section."
    )


def distance(slice_: Slice) -> str:
    """Say how far a slice is from the anterior commissure or the midline, to 5 mm."""
    millimetres = 5 * round(abs(slice_.position) / 5)
    if slice_.plane.name == "sagittal":
        return f"{millimetres} mm from the midline"
    if millimetres == 0:
        return "level with the anterior commissure"
    ahead, behind = ("above", "below") if slice_.plane.name == "axial" else ("in front of", "behind")
    return f"{millimetres} mm {ahead if slice_.position > 0 else behind} the anterior commissure"


def _yes(truth: bool) -> str:
    return "Yes" if truth else "No"
