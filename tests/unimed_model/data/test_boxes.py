import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unimed_model.data.boxes import Rounding, box_problem, box_text, boxes_in, clip, normalise, to_pixels, union

BoxAndSize = tuple[tuple[float, float, float, float], tuple[int, int]]

sides = st.integers(1, 2000)
hundredths = st.integers(0, 100)


@st.composite
def boxes_and_sizes(draw: st.DrawFn) -> BoxAndSize:
    width, height = draw(sides), draw(sides)
    left, right = sorted(draw(st.tuples(st.floats(0, width), st.floats(0, width))))
    top, bottom = sorted(draw(st.tuples(st.floats(0, height), st.floats(0, height))))
    return (left, top, right - left, bottom - top), (width, height)


@settings(deadline=None)
@given(st.tuples(hundredths, hundredths, hundredths, hundredths), st.booleans())
def test_box_text_round_trips(box: tuple[int, int, int, int], braces: bool) -> None:
    assert boxes_in(f"It is at {box_text(box, braces)}.") == (box,)


@settings(deadline=None)
@given(boxes_and_sizes(), st.sampled_from(["floor", "nearest"]))
def test_pixels_round_trip_within_a_hundredth(case: BoxAndSize, rounding: Rounding) -> None:
    (x, y, w, h), (width, height) = case
    corners = (x / width, y / height, (x + w) / width, (y + h) / height)
    box = normalise((x, y, w, h), (width, height), rounding)
    assert all(0 <= value <= 100 for value in box)
    step = 1.0 if rounding == "floor" else 0.5
    assert all(abs(100 * c - value) <= step + 1e-9 for c, value in zip(corners, box, strict=True))
    left, top, wide, high = to_pixels(box, (width, height))
    assert abs(left - x) <= step * width / 100 + 1e-6
    assert abs(top + high - (y + h)) <= step * height / 100 + 1e-6
    assert math.isclose(left + wide, box[2] * width / 100, abs_tol=1e-9)


@settings(deadline=None)
@given(st.integers(0, 100), st.integers(1, 50))
def test_whole_hundredths_stay_exact(hundredth: int, factor: int) -> None:
    size = (100 * factor, 100 * factor)
    assert normalise((hundredth * factor, 0, 0, 0), size)[0] == hundredth


def test_floor_and_nearest_differ() -> None:
    assert normalise((1, 1, 1, 1), (3, 7)) == (33, 14, 66, 28)
    assert normalise((1, 1, 1, 1), (3, 7), "nearest") == (33, 14, 67, 29)


def test_text_forms() -> None:
    assert box_text((16, 36, 42, 61)) == "<16><36><42><61>"
    assert box_text((16, 36, 42, 61), braces=True) == "{<16><36><42><61>}"


@pytest.mark.parametrize(
    ("box", "problem"),
    [
        ((0, 0, 20, 10), None),
        ((19.5, 0, 0.5 + 1e-9, 10), None),
        ((0, 0, 20.1, 10), "leaves the image"),
        ((-1, 0, 5, 5), "leaves the image"),
        ((0, 8, 5, 3), "leaves the image"),
        ((3, 3, 0, 5), "is empty"),
        ((3, 3, 5, -5), "is empty"),
        ((float("nan"), 0, 5, 5), "is not finite"),
    ],
)
def test_problems(box: tuple[float, ...], problem: str | None) -> None:
    assert box_problem(box, (20, 10)) == problem


def test_clip_keeps_the_part_inside() -> None:
    assert clip((-5, 3, 30, 30), (20, 10)) == (0, 3, 20, 7)
    assert clip((25, 0, 5, 5), (20, 10))[2] < 0


def test_union_holds_every_box_and_touches_each_side() -> None:
    assert union([(5, 2, 3, 4), (1, 3, 2, 9.5), (6, 4, 1, 1)]) == (1, 2, 7, 10.5)
    assert union([(5, 2, 3, 4)]) == (5, 2, 3, 4)
