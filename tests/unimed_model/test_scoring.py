import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unimed_model import scoring

corner = st.integers(0, 100)


def boxes():
    pairs = st.tuples(corner, corner).filter(lambda p: p[0] < p[1])
    return st.tuples(pairs, pairs).map(lambda p: (p[0][0], p[1][0], p[0][1], p[1][1]))


@given(boxes(), boxes())
def test_iou_against_counted_cells(first, second):
    grids = []
    for x1, y1, x2, y2 in (first, second):
        grid = np.zeros((100, 100), bool)
        grid[y1:y2, x1:x2] = True
        grids.append(grid)
    wanted = (grids[0] & grids[1]).sum() / (grids[0] | grids[1]).sum()
    assert scoring.box_iou(first, second) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("<1><2><3><4>", (1, 2, 3, 4)),
        (" {<1><2> <3><100>} ", (1, 2, 3, 100)),
        ("<1><2><3>", None),
        ("<1><2><3><4> or so", None),
        ("<1><2><3><4><5>", None),
        ("", None),
    ],
)
def test_parse_box(text, box):
    assert scoring.parse_box(text) == box


def test_unparsable_and_empty_boxes_score_nothing():
    assert scoring.text_iou("no idea", "<1><2><3><4>") == 0
    assert scoring.text_iou("<5><5><2><2>", "<1><2><3><4>") == 0
    with pytest.raises(ValueError, match="not a box"):
        scoring.text_iou("<1><2><3><4>", "liver")


@pytest.mark.parametrize(
    ("prediction", "reference", "f1"),
    [
        ("left lung", "lung", 2 / 3),
        ("lung lung lung lung", "lung", 2 / 5),
        ("Lung", "lung", 1.0),
        ("", "lung", 0.0),
        ("heart", "lung", 0.0),
    ],
)
def test_word_f1_worked_examples(prediction, reference, f1):
    assert scoring.word_f1(prediction, reference) == pytest.approx(f1)


def test_interval_draws_images_not_samples():
    """Ten identical samples of one image say no more than one: the interval must not shrink."""
    rng = np.random.default_rng(0)
    scores, images = rng.random(60), [f"i{n}" for n in range(60)]
    single = scoring.mean_by_image(scores, images)
    copied = scoring.mean_by_image(np.repeat(scores, 10), np.repeat(images, 10))
    assert (copied.low, copied.high) == pytest.approx((single.low, single.high))
    width = scores.std() / np.sqrt(60) * 1.96
    assert single.high - single.low == pytest.approx(2 * width, rel=0.15)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    hits = 0
    for draw in range(200):
        means = rng.normal(0.5, 0.1, 40)
        scores = rng.normal(np.repeat(means, 3), 0.05)
        mean = scoring.mean_by_image(scores, np.repeat(np.arange(40), 3).astype(str), seed=draw)
        hits += mean.low <= 0.5 <= mean.high
    assert 0.88 <= hits / 200 <= 0.99
