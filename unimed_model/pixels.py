"""Any picture as 8-bit RGB: PIL images of every mode, and numpy arrays.

The rules are those of ``unimed_model.data.images``: transparent pixels are laid on black, and 16 bits are scaled by
their full range, 0..65535, whatever the largest value is, so that equal values stay equal between pictures.
Floating-point pixels must lie in 0..1. What would wrap around or be clipped is refused.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .data.images import to_rgb
from .errors import UserError

Picture = Image.Image | NDArray[Any]


def as_rgb(picture: Picture, name: str = "The image") -> Image.Image:
    """Return a picture as an RGB image.

    Args:
        picture: a PIL image of any mode, or an array (height, width), (height, width, 1), (height, width, 3) or
            (height, width, 4: RGB and opacity) of bool, uint8, uint16 or floats from 0 to 1.
        name: starts the sentence of an error.

    Raises:
        UserError: no pixels, another shape or type, values that are not finite or out of range, or an image that
            cannot be decoded.
    """
    if isinstance(picture, np.ndarray):
        return _from_array(picture, name)
    if not isinstance(picture, Image.Image):
        raise UserError(f"{name} is a {type(picture).__name__}; a PIL image or a numpy array is needed.")
    if 0 in picture.size:
        raise UserError(f"{name} has no pixels: it is {picture.width} x {picture.height}.")
    try:
        if picture.mode == "F":
            return _from_array(np.asarray(picture), name)
        return to_rgb(picture, name)
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{name}, of mode {picture.mode}, cannot be read as RGB ({error}).") from error


def _from_array(array: NDArray[Any], name: str) -> Image.Image:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise UserError(
            f"{name} has the shape {array.shape}; (height, width) or (height, width, channels) with 1, 3 or 4 "
            "channels is needed."
        )
    if array.size == 0:
        raise UserError(f"{name} has no pixels: its shape is {array.shape}.")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    return to_rgb(Image.fromarray(_eight_bits(array, name)), name)


def _eight_bits(array: NDArray[Any], name: str) -> NDArray[np.uint8]:
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "f":
        return _from_unit_interval(array.astype(np.float64), name)
    if kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if kind == "u" and size == 2:
        return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if kind == "u" and size == 1:
        return np.ascontiguousarray(array)
    raise UserError(f"{name} has pixels of type {array.dtype}; bool, uint8, uint16 or floats from 0 to 1 are needed.")


def _from_unit_interval(array: NDArray[np.float64], name: str) -> NDArray[np.uint8]:
    if not np.isfinite(array).all():
        raise UserError(f"{name} has pixels that are not finite (NaN or infinity).")
    low, high = float(array.min()), float(array.max())
    if low < 0 or high > 1:
        raise UserError(f"{name} has floating-point pixels from {low:g} to {high:g}; they must lie in 0..1.")
    return np.rint(array * 255).astype(np.uint8)
