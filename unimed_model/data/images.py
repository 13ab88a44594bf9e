"""Images opened when asked for, always as RGB.

Grey, palette and CMYK images are converted by Pillow; transparent pixels are laid on black; 16-bit grey is
divided by 257, so that its full range maps to 0..255 and equal values stay equal between images. Other
pixel types are refused. EXIF rotation is not applied: boxes are given in the pixels as stored.
"""

from __future__ import annotations

import threading
import warnings
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from unimed_model.data.arrays import array_header, load_array
from unimed_model.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image


MOST_PIXELS = 150_000_000
"""A larger image is refused before it is decoded: it would take 450 MB, and is rather an attack than a picture."""


_opening = threading.Lock()


class ImageSource(Protocol):
    """Where an image is: in which file, and where inside it."""

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def place(self) -> tuple[str, int]:
        """Name of the stack or column inside the file and index there; ``("", 0)`` where the file is the image."""

    def open(self) -> Image:
        """Return the decoded image in RGB; raise `UserError` where that is impossible."""

    def size(self) -> tuple[int, int]:
        """Return (width, height) in pixels, if possible without decoding."""

    def content(self) -> bytes:
        """Return bytes that are equal only for equal images, without decoding; raise `UserError` as `open` does."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image in a file of its own."""

    path: Path

    @property
    def place(self) -> tuple[str, int]:
        """``("", 0)``: the file is the image."""
        return "", 0

    def open(self) -> Image:
        """Return the decoded image in RGB.

        Raises:
            UserError: the file is missing, truncated, unreadable, too large or of a refused pixel type.
        """
        return _decoded(opened(self.path, str(self.path)), str(self.path))

    def size(self) -> tuple[int, int]:
        """Return (width, height) in pixels from the header, without decoding.

        Raises:
            UserError: the file is missing or its header is unreadable.
        """
        with opened(self.path, str(self.path)) as image:
            return image.size

    def content(self) -> bytes:
        """Return the file's bytes.

        Raises:
            UserError: the file is missing or cannot be read.
        """
        try:
            return self.path.read_bytes()
        except FileNotFoundError as error:
            raise UserError(f"The image {self.path} is missing; complete the download.") from error
        except OSError as error:
            raise UserError(f"{self.path} cannot be read ({error.strerror}).") from error


@dataclass(frozen=True, slots=True)
class ImageArray:
    """One image of a stack `(images, height, width[, 3])` inside an `.npz` file.

    The stack is decoded once per process and shared by all its images.
    """

    path: Path
    key: str
    index: int

    @property
    def place(self) -> tuple[str, int]:
        """Name of the stack and index in it."""
        return self.key, self.index

    def size(self) -> tuple[int, int]:
        """Return (width, height) in pixels.

        Raises:
            UserError: the file is missing or damaged.
        """
        height, width = array_header(self.path, self.key)[0][1:3]
        return width, height

    def open(self) -> Image:
        """Return the image in RGB.

        Raises:
            UserError: the file is missing or damaged.
        """
        from PIL import Image

        return to_rgb(Image.fromarray(load_array(self.path, self.key)[self.index]), str(self.path))

    def content(self) -> bytes:
        """Return type, shape and values of the image's array; the stack is decoded, the image is not made.

        Raises:
            UserError: the file is missing or damaged.
        """
        array = load_array(self.path, self.key)[self.index]
        return f"{array.dtype.str} {array.shape} ".encode() + array.tobytes()


def image_of_bytes(content: bytes, name: str) -> Image:
    """Return the decoded image of an image file's bytes, in RGB.

    Raises:
        UserError: truncated, unreadable, too large or of a refused pixel type; the sentence names `name`.
    """
    return _decoded(opened(BytesIO(content), name), name)


def size_of_bytes(content: bytes, name: str) -> tuple[int, int]:
    """Return (width, height) in pixels from the header of an image file's bytes, without decoding.

    Raises:
        UserError: the header is unreadable; the sentence names `name`.
    """
    with opened(BytesIO(content), name) as image:
        return image.size


def to_rgb(image: Image, name: str) -> Image:
    """Return an RGB copy of a decoded image, by the rules at the top of this file.

    Raises:
        UserError: the pixels are neither 8-bit nor 16-bit; the sentence starts with `name`.
    """
    if image.mode.startswith("I"):
        return _from_sixteen_bits(image, name)
    if image.mode == "F":
        raise UserError(f"{name} has floating-point pixels; an 8-bit or 16-bit image is needed.")
    if image.has_transparency_data:
        return _on_black(image)
    # `convert` returns a copy even from RGB, so the caller may close the file.
    return image.convert("RGB")


def _from_sixteen_bits(image: Image, name: str) -> Image:
    import numpy as np
    from PIL import Image

    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise UserError(f"{name} has pixel values beyond 16 bits; an 8-bit or 16-bit image is needed.")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")


def _on_black(image: Image) -> Image:
    from PIL import Image

    rgba = image.convert("RGBA")
    black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
    return Image.alpha_composite(black, rgba).convert("RGB")


def _decoded(image: Image, name: str) -> Image:
    with image:
        try:
            image.load()
        except (OSError, SyntaxError, ValueError) as error:
            raise UserError(f"{name} cannot be decoded ({error}); download it again.") from error
        return to_rgb(image, name)


def opened(file: Path | BytesIO, name: str) -> Image:
    """Return the image of a file, its header read and nothing decoded; the caller closes it.

    Raises:
        UserError: missing, unreadable or too large; the sentence names `name`.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        # Filters of warnings belong to the process: only one thread at a time may change and restore them.
        with _opening, warnings.catch_warnings():
            # Pillow warns from a smaller size on; the limit here is ours, and an error.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(file)
    except FileNotFoundError as error:
        raise UserError(f"The image {name} is missing; complete the download.") from error
    except UnidentifiedImageError as error:
        raise UserError(f"{name} is not a readable image; download it again.") from error
    except Image.DecompressionBombError as error:
        raise UserError(f"{name} is refused: {error}") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{name} cannot be opened as an image ({error}).") from error
    if image.width * image.height > MOST_PIXELS:
        image.close()
        raise UserError(f"{name} is refused: it has {image.width} x {image.height} pixels, over {MOST_PIXELS:,}.")
    return image
