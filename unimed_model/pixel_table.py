"""The plain image processors of transformers, bit for bit, in a sixth of their time.

A processor that resizes with Pillow to a fixed size and then treats every value by itself makes one number of each of
the 256 levels of a channel. It is asked once for these numbers; pictures are resized and their levels looked up. Its
own way makes an array of the whole picture, an image of that again, and then computes in float64.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from transformers.image_processing_backends import PilBackend

Opener = Callable[[], Image.Image]
"""Gives an RGB picture."""

_PLAIN = (
    "__call__",
    "preprocess",
    "_preprocess_image_like_inputs",
    "_preprocess",
    "process_image",
    "resize",
    "rescale",
    "normalize",
)
"""What a processor must have as it comes, for its results to be known from a table."""


@dataclass(frozen=True)
class PixelTable:
    """What an image processor makes of pictures.

    Attributes:
        size: (width, height) of its results.
        resample: Pillow's filter.
        values: (3, 256), of every level of every channel.
    """

    size: tuple[int, int]
    resample: Image.Resampling
    values: NDArray[np.float32]

    @classmethod
    def of(cls, processor: Any) -> "PixelTable | None":
        """Return the table of a processor; None for one that does anything else.

        Args:
            processor: any transformers image processor.

        Raises:
            ValueError: a processor that can process nothing, such as one with two means for three channels.
        """
        if not _treats_values_by_themselves(processor):
            return None
        levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
        made = processor(Image.fromarray(levels), do_resize=False, return_tensors="np")["pixel_values"][0]
        values = np.asarray(made, dtype=np.float32).reshape(3, 256)
        size = dict(processor.size)
        return cls((size["width"], size["height"]), Image.Resampling(processor.resample), values)

    def pixels(self, pictures: Sequence[Opener]) -> NDArray[np.float32]:
        """Return the pixels of RGB pictures, (pictures, 3, height, width).

        Each is opened, resized and let go before the next: memory that stays warm is much of the speed.
        """
        levels = [self._levels(opener()) for opener in pictures]
        width, height = self.size
        pixels = np.empty((len(levels), 3, height, width), np.float32)
        for planes, results in zip(levels, pixels, strict=True):
            for values, plane, result in zip(self.values, planes, results, strict=True):
                values.take(plane, mode="clip", out=result)
        return pixels

    def _levels(self, picture: Image.Image) -> NDArray[np.uint8]:
        return np.ascontiguousarray(np.asarray(picture.resize(self.size, self.resample)).transpose(2, 0, 1))


def _treats_values_by_themselves(processor: Any) -> bool:
    if not isinstance(processor, PilBackend):
        return False
    plain = all(getattr(type(processor), name) is getattr(PilBackend, name) for name in _PLAIN)
    moves = processor.do_center_crop or processor.do_pad or not processor.do_resize
    fixed = set(dict(processor.size)) == {"height", "width"} and isinstance(processor.resample, int)
    return plain and not moves and fixed
