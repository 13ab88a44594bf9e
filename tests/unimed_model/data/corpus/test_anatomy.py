import numpy as np
import pytest

from unimed_model.data.corpus import selection, wording
from unimed_model.data.corpus.anatomy import load_volumes, slices
from unimed_model.data.corpus.rendering import render


@pytest.fixture(scope="module")
def every():
    return list(slices(load_volumes()))


def test_no_test_slice_has_a_neighbour_in_training(every):
    for plane in ("axial", "coronal", "sagittal"):
        places = {
            split: {s.position for s in selection.of_split(every, split) if s.plane.name == plane}
            for split in selection.SPLITS
        }
        nearest = min(abs(a - b) for a in places["train"] for b in places["test"])
        assert nearest >= 3
        assert places["test"]


def test_no_two_slices_of_different_splits_show_the_same_picture(every):
    """The template is symmetric, so a mirrored sagittal slice would leak."""
    train = {s.images["t1"].tobytes() for s in selection.of_split(every, "train")}
    assert not train & {s.images["t1"].tobytes() for s in selection.of_split(every, "test")}


def test_sides_agree_with_the_tissue_maps(every):
    """Left and right halves share no column and mirror each other, as the symmetric template must."""
    for slice_ in every:
        if slice_.plane.name == "sagittal":
            continue
        left, right = slice_.structures["left half"], slice_.structures["right half"]
        assert np.array_equal(left[:, ::-1], right)
        assert np.flatnonzero(left.any(axis=0)).max() < np.flatnonzero(right.any(axis=0)).min()
        assert not (left & ~slice_.brain).any()


def test_a_voxel_of_known_place_is_where_its_coordinate_says(every):
    """x, y, z of a marked voxel, found back in the slices of all three planes."""
    volumes = load_volumes()
    x, y, z = -30, 20, 10
    i, j, k = (o + c for o, c in zip(volumes.origin, (x, y, z), strict=True))
    value = volumes.images["t1"][i, j, k]
    sizes = volumes.images["t1"].shape
    found = {s.key: s for s in every}
    assert found[f"axial{z:+04d}"].images["t1"][sizes[1] - 1 - j, i] == value
    assert found[f"coronal{y:+04d}"].images["t1"][sizes[2] - 1 - k, i] == value
    assert found[f"sagittal{-x:+04d}"].images["t1"][sizes[2] - 1 - k, j] == value


def test_classes_are_eight_and_each_has_slices_in_both_splits(every):
    assert len(set(selection.position_classes())) == 8
    for split in selection.SPLITS:
        assert {selection.position_class(s) for s in selection.of_split(every, split)} - {None} == set(
            selection.position_classes()
        )


@pytest.mark.parametrize("size", [64, 96])
def test_boxes_lie_on_the_picture_and_hold_what_they_name(every, size):
    rng = np.random.default_rng(0)
    for slice_ in every[::11]:
        pixels, placement = render(slice_, "t1", size, rng)
        x, y, width, height = placement.box(slice_.brain)
        assert pixels.shape == (size, size)
        assert x >= 0
        assert y >= 0
        assert x + width <= size
        assert y + height <= size
        bright = pixels > 60
        inside = bright[int(y) : int(np.ceil(y + height)) + 1, int(x) : int(np.ceil(x + width)) + 1]
        assert inside.sum() > 0.97 * bright.sum()


def test_size_and_place_are_drawn_for_every_picture(every):
    rng = np.random.default_rng(0)
    boxes = np.array([render(every[50], "t1", 96, rng)[1].box(every[50].brain) for _ in range(40)])
    assert boxes[:, 2:].max(axis=1).std() > 3
    assert boxes[:, :2].std() > 3


def test_every_answer_follows_from_the_slice(every):
    for slice_ in every:
        said = {q.text: q.answer for q in wording.questions(slice_, "t1")}
        assert said["Which plane is this slice in?"] == slice_.plane.name
        assert said["Is this a sagittal slice?"] == ("Yes" if slice_.plane.name == "sagittal" else "No")
        for side in ("above", "in front of"):
            answer = said.get(f"Is this slice {side} the anterior commissure?")
            assert answer in (None, "Yes" if slice_.position > 0 else "No")
        caption = wording.caption(slice_, "t1")
        assert caption.startswith(slice_.plane.name.capitalize())
        assert f"{5 * round(20 * slice_.gray_share)} percent" in caption


def test_questions_have_no_constant_answer(every):
    """A closed question that is always answered alike would teach nothing."""
    answers: dict[str, list[str]] = {}
    for slice_ in every:
        for question in wording.questions(slice_, "t1"):
            answers.setdefault(question.text, []).append(question.answer)
    del answers["What does this picture show?"]  # asked of maps too, where it has other answers
    for text, given in answers.items():
        commonest = max(given.count(answer) for answer in set(given))
        assert commonest < 0.85 * len(given), text
