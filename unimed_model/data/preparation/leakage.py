"""What two splits of a dataset have in common that they should not: images, patients, pictures that are nearly equal.

Pictures are compared by their 16 x 16 grey thumbnails: two are nearly equal when these correlate by at least 0.998,
and a linear fit leaves at most 1.5 grey levels. That survives compression, scaling and changes of brightness and
contrast, but not cropping.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from unimed_model.data.preparation.pictures import Ledger, key_of
from unimed_model.data.sample import Sample

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NEAR = 0.998
"""Least correlation of the thumbnails of near-duplicates."""
LEFT = 1.5
"""Most that the best linear fit of one thumbnail by the other leaves, root of the mean square, in grey levels."""
_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Leak:
    """Something of one split that is in another one too.

    Attributes:
        kind: `image`, `patient` or `near-duplicate`.
        splits: the two splits, in the layout's order.
        count: how many images or patients of the second split.
        first: the first of them, and its partner where that has another name.
    """

    kind: str
    splits: tuple[str, str]
    count: int
    first: str


def leaks(splits: Mapping[str, Sequence[Sample]], ledger: Ledger) -> list[Leak]:
    """Return what any two splits have in common.

    Args:
        splits: split -> its samples.
        ledger: what is known of their images, where these were looked at.
    """
    found: list[Leak] = []
    facts = {split: _Facts.of(samples, ledger) for split, samples in splits.items()}
    for one, other in combinations(facts, 2):
        a, b = facts[one], facts[other]
        for kind, common in (("image", a.images & b.images), ("patient", a.patients & b.patients)):
            if common:
                found.append(Leak(kind, (one, other), len(common), min(common)))
        alike = _near(a, b)
        if alike:
            name, partner = alike[0]
            found.append(Leak("near-duplicate", (one, other), len(alike), f"{name} is nearly {partner} of {one}"))
    return found


@dataclass(frozen=True)
class _Facts:
    images: frozenset[str]
    patients: frozenset[str]
    thumbnails: Mapping[str, bytes]

    @classmethod
    def of(cls, samples: Sequence[Sample], ledger: Ledger) -> _Facts:
        images, patients = set(), set()
        thumbnails: dict[str, bytes] = {}
        for sample in samples:
            if sample.patient_id is not None:
                patients.add(sample.patient_id)
            if sample.image_id is None or sample.image_id in images:
                continue
            images.add(sample.image_id)
            picture = ledger.get(key_of(sample.image_source)) if sample.image_source else None
            if picture and picture.thumbnail:
                thumbnails[sample.image_id] = picture.thumbnail
        return cls(frozenset(images), frozenset(patients), thumbnails)


def _near(a: _Facts, b: _Facts) -> list[tuple[str, str]]:
    """Return (image of b, its nearest image of a) for those of b that are nearly equal to an image of another name."""
    import numpy as np

    names_a = [name for name in a.thumbnails if name not in b.images]
    names_b = [name for name in b.thumbnails if name not in a.images]
    if not names_a or not names_b:
        return []
    (known, _), (looked, contrast) = _normalised(a, names_a), _normalised(b, names_b)
    alike = []
    for start in range(0, len(names_b), _ROWS):
        correlation = looked[start : start + _ROWS] @ known.T
        nearest = correlation.argmax(axis=1)
        best = correlation[np.arange(len(nearest)), nearest]
        # What is left of the one after the best linear fit by the other, in grey levels: a bright frame that two
        # pictures share makes them correlate, whatever is inside.
        left = contrast[start : start + _ROWS] * np.sqrt(np.clip(1 - best**2, 0, None))
        rows = np.flatnonzero((best >= NEAR) & (left <= LEFT))
        alike += [(names_b[start + row], names_a[nearest[row]]) for row in rows]
    return alike


def _normalised(facts: _Facts, names: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return thumbnails (images, 256) with mean 0 and length 1, and the standard deviation of each in grey levels.

    Those of one grey all over are 0, like nothing else.
    """
    import numpy as np

    values = np.stack([np.frombuffer(facts.thumbnails[name], np.uint8) for name in names]).astype(np.float32)
    values -= values.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    values /= np.where(lengths > 0, lengths, np.float32(1))
    return values, lengths[:, 0] / np.float32(values.shape[1] ** 0.5)
