"""The MNI152 average brain: slices along three planes and what is true of them by construction.

Everything said about a slice follows from its coordinate in the template (millimetres, origin near the
anterior commissure) and from the grey- and white-matter maps of the same template. Nothing is a diagnosis.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

TISSUE_THRESHOLD = 0.5
"""A voxel belongs to a tissue when its map says at least this fraction."""
LEAST_BRAIN_AREA = 4000
"""Slices with less brain than this (square millimetres) show too little to be described."""
LEAST_SHARE = 0.03
"""A structure is called visible when it fills at least this share of the brain in the slice."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Band:
    """A range of positions along a plane's axis, in millimetres, with a name of its own."""

    name: str
    low: int
    high: int


@dataclass(frozen=True)
class Plane:
    """One slicing direction: the volume axis it is perpendicular to, and its bands of positions.

    Between two bands lies a gap of about 20 mm, so that a slice in a band is clearly of that band.
    """

    name: str
    axis: int
    bands: tuple[Band, ...]


PLANES = (
    Plane("axial", 2, (Band("lower", -72, -30), Band("middle", -14, 20), Band("upper", 36, 90))),
    Plane("coronal", 1, (Band("posterior", -134, -58), Band("middle", -38, 0), Band("anterior", 24, 98))),
    Plane("sagittal", 0, (Band("medial", 0, 19), Band("lateral", 36, 98))),
)


@dataclass(frozen=True)
class Volumes:
    """The template's three volumes, each (197, 233, 189) in [0, 1], and the voxel of the origin."""

    images: dict[str, NDArray[np.float32]]
    origin: tuple[int, int, int]


@dataclass(frozen=True)
class Slice:
    """One slice: pictures and masks as (rows, columns), up being superior or anterior."""

    plane: Plane
    band: Band | None
    position: int
    images: dict[str, NDArray[np.float32]]
    brain: Mask
    structures: dict[str, Mask]
    gray_share: float
    white_share: float

    @property
    def key(self) -> str:
        """Name of the slice, unique in the corpus: ``axial+012``."""
        return f"{self.plane.name}{self.position:+04d}"

    def tissue(self, kind: str) -> Mask:
        """Where the slice shows a tissue, ``gray`` or ``white``."""
        return self.images[kind] >= TISSUE_THRESHOLD

    def shows(self, mask: Mask) -> bool:
        """Say whether a structure is large enough in the slice to be called visible."""
        return bool(mask.sum() >= LEAST_SHARE * max(int(self.brain.sum()), 1))


@cache
def load_volumes() -> Volumes:
    """Read the T1 picture and the two tissue maps of the MNI152 template that ship inside ``nilearn``."""
    from nilearn import datasets

    loaders = {
        "t1": datasets.load_mni152_template,
        "gray": datasets.load_mni152_gm_template,
        "white": datasets.load_mni152_wm_template,
    }
    niftis = {kind: load(resolution=1) for kind, load in loaders.items()}
    inverse = np.linalg.inv(niftis["t1"].affine)
    origin = tuple(round(float(value)) for value in inverse[:3, 3])
    images = {kind: np.asarray(nifti.dataobj, dtype=np.float32) for kind, nifti in niftis.items()}
    return Volumes(images, (origin[0], origin[1], origin[2]))


def slices(volumes: Volumes) -> Iterator[Slice]:
    """Yield every slice that shows enough brain, plane by plane, in order of position.

    The template is symmetric about its midline, so the two sagittal slices at the same distance from it
    are one picture: sagittal positions are distances from the midline, and only one side is used.
    """
    for plane in PLANES:
        origin = volumes.origin[plane.axis]
        for position in range(plane.bands[0].low, plane.bands[-1].high + 1):
            index = origin - position if plane.axis == 0 else origin + position
            if 0 <= index < volumes.images["t1"].shape[plane.axis]:
                made = _slice(volumes, plane, position, index)
                if made.brain.sum() >= LEAST_BRAIN_AREA:
                    yield made


def _slice(volumes: Volumes, plane: Plane, position: int, index: int) -> Slice:
    images = {kind: np.rot90(np.moveaxis(image, plane.axis, 0)[index]) for kind, image in volumes.images.items()}
    gray = images["gray"] >= TISSUE_THRESHOLD
    white = images["white"] >= TISSUE_THRESHOLD
    brain = gray | white
    area = max(int(brain.sum()), 1)
    band = next((band for band in plane.bands if band.low <= position <= band.high), None)
    structures = _structures(volumes, plane, brain, white)
    visible = {name: mask for name, mask in structures.items() if mask.sum() >= LEAST_SHARE * area}
    return Slice(plane, band, position, images, brain, visible, float(gray.sum()) / area, float(white.sum()) / area)


def _structures(volumes: Volumes, plane: Plane, brain: Mask, white: Mask) -> dict[str, Mask]:
    """Brain, white matter, and the parts of the brain on either side of the origin's planes."""
    shape = volumes.images["t1"].shape
    across, up = (axis for axis in range(3) if axis != plane.axis)
    columns = (np.arange(shape[across]) - volumes.origin[across])[None, :]
    rows = (np.arange(shape[up])[::-1] - volumes.origin[up])[:, None]
    coordinate = {across: columns, up: rows}
    found = {"brain": brain, "white matter": white}
    sides = {
        0: ("left half", "right half"),
        1: ("posterior part", "anterior part"),
        2: ("lower part", "upper part"),
    }
    for axis, (negative, positive) in sides.items():
        if axis in coordinate:
            found[negative] = brain & (coordinate[axis] < 0)
            found[positive] = brain & (coordinate[axis] > 0)
    return found
