"""Which slices are shown to which split, and how many pictures are drawn of each.

The split is by position along the plane's axis, in periods of 20 mm: 12 for training, 4 for testing, and a
gap of 2 on either side of the test positions that no split uses, so that no test slice has a neighbour in
training.
"""

from collections.abc import Sequence

import numpy as np

from .anatomy import PLANES, Slice

PERIOD = 20
TRAIN = range(0, 12)
TEST = range(14, 18)
SPLITS = ("train", "test")
CLEAR = 4
"""Slices this many millimetres or less from the next band are in neither class."""


def split_of(position: int) -> str | None:
    """Return the split that a position (millimetres) belongs to; None inside a gap."""
    phase = position % PERIOD
    return "train" if phase in TRAIN else "test" if phase in TEST else None


def of_split(slices: Sequence[Slice], split: str) -> list[Slice]:
    """Return the slices of a split."""
    return [slice_ for slice_ in slices if split_of(slice_.position) == split]


def position_classes() -> list[str]:
    """Return the nine classes of plane and position, as ``axial lower``."""
    return [f"{plane.name} {band.name}" for plane in PLANES for band in plane.bands]


def position_class(slice_: Slice) -> str:
    """Return the class of a slice."""
    return f"{slice_.plane.name} {slice_.band.name}"


def draw(slices: Sequence[Slice], count: int, rng: np.random.Generator) -> list[Slice]:
    """Return ``count`` slices: each as often as any other, to within one, in random order."""
    rounds = [rng.permutation(len(slices)) for _ in range(-(-count // len(slices)))]
    return [slices[index] for index in np.concatenate(rounds)[:count]]


def well_inside_band(slice_: Slice) -> bool:
    """Say whether a slice is clearly in its band: no other band begins within ``CLEAR`` millimetres."""
    bands = slice_.plane.bands
    edges = [band.low - 0.5 for band in bands[1:]]
    return all(abs(slice_.position - edge) > CLEAR for edge in edges)
