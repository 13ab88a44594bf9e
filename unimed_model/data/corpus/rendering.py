"""A slice becomes a square picture: random size and place on a black canvas, so shape tells nothing."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .anatomy import Mask, Slice

LEAST_EXTENT = 0.6
LARGEST_EXTENT = 0.95
"""The brain's longer side fills between these fractions of the canvas, drawn anew for every picture."""
MARGIN = 3
"""Voxels kept around the brain when it is cut out of its slice."""


@dataclass(frozen=True)
class Placement:
    """How slice coordinates become canvas pixels: ``pixel = (voxel - corner) * scale + offset``.

    Attributes:
        scale: canvas pixels per voxel.
        corner: row and column of the first voxel that is drawn.
        offset: row and column of the canvas pixel it is drawn at.
        voxels: how many rows and columns of voxels are drawn.
        pixels: how many rows and columns of pixels they fill: ``voxels * scale``, rounded.
        side: side of the square canvas in pixels.
    """

    scale: float
    corner: tuple[int, int]
    offset: tuple[int, int]
    voxels: tuple[int, int]
    pixels: tuple[int, int]
    side: int

    def box(self, mask: Mask) -> tuple[float, float, float, float]:
        """Bounding box ``(x, y, width, height)`` in canvas pixels of a (rows, columns) mask."""
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        x = (columns[0] - self.corner[1]) * self.scale + self.offset[1]
        y = (rows[0] - self.corner[0]) * self.scale + self.offset[0]
        width = (columns[-1] - columns[0] + 1) * self.scale
        height = (rows[-1] - rows[0] + 1) * self.scale
        return (round(float(x), 2), round(float(y), 2), round(float(width), 2), round(float(height), 2))

    def mask(self, mask: Mask) -> NDArray[np.bool_]:
        """Draw a (rows, columns) mask as the picture was drawn: (side, side), True inside."""
        (top, left), (rows, columns), (height, width) = self.corner, self.voxels, self.pixels
        cut = np.ascontiguousarray(mask[top : top + rows, left : left + columns])
        drawn = Image.fromarray(cut).resize((width, height), Image.Resampling.NEAREST)
        canvas = np.zeros((self.side, self.side), dtype=np.bool_)
        y, x = self.offset
        canvas[y : y + height, x : x + width] = np.asarray(drawn)
        return canvas


def render(slice_: Slice, kind: str, size: int, rng: np.random.Generator) -> tuple[NDArray[np.uint8], Placement]:
    """Draw one picture of a slice.

    Args:
        slice_: the slice.
        kind: ``t1``, ``gray`` or ``white``: which volume is drawn.
        size: side of the square canvas in pixels.
        rng: source of size, place, brightness, contrast and noise.

    Returns:
        The picture, (size, size) uint8, and where the slice lies on it.
    """
    rows, columns = np.flatnonzero(slice_.brain.any(axis=1)), np.flatnonzero(slice_.brain.any(axis=0))
    top, left = max(rows[0] - MARGIN, 0), max(columns[0] - MARGIN, 0)
    cut = slice_.images[kind][top : rows[-1] + MARGIN + 1, left : columns[-1] + MARGIN + 1]
    scale = rng.uniform(LEAST_EXTENT, LARGEST_EXTENT) * size / max(cut.shape)
    height, width = (max(round(side * scale), 1) for side in cut.shape)
    brain = Image.fromarray(np.ascontiguousarray(cut)).resize((width, height), Image.Resampling.BICUBIC)
    y, x = int(rng.integers(0, size - height + 1)), int(rng.integers(0, size - width + 1))
    canvas = np.zeros((size, size), dtype=np.float32)
    canvas[y : y + height, x : x + width] = np.clip(np.asarray(brain), 0.0, 1.0)
    placement = Placement(scale, (int(top), int(left)), (y, x), (cut.shape[0], cut.shape[1]), (height, width), size)
    return _expose(canvas, rng), placement


def _expose(canvas: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Random brightness, contrast and noise, as two scanners would differ."""
    exposed = rng.uniform(0.7, 1.0) * canvas ** rng.uniform(0.8, 1.25)
    exposed = exposed + rng.normal(0.0, 0.02, canvas.shape)
    return np.clip(np.round(255 * exposed), 0, 255).astype(np.uint8)
