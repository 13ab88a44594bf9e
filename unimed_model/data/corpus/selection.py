"""Which slices are shown to which split, and how many pictures are drawn of each.

The split is by position along the plane's axis, in periods of 13 mm: 7 for training, 2 for testing, and a
gap of 2 on either side of the test positions that no split uses, so that no test slice has a neighbour in
training.
"""

from collections.abc import Sequence

import numpy as np

from .anatomy import PLANES, Slice

PERIOD = 13
TRAIN = range(0, 7)
TEST = range(9, 11)
SPLITS = ("train", "test")


def split_of(position: int) -> str | None:
    """Return the split that a position (millimetres) belongs to; None inside a gap."""
    phase = position % PERIOD
    return "train" if phase in TRAIN else "test" if phase in TEST else None


def of_split(slices: Sequence[Slice], split: str) -> list[Slice]:
    """Return the slices of a split."""
    return [slice_ for slice_ in slices if split_of(slice_.position) == split]


def position_classes() -> list[str]:
    """Return the eight classes of plane and position, as ``axial lower``."""
    return [f"{plane.name} {band.name}" for plane in PLANES for band in plane.bands]


def position_class(slice_: Slice) -> str | None:
    """Return the class of a slice; None between two bands."""
    return f"{slice_.plane.name} {slice_.band.name}" if slice_.band else None


def draw(slices: Sequence[Slice], count: int, rng: np.random.Generator) -> list[Slice]:
    """Return ``count`` slices: each as often as any other, to within one, in random order."""
    rounds = [rng.permutation(len(slices)) for _ in range(-(-count // len(slices)))]
    return [slices[index] for index in np.concatenate(rounds)[:count]]
