import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from unimed_model.data.images import ImageFile
from unimed_model.data.preparation.leakage import leaks
from unimed_model.data.preparation.pictures import examine
from unimed_model.data.sample import Sample


def texture(seed, size=(120, 90)):
    """A smooth random picture: a coarse grid of grey values, scaled up."""
    grid = np.random.default_rng(seed).integers(0, 256, (9, 12), np.uint8)
    return Image.fromarray(grid).resize(size, Image.Resampling.BICUBIC)


def sample(folder, split, name, picture, patient=None):
    path = folder / f"{name}.png"
    picture.save(path)
    return Sample("d", "RG", split, name, name, patient, "?", "!", image_source=ImageFile(path))


def found(splits):
    sources = [s.image_source for samples in splits.values() for s in samples]
    return [(leak.kind, leak.count, leak.first) for leak in leaks(splits, examine(sources, {}, quiet=True))]


def changed(picture, how):
    if how == "compressed":
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=40)
        return Image.open(buffer)
    if how == "scaled":
        return picture.resize((250, 180))
    if how == "brighter":
        return ImageEnhance.Brightness(ImageEnhance.Contrast(picture).enhance(0.8)).enhance(0.9)
    return picture


@pytest.mark.parametrize("how", ["the same", "compressed", "scaled", "brighter"])
def test_a_picture_that_comes_back_under_another_name_is_found(tmp_path, how):
    train = [sample(tmp_path, "train", f"t{i}", texture(i)) for i in range(20)]
    test = [
        sample(tmp_path, "test", "new", texture(100)),
        sample(tmp_path, "test", "old", changed(texture(7), how)),
    ]
    assert found({"train": train, "test": test}) == [("near-duplicate", 1, "old is nearly t7 of train")]


def test_images_and_patients_on_both_sides(tmp_path):
    train = [sample(tmp_path, "train", "a", texture(1), "p1"), sample(tmp_path, "train", "b", texture(2), "p2")]
    test = [sample(tmp_path, "test", "b", texture(2), "p2"), sample(tmp_path, "test", "c", texture(3), "p1")]
    assert found({"train": train, "test": test}) == [("image", 1, "b"), ("patient", 2, "p1")]


def test_nothing_in_common(tmp_path):
    train = [sample(tmp_path, "train", f"t{i}", texture(i), f"p{i}") for i in range(8)]
    test = [sample(tmp_path, "test", f"s{i}", texture(50 + i), f"q{i}") for i in range(8)]
    assert found({"train": train, "test": test, "val": []}) == []


def test_pictures_of_one_grey_are_like_nothing(tmp_path):
    blank = Image.new("L", (50, 50), 90)
    assert found({"a": [sample(tmp_path, "a", "x", blank)], "b": [sample(tmp_path, "b", "y", blank)]}) == []


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=8), st.lists(st.integers(0, 6), min_size=1, max_size=8))
def test_near_duplicates_are_those_of_a_plain_loop(tmp_path_factory, one, other):
    folder = tmp_path_factory.mktemp("pictures")
    a = [sample(folder, "a", f"a{i}", texture(seed)) for i, seed in enumerate(one)]
    b = [sample(folder, "b", f"b{i}", texture(seed)) for i, seed in enumerate(other)]
    expected = sum(seed in one for seed in other)
    assert sum(count for _, count, _ in found({"a": a, "b": b})) == expected


def test_a_bright_frame_alone_makes_no_duplicates(tmp_path):
    def framed(seed):
        inside = np.random.default_rng(seed).integers(24, 37, (12, 12), np.uint8)
        picture = Image.new("L", (256, 256), 250)
        picture.paste(Image.fromarray(inside).resize((192, 192), Image.Resampling.NEAREST), (32, 32))
        return picture

    train = [sample(tmp_path, "train", f"t{i}", framed(i)) for i in range(10)]
    test = [sample(tmp_path, "test", f"s{i}", framed(100 + i)) for i in range(10)]
    assert found({"train": train, "test": test}) == []
    again = [sample(tmp_path, "test", "again", changed(framed(3), "compressed"))]
    assert found({"train": train, "test": again}) == [("near-duplicate", 1, "again is nearly t3 of train")]
