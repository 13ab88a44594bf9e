import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from unimed_model.errors import UserError
from unimed_model.pixels import as_rgb


def only_pixel(picture):
    image = as_rgb(picture)
    assert (image.mode, image.size) == ("RGB", (1, 1))
    return image.getpixel((0, 0))


def one(mode, value):
    return Image.new(mode, (1, 1), value)


def palette(transparent=None):
    image = Image.new("P", (1, 1), 1)
    image.putpalette([0, 0, 0, 200, 100, 50] + [0] * 750)
    if transparent is not None:
        image.info["transparency"] = transparent
    return image


@pytest.mark.parametrize(
    ("picture", "wanted"),
    [
        (one("RGB", (1, 2, 3)), (1, 2, 3)),
        (one("L", 77), (77, 77, 77)),
        (one("1", 1), (255, 255, 255)),
        (one("LA", (200, 0)), (0, 0, 0)),
        (one("LA", (200, 255)), (200, 200, 200)),
        (one("RGBA", (10, 20, 30, 255)), (10, 20, 30)),
        (one("RGBA", (10, 20, 30, 0)), (0, 0, 0)),
        (one("RGBA", (200, 100, 50, 51)), (40, 20, 10)),
        (palette(), (200, 100, 50)),
        (palette(transparent=1), (0, 0, 0)),
        (one("CMYK", (0, 0, 0, 0)), (255, 255, 255)),
        (one("CMYK", (0, 255, 255, 0)), (255, 0, 0)),
        (one("I;16", 65535), (255, 255, 255)),
        (one("I;16", 257 * 100), (100, 100, 100)),
        (one("I;16", 255), (1, 1, 1)),
        (one("I;16B", 257 * 100), (100, 100, 100)),
        (one("I", 65535), (255, 255, 255)),
        (one("I", 300), (1, 1, 1)),
        (one("F", 0.2), (51, 51, 51)),
    ],
)
def test_modes(picture, wanted):
    assert only_pixel(picture) == wanted


@pytest.mark.parametrize(
    ("array", "wanted"),
    [
        (np.full((1, 1), 9, np.uint8), (9, 9, 9)),
        (np.full((1, 1, 1), 9, np.uint8), (9, 9, 9)),
        (np.array([[[1, 2, 3]]], np.uint8), (1, 2, 3)),
        (np.array([[[200, 100, 50, 51]]], np.uint8), (40, 20, 10)),
        (np.array([[True]]), (255, 255, 255)),
        (np.full((1, 1), 65535, np.uint16), (255, 255, 255)),
        (np.full((1, 1), 257 * 7, ">u2"), (7, 7, 7)),
        (np.array([[[0, 65535, 25700]]], np.uint16), (0, 255, 100)),
        (np.full((1, 1), 0.2, np.float32), (51, 51, 51)),
        (np.full((1, 1), 1, np.float16), (255, 255, 255)),
        (np.array([[[0, 0.5, 1]]]), (0, 128, 255)),
    ],
)
def test_arrays(array, wanted):
    assert only_pixel(array) == wanted


@pytest.mark.parametrize(
    ("picture", "sentence"),
    [
        (Image.new("RGB", (0, 5)), "has no pixels: it is 0 x 5"),
        (Image.new("I", (5, 0)), "has no pixels: it is 5 x 0"),
        (np.zeros((0, 4), np.uint8), r"has no pixels: its shape is \(0, 4\)"),
        (np.zeros((3, 8, 8), np.uint8), r"has the shape \(3, 8, 8\)"),
        (np.zeros((8, 8, 2), np.uint8), r"has the shape \(8, 8, 2\)"),
        (np.zeros((1, 8, 8, 3), np.uint8), r"has the shape \(1, 8, 8, 3\)"),
        (np.zeros(8, np.uint8), r"has the shape \(8,\)"),
        (np.full((2, 2), np.nan), "not finite"),
        (np.full((2, 2, 3), np.inf, np.float32), "not finite"),
        (np.full((2, 2), 1.5), "from 1.5 to 1.5; they must lie in 0..1"),
        (np.full((2, 2), -0.1), "must lie in 0..1"),
        (np.full((2, 2), 255.0), "must lie in 0..1"),
        (np.zeros((2, 2), np.int64), "pixels of type int64"),
        (np.zeros((2, 2), np.uint32), "pixels of type uint32"),
        (np.zeros((2, 2), complex), "pixels of type complex128"),
        (np.zeros((2, 2), object), "pixels of type object"),
        (one("I", -1), "beyond 16 bits"),
        (one("I", 70000), "beyond 16 bits"),
        (one("F", float("nan")), "not finite"),
        (one("F", 300.0), "must lie in 0..1"),
        ("picture.png", "is a str; a PIL image or a numpy array is needed"),
        ([[1, 2], [3, 4]], "is a list"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_sentence(picture, sentence):
    with pytest.raises(UserError, match=f"^That picture .*{sentence}"):
        as_rgb(picture, "That picture")


def test_a_truncated_file_is_refused():
    stream = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(stream, "PNG")
    cut = Image.open(io.BytesIO(stream.getvalue()[:1000]))
    with pytest.raises(UserError, match="cannot be read as RGB"):
        as_rgb(cut)


def test_a_mode_without_a_way_to_rgb_is_refused():
    with pytest.raises(UserError, match="of mode La"):
        as_rgb(Image.new("La", (2, 2)))


@given(arrays.arrays(np.uint16, arrays.array_shapes(min_dims=2, max_dims=2, max_side=5)))
def test_sixteen_bits_keep_their_order_and_never_wrap_around(array):
    got = np.asarray(as_rgb(array))[..., 0]
    exact = array / 257
    assert np.abs(got - exact).max() <= 0.5
    assert np.array_equal(got, np.asarray(as_rgb(Image.fromarray(array)))[..., 0])


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_bytes_come_through_unchanged(height, width, seed):
    array = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(as_rgb(array)), array)
    assert np.array_equal(np.asarray(as_rgb(array[::-1, ::-1])), array[::-1, ::-1])


def test_the_caller_s_image_is_not_touched():
    image = Image.new("RGB", (2, 2), (1, 2, 3))
    as_rgb(image).putpixel((0, 0), (9, 9, 9))
    assert image.getpixel((0, 0)) == (1, 2, 3)
