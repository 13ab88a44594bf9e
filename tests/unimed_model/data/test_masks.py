from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from unimed_model.data.boxes import Rounding, normalise
from unimed_model.data.masks import mask_box, mask_size
from unimed_model.errors import UserError

# One folder serves all examples: each writes the file anew.
ONE_FOLDER = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
foregrounds = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=24))


def _saved(path: Path, values: np.ndarray, mode: str | None = None) -> Path:
    image = Image.fromarray(values)
    (image.convert(mode) if mode else image).save(path)
    return path


@ONE_FOLDER
@given(foregrounds, st.sampled_from(["floor", "nearest"]))
def test_any_mask_gives_a_box_that_contains_it(tmp_path: Path, foreground: np.ndarray, rounding: Rounding) -> None:
    box = mask_box(_saved(tmp_path / "mask.png", foreground.astype(np.uint8)))
    if not foreground.any():
        assert box is None
        return
    assert box is not None
    x, y, w, h = box
    height, width = foreground.shape
    inside = np.zeros_like(foreground)
    inside[int(y) : int(y + h), int(x) : int(x + w)] = True
    assert not (foreground & ~inside).any()
    # ... and no smaller box does: each side touches the foreground.
    assert foreground[int(y), :].any()
    assert foreground[int(y + h) - 1, :].any()
    assert foreground[:, int(x)].any()
    assert foreground[:, int(x + w) - 1].any()
    x1, y1, x2, y2 = normalise(box, (width, height), rounding)
    step = 1.0 if rounding == "floor" else 0.5
    for row, column in np.argwhere(foreground):
        assert x1 - step <= 100 * column / width
        assert 100 * (column + 1) / width <= x2 + step + 1e-9
        assert y1 - step <= 100 * row / height
        assert 100 * (row + 1) / height <= y2 + step + 1e-9


@ONE_FOLDER
@given(foregrounds)
def test_the_box_does_not_depend_on_how_a_mask_is_stored(tmp_path: Path, foreground: np.ndarray) -> None:
    white = foreground.astype(np.uint8) * 255
    grey = Image.fromarray(white)
    expected = mask_box(_saved(tmp_path / "mask.png", foreground.astype(np.uint8)))
    forms = {
        "white": grey,
        "bits": grey.convert("1"),
        "RGB": grey.convert("RGB"),
        "opaque": grey.convert("RGBA"),
        "grey with alpha": grey.convert("LA"),
        "palette": grey.quantize(2),  # its order is arbitrary
        "16 bits": Image.fromarray(foreground.astype(np.uint16)),
    }
    for name, image in forms.items():
        image.save(tmp_path / "mask.png")
        assert mask_box(tmp_path / "mask.png") == expected, name


def test_a_colour_in_one_channel_is_foreground_and_transparency_is_not(tmp_path: Path) -> None:
    values = np.zeros((4, 6, 4), dtype=np.uint8)
    values[1, 2] = (0, 0, 1, 0)
    values[..., 3] += 7
    assert mask_box(_saved(tmp_path / "mask.png", values)) == (2, 1, 1, 1)


def test_the_last_row_and_column_are_inside_by_default(tmp_path: Path) -> None:
    values = np.zeros((20, 30), dtype=np.uint8)
    values[4:9, 10:21] = 1
    path = _saved(tmp_path / "mask.png", values)
    assert mask_size(path) == (30, 20)
    assert mask_box(path) == (10, 4, 11, 5)
    assert mask_box(path, inclusive=False) == (10, 4, 10, 4)


def test_damaged_masks_are_named(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    path = _saved(tmp_path / "mask.png", noise)
    path.write_bytes(path.read_bytes()[:-600])
    with pytest.raises(UserError, match=r"mask\.png cannot be decoded"):
        mask_box(path)
    path.write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"mask\.png is not a readable image"):
        mask_box(path)
    with pytest.raises(UserError, match=r"gone\.png is missing"):
        mask_box(tmp_path / "gone.png")
