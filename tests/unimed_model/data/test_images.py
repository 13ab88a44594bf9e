import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unimed_model.data.images import ImageArray, ImageFile
from unimed_model.errors import UserError

SIZE = (40, 24)


def _gradient() -> np.ndarray:
    return np.linspace(0, 255, SIZE[0] * SIZE[1], dtype=np.uint8).reshape(SIZE[1], SIZE[0])


def _saved(image: Image.Image, path: Path) -> ImageFile:
    image.save(path)
    return ImageFile(path)


def test_size_is_width_then_height(tmp_path: Path) -> None:
    source = _saved(Image.fromarray(_gradient()), tmp_path / "grey.png")
    assert source.size() == SIZE == source.open().size


def test_grey_keeps_its_values(tmp_path: Path) -> None:
    opened = _saved(Image.fromarray(_gradient()), tmp_path / "grey.png").open()
    assert opened.mode == "RGB"
    assert np.array_equal(np.asarray(opened), np.repeat(_gradient()[:, :, None], 3, axis=2))


def test_sixteen_bits_map_their_full_range(tmp_path: Path) -> None:
    deep = _gradient().astype(np.uint16) * 257
    opened = _saved(Image.fromarray(deep), tmp_path / "deep.png").open()
    assert opened.mode == "RGB"
    assert np.array_equal(np.asarray(opened)[..., 0], _gradient())


def test_palette_gives_its_colours(tmp_path: Path) -> None:
    image = Image.new("P", SIZE, color=1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    opened = _saved(image, tmp_path / "palette.png").open()
    assert (opened.mode, opened.getpixel((3, 3))) == ("RGB", (10, 200, 30))


def test_transparency_is_laid_on_black(tmp_path: Path) -> None:
    image = Image.new("RGBA", SIZE, color=(255, 255, 255, 0))
    image.putpixel((0, 0), (9, 8, 7, 255))
    opened = _saved(image, tmp_path / "rgba.png").open()
    assert opened.mode == "RGB"
    assert opened.getpixel((0, 0)) == (9, 8, 7)
    assert opened.getpixel((5, 5)) == (0, 0, 0)


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    opened = _saved(Image.new("CMYK", SIZE, color=(0, 255, 255, 0)), tmp_path / "cmyk.jpg").open()
    red, green, blue = np.asarray(opened)[5, 5]
    assert opened.mode == "RGB"
    assert red > 200
    assert green < 50
    assert blue < 50


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    source = _saved(Image.new("F", SIZE, color=0.5), tmp_path / "float.tiff")
    with pytest.raises(UserError, match=r"float\.tiff has floating-point pixels"):
        source.open()


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_an_image_cut_anywhere_is_an_error(tmp_path: Path, suffix: str) -> None:
    whole = tmp_path / f"whole.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0]), dtype=np.uint8)
    Image.fromarray(noise).save(whole)
    content = whole.read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    # The last bytes only close the file: some decoders rightly do without them.
    for length in range(0, len(content) - 40, 7):
        cut.write_bytes(content[:length])
        with pytest.raises(UserError, match=rf"cut\.{suffix}"):
            ImageFile(cut).open()


def test_missing_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.png is missing"):
        ImageFile(tmp_path / "absent.png").open()


def test_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = _saved(Image.fromarray(_gradient()), tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(UserError, match=r"bomb\.png is refused"):
        source.open()


def test_array_image_is_picklable_and_rgb(tmp_path: Path) -> None:
    stack = np.random.default_rng(0).integers(0, 256, (3, 24, 40), dtype=np.uint8)
    np.savez_compressed(tmp_path / "stack.npz", train_images=stack)
    source = pickle.loads(pickle.dumps(ImageArray(tmp_path / "stack.npz", "train_images", 2)))
    opened = source.open()
    assert opened.mode == "RGB"
    assert np.array_equal(np.asarray(opened)[..., 1], stack[2])


def test_replaced_archive_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "stack.npz"
    np.savez(path, images=np.zeros((1, 4, 4), np.uint8))
    assert ImageArray(path, "images", 0).open().getpixel((0, 0)) == (0, 0, 0)
    np.savez(path, images=np.full((1, 8, 8), 7, np.uint8))
    assert ImageArray(path, "images", 0).open().getpixel((0, 0)) == (7, 7, 7)


def test_pickled_objects_in_an_archive_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "objects.npz"
    np.savez(path, images=np.array([{"a": 1}], dtype=object))
    with pytest.raises(UserError, match=r"objects\.npz is not a readable \.npz file"):
        ImageArray(path, "images", 0).open()
