"""Masks: which pixels of an image belong to an object, in an image file of their own, and the box around them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from unimed_model.data.boxes import PixelBox
from unimed_model.data.images import ImageFile, opened
from unimed_model.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image


def mask_size(path: Path) -> tuple[int, int]:
    """Return (width, height) of a mask in pixels from its header.

    Raises:
        UserError: missing, too large, or not an image; names the file.
    """
    return ImageFile(path).size()


def mask_box(path: Path, inclusive: bool = True) -> PixelBox | None:
    """Return the box `[x, y, w, h]` in pixels around all foreground of a mask; None for a mask without any.

    Foreground is every pixel with a value above 0, so that masks of 0 and 1 and of 0 and 255 are the same. A palette
    is looked up first (its order is arbitrary); in colour any channel counts; transparency does not.

    Args:
        path: an image of any pixel type.
        inclusive: whether the last row and column of the foreground are inside the box, which then holds the mask
            whole: `w = x_max + 1 - x_min`. Else `w = x_max - x_min`.

    Raises:
        UserError: missing, too large, truncated, or not an image; names the file.
    """
    try:
        with opened(path, str(path)) as mask:
            foreground = _foreground(mask)
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path} cannot be decoded ({error}); download it again.") from error
    return _box_around(foreground, int(inclusive))


def _foreground(mask: Image) -> np.ndarray:
    """Which pixels are foreground, (height, width)."""
    import numpy as np

    if mask.mode in ("P", "PA"):
        mask = mask.convert("RGBA")
    values = np.asarray(mask)
    if values.ndim == 2:
        return values > 0
    colours = values[..., : len(mask.getbands()) - ("A" in mask.getbands())]
    return np.any(colours > 0, axis=2)


def _box_around(foreground: np.ndarray, beyond: int) -> PixelBox | None:
    import numpy as np

    rows, columns = np.flatnonzero(np.any(foreground, axis=1)), np.flatnonzero(np.any(foreground, axis=0))
    if not rows.size:
        return None
    x, y = int(columns[0]), int(rows[0])
    return x, y, int(columns[-1]) + beyond - x, int(rows[-1]) + beyond - y
