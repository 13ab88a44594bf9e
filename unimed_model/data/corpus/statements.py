"""Questions in words alone that are decided with yes or no, or maybe where what is said cannot decide them.

The same wording is asked with each of its decisions, so that only what is said, not how, tells them apart.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .text_questions import LEAST_GAP, NORMAL, coordinate, point, side

CONVENTIONS = (
    "Coordinates of the MNI152 template are millimetres from its origin, which lies near the anterior commissure: "
    "x grows to the right, y to the front, z upwards. The template is symmetric about the plane x = 0."
)
"""What all the questions rest on."""


@dataclass(frozen=True)
class Statement:
    """One question, its decision (yes, no or maybe), and the reason."""

    text: str
    decision: str
    reason: str


def point_side(decision: str, rng: np.random.Generator) -> Statement:
    """Ask whether a point lies on one side of the anterior commissure."""
    at = point(rng)
    number = int(rng.integers(3))
    axis, value = "xyz"[number], at[number]
    asked = value if decision == "yes" else -value
    return Statement(
        f"Does the point {at} of the MNI152 template lie {side(axis, asked)} the anterior commissure?",
        decision,
        f"{axis} = {value} is {side(axis, value)} it.",
    )


def on_slice(decision: str, rng: np.random.Generator) -> Statement:
    """Ask whether a slice passes through a point; where it does not, another coordinate or the other sign tempts."""
    name = str(rng.choice(list(NORMAL)))
    axis, at = NORMAL[name], point(rng)
    number = "xyz".index(axis)
    others = [value for value in (-at[number], *at[:number], *at[number + 1 :]) if value != at[number]]
    value = at[number] if decision == "yes" else int(rng.choice(others))
    return Statement(
        f"Does the {name} slice at {axis} = {value} pass through the point {at} of the MNI152 template?",
        decision,
        f"The point has {axis} = {at[number]}.",
    )


def mirrored(decision: str, rng: np.random.Generator) -> Statement:
    """Ask whether two points mirror each other across the midline; where they do not, another sign is turned."""
    x, y, z = point(rng)
    turned = [(x, -y, z), (x, y, -z), (-x, -y, z), (-x, y, -z)]
    other = (-x, y, z) if decision == "yes" else turned[int(rng.integers(len(turned)))]
    return Statement(
        f"Do the points {(x, y, z)} and {other} of the MNI152 template mirror each other in the two halves of the "
        "brain?",
        decision,
        f"The mirror image of {(x, y, z)} is {(-x, y, z)}.",
    )


def slice_at(decision: str, rng: np.random.Generator) -> Statement:
    """Ask for the coordinate of a slice that is said to be at a distance from the origin, with or without its side."""
    name = str(rng.choice(list(NORMAL)))
    axis = NORMAL[name]
    value = coordinate(axis, rng)
    told, asked = side(axis, value), value
    if decision == "maybe":
        told = "from"
    elif decision == "no" and rng.random() < 0.5:
        # neither of the two coordinates that are possible where no side is told
        told, asked = "from", _another(value, axis, rng)
    elif decision == "no":
        asked = -value
    return Statement(
        f"{_article(name)} {name} slice of the MNI152 template lies {abs(value)} mm {told} the origin. "
        f"Is it the slice at {axis} = {asked}?",
        decision,
        f"It lies at {axis} = {-abs(value)} or {axis} = {abs(value)}." if told == "from" else f"{axis} = {value} does.",
    )


def slices_apart(decision: str, rng: np.random.Generator) -> Statement:
    """Ask for the distance of two slices whose distances from the origin are told, with or without their sides."""
    name = str(rng.choice(list(NORMAL)))
    axis = NORMAL[name]
    near, far = sorted(abs(value) for value in _two_apart(axis, rng))
    told = side(axis, coordinate(axis, rng))
    same_side, either_side = far - near, far + near
    if decision == "maybe":
        told, asked = "from", int(rng.choice([same_side, either_side]))
    else:
        asked = same_side if decision == "yes" else either_side
        if decision == "no" and rng.random() < 0.5:
            # neither of the two distances that are possible where no side is told
            told, asked = "from", far
    return Statement(
        f"Two {name} slices of the MNI152 template lie {near} mm and {far} mm {told} the origin. "
        f"Are they {asked} mm apart?",
        decision,
        f"They are {same_side} mm apart on one side of the origin, and {either_side} mm on two.",
    )


def order(decision: str, rng: np.random.Generator) -> Statement:
    """Ask for the order of two slices of which only the distance of one from the origin is told."""
    name = str(rng.choice(list(NORMAL)))
    axis = NORMAL[name]
    near, far = sorted(_two_apart(axis, rng), key=abs)
    if decision == "maybe":
        unsure, known, asked = abs(far), near, coordinate(axis, rng)
    else:
        unsure, known = abs(near), far
        asked = -known if decision == "yes" else known
    return Statement(
        f"{_article(name)} {name} slice of the MNI152 template lies {unsure} mm from the origin. "
        f"Is it {side(axis, asked)} the slice at {axis} = {known}?",
        decision,
        f"It lies at {axis} = {-unsure} or {axis} = {unsure}.",
    )


KINDS: tuple[tuple[Callable[[str, np.random.Generator], Statement], tuple[str, ...]], ...] = (
    (point_side, ("yes", "no")),
    (on_slice, ("yes", "no")),
    (mirrored, ("yes", "no")),
    (slice_at, ("yes", "no", "maybe")),
    (slices_apart, ("yes", "no", "maybe")),
    (order, ("yes", "no", "maybe")),
)
"""What draws one question of each kind, and the decisions it can have."""


def _two_apart(axis: str, rng: np.random.Generator) -> tuple[int, int]:
    """Two coordinates whose distances from the origin clearly differ."""
    one = coordinate(axis, rng)
    return one, _another(one, axis, rng)


def _another(value: int, axis: str, rng: np.random.Generator) -> int:
    """A coordinate whose distance from the origin clearly differs from that of a given one."""
    while True:
        other = coordinate(axis, rng)
        if abs(abs(value) - abs(other)) >= LEAST_GAP:
            return other


def _article(word: str) -> str:
    return "An" if word[0] in "aeiou" else "A"
