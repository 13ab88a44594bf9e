"""Masks of structures, read as plain PNG files beside the pictures they belong to."""

import csv
import json
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from unimed_model.data.corpus import sa_med2d
from unimed_model.data.corpus.anatomy import load_volumes, slices
from unimed_model.data.corpus.rendering import render

FOLDER = "mni_mask"


@pytest.fixture(scope="module")
def every():
    return list(slices(load_volumes()))


def tables(corpus):
    masks = json.loads((corpus / FOLDER / "SAMed2D_v1.json").read_text())
    classes = json.loads((corpus / FOLDER / "SAMed2D_v1_class_mapping_id.json").read_text())
    return masks, {number: label for label, number in classes["MNI152"].items()}


def pixels(path):
    with Image.open(path) as image:
        assert (image.format, image.mode) == ("PNG", "L")
        return np.asarray(image)


def extent(mask):
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def test_files_and_names_are_those_of_the_layout(corpus):
    masks, labels = tables(corpus)
    folder = corpus / FOLDER
    assert {f"images/{path.name}" for path in (folder / "images").iterdir()} == set(masks)
    assert {f"masks/{path.name}" for path in (folder / "masks").iterdir()} == {m for ms in masks.values() for m in ms}
    assert set(labels) == {f"{number:04d}" for number in range(len(labels))}
    for image, its_masks in masks.items():
        modality, source, name, place = image.removeprefix("images/").removesuffix(".png").split("--")
        assert (modality, source) == ("mr_t1", "MNI152")
        plane = name.split("_")[0]
        assert place.split("_")[0] == {"sagittal": "x", "coronal": "y", "axial": "z"}[plane]
        stem = image.removeprefix("images/").removesuffix(".png")
        numbers = [m.removeprefix(f"masks/{stem}--").removesuffix("_000.png") for m in its_masks]
        assert its_masks
        assert len(set(numbers)) == len(numbers)
        assert set(numbers) <= set(labels)


def test_the_lists_share_out_all_pictures_as_the_table_says(corpus):
    masks, _ = tables(corpus)
    with (corpus / "pictures.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["file"].startswith(f"{FOLDER}/")]
    assert {row["file"] for row in rows} == {f"{FOLDER}/{image}" for image in masks}
    for split in ("train", "test"):
        stems = (corpus / FOLDER / f"{split}.txt").read_text().split()
        assert [f"{FOLDER}/images/{stem}.png" for stem in stems] == [r["file"] for r in rows if r["split"] == split]


def test_the_number_in_a_name_is_the_slice_s_index_in_the_volume(corpus, template):
    with (corpus / "pictures.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["file"].startswith(f"{FOLDER}/")]
    for row in rows:
        index = int(row["file"].removesuffix(".png").rsplit("_", 1)[1])
        axis = template.axes[row["plane"]]
        millimetres = template.affine[axis, axis] * index + template.affine[axis, 3]
        assert abs(millimetres) == abs(int(row["position_mm"]))
        assert row["plane"] == "sagittal" or millimetres == int(row["position_mm"])


def test_a_mask_lies_where_its_label_says(corpus):
    """Left, right, front, back, upper and lower against the centre of what is bright on the picture."""
    masks, labels = tables(corpus)
    seen = Counter()
    for image, its_masks in masks.items():
        picture = pixels(corpus / FOLDER / image)
        plane = image.split("--")[2].split("_")[0]
        left, top, right, bottom = extent(picture > 60)
        for name in its_masks:
            label = labels[name[:-4].rsplit("--", 1)[1][:4]]
            mask = pixels(corpus / FOLDER / name)
            assert mask.shape == picture.shape
            assert set(np.unique(mask)) == {0, 255}
            x, y = np.flatnonzero(mask.any(axis=0)).mean(), np.flatnonzero(mask.any(axis=1)).mean()
            words = set(label.split("_"))
            seen.update(words)
            if plane != "sagittal":
                assert "left" not in words or x < (left + right) / 2
                assert "right" not in words or x > (left + right) / 2
            assert "upper" not in words or y < (top + bottom) / 2
            assert "lower" not in words or y > (top + bottom) / 2
            along, middle = (y, (top + bottom) / 2) if plane == "axial" else (-x, -(left + right) / 2)
            if words >= {"front", "quadrant"} or words >= {"back", "quadrant"}:
                assert (along < middle) == ("front" in words), (label, plane)
            outside = (mask > 0) & (picture < 20)
            assert outside.sum() < 0.1 * (mask > 0).sum(), label
    assert set(seen) >= {"left", "right", "upper", "lower", "gray", "white", "quadrant", "half"}


def test_white_matter_is_brighter_than_gray_matter_under_the_masks(every):
    rng = np.random.default_rng(0)
    for slice_ in every[::9]:
        picture, placement = render(slice_, "t1", 96, rng)
        gray, white = (placement.mask(slice_.tissue(kind)) for kind in ("gray", "white"))
        if white.sum() > 100:
            assert picture[white].mean() > picture[gray].mean() + 5


def test_a_drawn_mask_fills_the_box_of_its_structure(every):
    """Drawing pixels and computing a box are two ways to one place, to within the rounding of a pixel."""
    rng = np.random.default_rng(0)
    for slice_ in every[::9]:
        _, placement = render(slice_, "t1", 96, rng)
        for mask in sa_med2d.labelled(slice_).values():
            x, y, width, height = placement.box(mask)
            assert np.allclose(extent(placement.mask(mask)), (x, y, x + width, y + height), atol=1.6)


def test_no_two_structures_of_a_picture_have_nearly_the_same_box(every):
    told_apart = Counter()
    for slice_ in every[::3]:
        boxes = {label: np.array(extent(mask)) for label, mask in sa_med2d.labelled(slice_).items()}
        told_apart.update(boxes)
        for first, second in combinations(boxes.values(), 2):
            size = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
            both = float(np.prod(np.maximum(size, 0)))
            areas = sum(float(np.prod(box[2:] - box[:2])) for box in (first, second))
            assert both <= 0.92 * (areas - both)
    assert set(told_apart) == set(sa_med2d.LABELS)
