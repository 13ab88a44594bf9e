"""The sample corpus in the SA-Med2D layout (REC, REG): pictures, and masks of some structures in each of them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from . import selection
from .anatomy import Mask, Slice, Volumes, load_volumes
from .pictures import Row, row, write_json, write_picture

SOURCE = "MNI152"
"""Where the pictures come from: the second field of every name."""
MODALITY = "mr_t1"
MASKS_PER_PICTURE = 2
LARGEST_OVERLAP = 0.92
"""Structures whose boxes overlap by more (intersection over union) have no mask: a box would not tell them apart."""

_HALVES = {"half_left": "left half", "half_right": "right half"}
_QUADRANTS = {
    "front_quadrant_left": ("anterior part", "left half"),
    "front_quadrant_right": ("anterior part", "right half"),
    "back_quadrant_left": ("posterior part", "left half"),
    "back_quadrant_right": ("posterior part", "right half"),
    "upper_quadrant_left": ("upper part", "left half"),
    "upper_quadrant_right": ("upper part", "right half"),
    "lower_quadrant_left": ("lower part", "left half"),
    "lower_quadrant_right": ("lower part", "right half"),
    "upper_front_quadrant": ("upper part", "anterior part"),
    "upper_back_quadrant": ("upper part", "posterior part"),
    "lower_front_quadrant": ("lower part", "anterior part"),
    "lower_back_quadrant": ("lower part", "posterior part"),
}
"""Label -> the two parts of the brain whose common part it is."""
LABELS = ("gray_matter", "white_matter", *_HALVES, *_QUADRANTS)
"""Every label, in the order of its class number."""


def write_sa_med2d(
    folder: Path, slices: Sequence[Slice], counts: dict[str, int], rng: np.random.Generator
) -> list[Row]:
    """Write an SA-Med2D folder, with lists of the pictures of each split beside the two tables."""
    volumes = load_volumes()
    classes = {label: f"{number:04d}" for number, label in enumerate(LABELS)}
    rows: list[Row] = []
    masks_of: dict[str, list[str]] = {}
    for split in selection.SPLITS:
        first = len(rows)
        for slice_ in selection.draw(selection.of_split(slices, split), counts[split], rng):
            path = folder / "images" / f"{_stem(volumes, slice_, len(rows))}.png"
            placement = write_picture(path, slice_, "t1", rng)
            masks_of[f"images/{path.name}"] = names = []
            for label, mask in _chosen(labelled(slice_), rng).items():
                names.append(f"masks/{path.stem}--{classes[label]}_000.png")
                _write_mask(folder / names[-1], placement.mask(mask))
            rows.append(row(folder, path, split, slice_, "t1"))
        stems = [Path(str(entry["file"])).stem for entry in rows[first:]]
        (folder / f"{split}.txt").write_text("\n".join(stems) + "\n", encoding="utf-8")
    write_json(folder / "SAMed2D_v1.json", masks_of)
    write_json(folder / "SAMed2D_v1_class_mapping_id.json", {SOURCE: classes})
    return rows


def labelled(slice_: Slice) -> dict[str, Mask]:
    """Return label -> mask of the structures that a box tells apart in a slice, in the order of `LABELS`."""
    parts = slice_.structures
    found = {"gray_matter": slice_.tissue("gray"), "white_matter": slice_.tissue("white")}
    found |= {label: parts[name] for label, name in _HALVES.items() if name in parts}
    for label, (one, other) in _QUADRANTS.items():
        if one in parts and other in parts:
            found[label] = parts[one] & parts[other]
    visible = {label: mask for label, mask in found.items() if slice_.shows(mask)}
    boxes = {label: _box(mask) for label, mask in visible.items()}
    return {
        label: mask
        for label, mask in visible.items()
        if all(_overlap(boxes[label], box) <= LARGEST_OVERLAP for other, box in boxes.items() if other != label)
    }


def _stem(volumes: Volumes, slice_: Slice, number: int) -> str:
    """Name of a picture, its slice given by the index in the volume, as the published names do."""
    axis = slice_.plane.axis
    index = volumes.origin[axis] + (-slice_.position if axis == 0 else slice_.position)
    return f"{MODALITY}--{SOURCE}--{slice_.plane.name}_{number:05d}--{'xyz'[axis]}_{index:04d}"


def _chosen(masks: dict[str, Mask], rng: np.random.Generator) -> dict[str, Mask]:
    names = list(masks)
    indices = sorted(rng.choice(len(names), min(MASKS_PER_PICTURE, len(names)), replace=False))
    return {names[index]: masks[names[index]] for index in indices}


def _write_mask(path: Path, mask: Mask) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask.astype(np.uint8) * 255).save(path)


def _box(mask: Mask) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a mask, the last two exclusive."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _overlap(first: tuple[int, int, int, int], second: tuple[int, int, int, int]) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    both = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return both / (sum(areas) - both)
