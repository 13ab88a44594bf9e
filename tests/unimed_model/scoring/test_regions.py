"""REC: boxes that texts spell, and what they share."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unimed_model.errors import UserError
from unimed_model.scoring import Answer, parse_box, tally
from unimed_model.scoring.boxes import box_iou, parse_released_box

corner = st.integers(0, 100)


def boxes():
    spans = st.tuples(corner, corner).filter(lambda p: p[0] < p[1])
    return st.tuples(spans, spans).map(lambda p: (p[0][0], p[1][0], p[0][1], p[1][1]))


def cells(box):
    grid = np.zeros((101, 101), bool)
    grid[box[1] : box[3], box[0] : box[2]] = True
    return grid


@given(boxes(), boxes())
def test_iou_against_counted_cells(first, second):
    a, b = cells(first), cells(second)
    assert box_iou(first, second) == pytest.approx((a & b).sum() / (a | b).sum())


@given(boxes(), boxes())
def test_iou_with_borders_against_counted_pixels_that_include_the_last(first, second):
    a, b = (cells((x1, y1, x2 + 1, y2 + 1)) for x1, y1, x2, y2 in (first, second))
    assert box_iou(first, second, border=1) == pytest.approx((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize(
    ("text", "box", "released"),
    [
        ("<1><2><3><4>", (1, 2, 3, 4), None),
        ("{<1><2><3><4>}", (1, 2, 3, 4), (1, 2, 3, 4)),
        (" {<1><2> <3><100>} ", (1, 2, 3, 100), (1, 2, 3, 100)),
        ("<1>\t<2><3>\n<4>\n", (1, 2, 3, 4), None),
        ("{<1><2><3><4>} or so", None, (1, 2, 3, 4)),
        ("here: {<1><2><3><4>}", None, None),
        ("<1><2><3>", None, None),
        ("<1><2><3><4><5>", None, None),
        ("", None, None),
    ],
)
def test_what_a_text_spells(text, box, released):
    assert parse_box(text) == box
    assert parse_released_box(text) == released


GOLD = Answer(
    "1", "Slake-REC", "REC", "{<0><0><50><100>}", "{<0><0><100><100>}", None, None, (0, 0, 199, 99), (200, 100)
)


def test_both_flavours_of_a_worked_example():
    found = tally([GOLD])
    assert found.value("iou", "paper") == 0.5
    assert found.value("recall_at_0.5", "paper") == 1  # at least 0.5
    # the prediction covers pixels 0 to 100 of 0 to 199, all of the rows 0 to 99 and one below
    assert found.value("iou", "released") == pytest.approx(101 * 100 / (101 * 101 + 200 * 100 - 101 * 100))


def test_released_recall_asks_for_more_than_a_half():
    # prediction: pixels 0 to 50 and so 51 columns; gold: 102 columns; one row each
    edge = replace(GOLD, prediction="{<0><0><50><0>}", box_pixels=(0, 0, 101, 0), image_size=(100, 100))
    found = tally([edge])
    assert found.value("iou", "released") == 0.5
    assert found.value("recall_at_0.5", "released") == 0


@pytest.mark.parametrize("prediction", ["no idea", "", "{<50><50><20><20>}"])
def test_what_spells_no_proper_box_scores_0_in_both_flavours(prediction):
    found = tally([replace(GOLD, prediction=prediction)])
    assert [found.value("iou", flavour) for flavour in ("paper", "released")] == [0, 0]


def test_without_pixels_the_released_flavour_says_what_it_needs():
    found = tally([GOLD, replace(GOLD, id="2", image_size=None)])
    assert ("iou", "released") not in found.metrics
    assert "image_size" in found.unavailable["iou", "released"]
    with pytest.raises(UserError, match=r"Slake-REC has no iou \(released\): needs box_pixels"):
        found.value("iou", "released")


def test_a_reference_that_is_no_box_is_named_by_its_id_and_not_quoted():
    with pytest.raises(UserError, match="reference of '1' is no box") as raised:
        tally([replace(GOLD, reference="secret")])
    assert "secret" not in str(raised.value)


def test_a_format_without_braces_needs_none_in_the_released_flavour():
    bare = replace(GOLD, reference="<0><0><100><100>", prediction="<0><0><50><100> or so")
    braced = replace(GOLD, prediction="{<0><0><50><100>} or so")
    assert tally([bare]).value("iou", "released") == tally([braced]).value("iou", "released") > 0
    assert tally([replace(bare, reference=GOLD.reference)]).value("iou", "released") == 0
