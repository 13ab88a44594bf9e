"""Which regions of SA-Med2D belong to training and test, since no lists are published: lists by the user, or a draw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from unimed_model.data.files import shown
from unimed_model.data.readers.sa_med2d import names
from unimed_model.data.readers.sa_med2d.names import Picture
from unimed_model.data.readers.sa_med2d.scan import Scan, case_rank
from unimed_model.data.splits import RANKS, SPLITS, Lists
from unimed_model.errors import UserError

RULE = (
    "the lists train.txt and test.txt of the folder; without them a case (constituent dataset and original name) is a "
    "test case if its digest of seed and name is in the lowest sixth, and of each side the regions of CT and of MR "
    "with the lowest digests of seed and mask name are drawn"
)
TEST_CASES = RANKS // 6
"""A case whose rank is below this is a test case: the paper has five training samples to one of the test set."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """The cases of one side.

    Attributes:
        seed: of the ranks.
        split: `train` or `test`.
        moved: case -> its split, against its rank (see `moved_cases`).
    """

    seed: int
    split: str
    moved: Mapping[str, str] = field(default_factory=dict)

    def wants_picture(self, picture: Picture) -> bool:
        """Say whether the image's case is on this side."""
        case = picture.case
        moved = self.moved.get(case)
        return self.split == (moved or SPLITS[case_rank(self.seed, case) < TEST_CASES])

    def wants(self, picture: Picture, mask: str) -> bool:
        """Every region of a case is on its side."""
        return True


class Listed:
    """What a list names: images, all of whose regions it means, or masks.

    Attributes:
        units: names without folder and `.png`.
        seen: those of them that the files hold, once these were read.
    """

    def __init__(self, lists: Lists, split: str) -> None:
        """Take the units of a split.

        Raises:
            UserError: a mask stands in one list, and the mask or its image in another.
        """
        units = {name: frozenset(map(names.stem, listed)) for name, listed in lists.items()}
        for name, listed in units.items():
            others = frozenset().union(*(other for key, other in units.items() if key != name))
            torn = sorted(unit for unit in listed if unit in others or _image_of(unit) in others)
            if torn:
                raise UserError(
                    f"The lists put {shown(torn[0])} into {name}, but it or its image into another split as well."
                )
        self.units = units.get(split, frozenset())
        self.seen: set[str] = set()
        self._images = self.units | frozenset(map(_image_of, self.units))

    def wants_picture(self, picture: Picture) -> bool:
        """Say whether the image or a mask of it is listed."""
        self.seen |= {picture.stem} & self.units
        return picture.stem in self._images

    def wants(self, picture: Picture, mask: str) -> bool:
        """Say whether the mask or its image is listed."""
        self.seen |= {mask} & self.units
        return mask in self.units or picture.stem in self.units


def moved_cases(scan: Scan) -> dict[str, str]:
    """Return the cases that change sides so that no modality group of two or more cases leaves a side empty.

    The case of lowest rank becomes a test case where there is none, that of highest rank a training case.
    """
    moved = {}
    for low, high in scan.extremes.values():
        if low[1] != high[1] and low[0] >= TEST_CASES:
            moved[low[1]] = "test"
        if low[1] != high[1] and high[0] < TEST_CASES:
            moved[high[1]] = "train"
    return moved


def _image_of(mask: str) -> str:
    return mask.rpartition("--")[0]
