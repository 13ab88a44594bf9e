"""SA-Med2D's masks: how they become boxes, and why some do not."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from unimed_model.data.boxes import PixelBox
from unimed_model.data.files import note, note_absent
from unimed_model.data.findings import Findings
from unimed_model.data.masks import mask_box, mask_size
from unimed_model.data.readers.regions import RegionOptions
from unimed_model.errors import UserError


class SAMed2DOptions(RegionOptions):
    """How regions are made and drawn.

    Attributes:
        inclusive: whether the last row and column of a mask are inside its box, which then holds the mask whole.
        labels: `usable`, or `all` for compound and generic ones (`union_...`, `class...`, `left`) as well.
        per_modality_train: number of training regions of CT, and of MR.
        per_modality_test: number of test regions of each.
    """

    inclusive: bool = True
    labels: Literal["usable", "all"] = "usable"
    per_modality_train: Annotated[int, Field(ge=1)] = 10_000
    per_modality_test: Annotated[int, Field(ge=1)] = 2_000


def usable_box(path: Path, size: tuple[int, int], inclusive: bool, findings: Findings) -> PixelBox | None:
    """Return the box `[x, y, w, h]` of a mask in pixels, or count why it has none.

    Args:
        path: the mask.
        size: (width, height) of its image.
        inclusive: see `SAMed2DOptions`.
        findings: get what is wrong.
    """
    if not path.is_file():
        note_absent(path)
        findings.leave_out("missing mask", str(path))
        return None
    note(path)
    try:
        if mask_size(path) != size:
            findings.leave_out("mask of another shape", str(path))
            return None
        box = mask_box(path, inclusive)
    except UserError as error:
        findings.leave_out("unreadable mask", str(error))
        return None
    if box is None or min(box[2:]) <= 0:
        findings.leave_out("empty mask" if box is None else "empty box", str(path))
        return None
    return box
