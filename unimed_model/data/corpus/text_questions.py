"""Questions in words alone about the template's coordinates, planes and pictures, with five options each.

Coordinates are millimetres from the template's origin, which lies near the anterior commissure: x grows to the
right, y to the front, z upwards. Every answer follows from that; none needs a picture.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

CLEAR_DISTANCE = 5
"""Points are at least this many millimetres away from each of the origin's planes, so that their side is clear."""
RANGES = {"x": (-70, 70), "y": (-100, 70), "z": (-60, 75)}
"""Axis -> lowest and highest coordinate that is asked about; all inside the template's volume."""
NORMAL = {"sagittal": "x", "coronal": "y", "axial": "z"}
"""Plane -> the axis it is perpendicular to."""
SIDES = {
    "x": ("to the left of", "to the right of"),
    "y": ("behind", "in front of"),
    "z": ("below", "above"),
}
"""Axis -> where negative and positive coordinates lie, seen from the origin."""
OPTIONS = 5
SLICES_COMPARED = 5
LEAST_GAP = 3

Point = tuple[int, int, int]


@dataclass(frozen=True)
class Question:
    """One question with five different options; the answer is one of them.

    Attributes:
        text: what is asked.
        answer: the right option.
        options: all five, in no particular order.
        topic: what kind of question it is.
    """

    text: str
    answer: str
    options: tuple[str, ...]
    topic: str


def coordinate(axis: str, rng: np.random.Generator) -> int:
    """Draw a coordinate along an axis that is clearly on one side of the origin."""
    low, high = RANGES[axis]
    magnitude = int(rng.integers(CLEAR_DISTANCE, min(-low, high) + 1))
    return magnitude if rng.random() < 0.5 else -magnitude


def point(rng: np.random.Generator) -> Point:
    """Draw a point that is clearly on one side of each of the origin's planes."""
    return coordinate("x", rng), coordinate("y", rng), coordinate("z", rng)


def side(axis: str, value: int) -> str:
    """Return where a coordinate lies, such as ``in front of``."""
    return SIDES[axis][value > 0]


def place(rng: np.random.Generator) -> Question:
    """Ask where a point lies, seen from the anterior commissure."""
    at = point(rng)
    answer = _place(at)
    every = [_place((x, y, z)) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]
    text = f"Where does the point {at} of the MNI152 template lie, seen from the anterior commissure?"
    return _question(text, answer, every, "place of a point", rng)


def plane(rng: np.random.Generator) -> Question:
    """Ask which plane holds all points that share a coordinate."""
    name = str(rng.choice(list(NORMAL)))
    axis = NORMAL[name]
    text = f"All points of a slice of the MNI152 template have {axis} = {coordinate(axis, rng)}. Which plane is it in?"
    return _question(text, name, [*NORMAL, "oblique", "no single plane"], "planes", rng)


def outermost(rng: np.random.Generator) -> Question:
    """Ask which of five parallel slices lies farthest to one side."""
    name = str(rng.choice(list(NORMAL)))
    axis = NORMAL[name]
    values: list[int] = []
    while len(values) < SLICES_COMPARED:
        value = coordinate(axis, rng)
        if all(abs(value - other) >= LEAST_GAP for other in values):
            values.append(value)
    positive = bool(rng.random() < 0.5)
    direction = {"x": ("to the left", "to the right"), "y": ("to the back", "to the front"), "z": ("down", "up")}
    named = [f"{axis} = {value}" for value in values]
    text = (
        f"Which of these {name} slices of the MNI152 template lies farthest {direction[axis][positive]}: "
        f"{', '.join(named[:-1])} or {named[-1]}?"
    )
    answer = f"{axis} = {max(values) if positive else min(values)}"
    return _question(text, answer, named, "order of slices", rng)


def slice_place(rng: np.random.Generator) -> Question:
    """Ask how far from the origin a slice lies, and on which side."""
    name = str(rng.choice(list(NORMAL)))
    axis = NORMAL[name]
    value = coordinate(axis, rng)
    answer = f"{abs(value)} mm {side(axis, value)} the origin"
    every = [f"{abs(value)} mm {words} the origin" for pair in SIDES.values() for words in pair]
    text = f"Where does the {name} slice at {axis} = {value} of the MNI152 template lie?"
    return _question(text, answer, every, "place of a slice", rng)


def mirror(rng: np.random.Generator) -> Question:
    """Ask for a point's mirror image in the other half of the brain."""
    x, y, z = point(rng)
    others = [(x, -y, z), (x, y, -z), (-x, -y, z), (-x, y, -z), (x, -y, -z)]
    text = f"Which point of the MNI152 template mirrors {(x, y, z)} in the other half of the brain?"
    answer = str((-x, y, z))
    return _question(text, answer, [answer, *map(str, others)], "symmetry", rng)


def distance(rng: np.random.Generator) -> Question:
    """Ask how far apart two parallel slices are."""
    name = str(rng.choice(list(NORMAL)))
    axis = NORMAL[name]
    one = other = coordinate(axis, rng)
    while abs(one - other) < LEAST_GAP:
        other = coordinate(axis, rng)
    apart = abs(one - other)
    wrong = (abs(one + other), apart + 1, apart + 5, apart + 10, apart + 20)
    text = f"How far apart are the {name} slices at {axis} = {one} and {axis} = {other} of the MNI152 template?"
    return _question(text, f"{apart} mm", [f"{value} mm" for value in (apart, *wrong)], "distance", rng)


def direction(rng: np.random.Generator) -> Question:
    """Ask in which direction a point is found on a picture of known orientation."""
    name = str(rng.choice(list(NORMAL)))
    x, y, z = at = point(rng)
    across, up, shown = {
        "sagittal": (y, z, "the front of the brain on the right"),
        "coronal": (x, z, "the left of the brain on the left"),
        "axial": (x, y, "the left of the brain on the left and its front at the top"),
    }[name]
    every = [f"to the {h} and {v}" for h in ("left", "right") for v in ("up", "down")]
    answer = f"to the {'right' if across > 0 else 'left'} and {'up' if up > 0 else 'down'}"
    article = "an" if name == "axial" else "a"
    text = (
        f"On {article} {name} picture with {shown}, in which direction from the anterior commissure is the point {at} "
        "of the MNI152 template?"
    )
    return _question(text, answer, [*every, "at the same place"], "pictures", rng)


TOPICS: tuple[Callable[[np.random.Generator], Question], ...] = (
    place,
    plane,
    outermost,
    slice_place,
    mirror,
    distance,
    direction,
)
"""What draws one question of each kind."""


def _place(at: Point) -> str:
    x, y, z = at
    return f"to the {'right' if x > 0 else 'left'}, {side('y', y).removesuffix(' of')} and {side('z', z)}"


def _question(text: str, answer: str, every: list[str], topic: str, rng: np.random.Generator) -> Question:
    wrong = [option for option in dict.fromkeys(every) if option != answer]
    drawn = [wrong[index] for index in rng.permutation(len(wrong))[: OPTIONS - 1]]
    options = [answer, *drawn]
    return Question(text, answer, tuple(options[index] for index in rng.permutation(OPTIONS)), topic)
