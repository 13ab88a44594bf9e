"""What the writers of all layouts share: a slice drawn into a file, and its row in the corpus's table of pictures."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from .anatomy import Slice
from .rendering import Placement, render

Row = dict[str, str | int]
PICTURE_SIDE = 96
JPEG_QUALITY = 92


def write_picture(path: Path, slice_: Slice, kind: str, rng: np.random.Generator) -> Placement:
    """Draw one picture of a slice into a file, JPEG or PNG by its name, and return where the slice lies on it."""
    pixels, placement = render(slice_, kind, PICTURE_SIDE, rng)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        Image.fromarray(pixels).save(path)
    else:
        Image.fromarray(pixels).save(path, quality=JPEG_QUALITY)
    return placement


def write_json(path: Path, value: object) -> None:
    """Write a value as JSON on one line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_json_lines(path: Path, records: list[dict[str, object]]) -> None:
    """Write one JSON object per line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def row(folder: Path, path: Path, split: str, slice_: Slice, kind: str) -> Row:
    """Return a picture's row in the table of pictures; ``folder`` is the dataset's, right under the root."""
    return {
        "file": path.relative_to(folder.parent).as_posix(),
        "index": 0,
        "split": split,
        "plane": slice_.plane.name,
        "position_mm": slice_.position,
        "picture": kind,
    }
