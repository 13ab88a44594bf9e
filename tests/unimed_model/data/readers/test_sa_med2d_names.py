import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unimed_model.data.readers.sa_med2d import names
from unimed_model.errors import UserError

# No `--` within or across the ends of the outer fields; anything but a slash inside the original name.
fields = st.from_regex(r"[A-Za-z0-9_.]{1,8}", fullmatch=True)
originals = st.from_regex(r"[A-Za-z0-9_. ]([A-Za-z0-9_. -]{0,10}[A-Za-z0-9_. ])?(\.png)?", fullmatch=True)


@given(fields, fields, originals, fields, st.integers(0, 9999), st.integers(0, 999))
def test_names_come_apart_from_both_ends(
    modality: str, dataset: str, original: str, place: str, class_id: int, instance: int
) -> None:
    stem = "--".join((modality, dataset, original, place))
    picture = names.picture(f"images/{stem}.png")
    assert picture == (stem, modality, dataset, original, place)
    assert names.mask_class(f"masks/{stem}--{class_id:04d}_{instance:03d}.png", picture) == f"{class_id:04d}"


def test_dots_dashes_and_png_inside_an_original_name() -> None:
    picture = names.picture("images/ct_00--SET--a--1.2.840--b.png--z_0007.png.png")
    assert picture == ("ct_00--SET--a--1.2.840--b.png--z_0007.png", "ct_00", "SET", "a--1.2.840--b.png", "z_0007.png")
    assert picture.case == "SET--a--1.2.840--b.png"


@pytest.mark.parametrize("name", ["ct_00.png", "ct_00--SET--x_1.png", "ct_00--SET----x_1.png", "--SET--a--x_1.png", ""])
def test_other_names_are_not_images(name: str) -> None:
    assert names.picture(f"images/{name}") is None


@pytest.mark.parametrize("mask", ["m--S--a--x_2--0001_000", "m--S--a--x_1--0001", "m--S--a--x_1", "m--S--a--x_1--a_0"])
def test_other_names_are_not_masks_of_an_image(mask: str) -> None:
    picture = names.picture("m--S--a--x_1.png")
    assert picture is not None
    assert names.mask_class(f"masks/{mask}.png", picture) is None


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("kidney_left", "left kidney"),
        ("adrenal_gland_right", "right adrenal gland"),
        ("Lung_Left", "Left Lung"),
        ("left_lung", "left lung"),
        ("rib_left_9", "rib left 9"),
        ("gray__matter_", "gray matter"),
        ("PZ", "PZ"),
        ("left", "left"),
    ],
)
def test_labels_are_spoken_with_the_side_first(label: str, words: str) -> None:
    assert names.spoken(label) == words


def test_labels_that_name_nothing() -> None:
    for label in ("union_liver_spleen", "Union", "class", "class_3", "class12", "left", "RIGHT", "7", "label_1", ""):
        assert not names.names_an_object(label), label
    for label in ("liver", "left_lung", "half_left", "reunion", "vertebrae_T9", "tumor"):
        assert names.names_an_object(label), label


def _labels(tmp_path: Path, mapping: object, generic: bool = False) -> names.Labels:
    path = tmp_path / "mapping.json"
    path.write_text(json.dumps(mapping))
    return names.read_labels(path, generic)


def test_classes_are_numbered_in_each_dataset(tmp_path: Path) -> None:
    mapping = {"A": {"liver": "0000", "union_all": "0001"}, "B": {"heart": "0000", "liver": "0003"}}
    labels = _labels(tmp_path, mapping)
    assert {(d, c): label.raw for d, classes in labels.items() for c, label in classes.items()} == {
        ("A", "0000"): "liver",
        ("A", "0001"): "union_all",
        ("B", "0000"): "heart",
        ("B", "0003"): "liver",
    }
    assert not labels["A"]["0001"].usable
    assert _labels(tmp_path, mapping, generic=True)["A"]["0001"].usable


def test_excluded_classes_and_ones_with_two_labels_stay_unusable(tmp_path: Path) -> None:
    mapping = {"ACDC": {"whole": "0003", "myocardium": "0002"}, "B": {"one": "0001", "two": "0001"}}
    labels = _labels(tmp_path, mapping, generic=True)
    assert not labels["ACDC"]["0003"].usable
    assert labels["ACDC"]["0002"].usable
    assert not labels["B"]["0001"].usable
    assert {names.exclusion(name) for name in ("Brain_PTM", "brain-growth")} == {"unusable image"}
    assert names.exclusion("ichallenge_adam_task2") == "unusable label"
    assert names.exclusion("ACDC") is None


@pytest.mark.parametrize("mapping", [["liver"], {"A": ["liver"]}, {"A": {"liver": "first"}}, {"A": {"liver": None}}])
def test_malformed_mappings(tmp_path: Path, mapping: object) -> None:
    with pytest.raises(UserError, match=r"mapping\.json"):
        _labels(tmp_path, mapping)
