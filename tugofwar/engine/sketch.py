"""CountSketch: a gradient hashed into few numbers whose inner products estimate those of the gradients."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tugofwar.engine.parts import Part
from tugofwar.errors import UserError

_GOLDEN = 0x9E3779B97F4A7C15


class CountSketch:
    """Hashes each part's gradient to at most ``dimension`` numbers: every scalar is added, with a random
    sign, to one random place. Inner products are unbiased; their standard error, as a share of the product of the
    norms, is ``sqrt((1 + c^2) / dimension)`` at cosine ``c``.

    Args:
        parts: all parts; their ``sketch_size`` is set. A part that is no larger is kept as it is.
        dimension: numbers per part.
        seed: of the hashes.

    Raises:
        UserError: a dimension below 1.
    """

    def __init__(self, parts: Sequence[Part], dimension: int, seed: int) -> None:
        if dimension < 1:
            raise UserError(f"A sketch has a positive number of dimensions, such as 65536; got {dimension}.")
        self._parts = list(parts)
        self._seed = seed
        for part in self._parts:
            part.sketch_size = min(part.size, dimension)
        self._hashes: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, number: int, gradient: Tensor) -> Tensor:
        """The sketch of part ``number``'s flat gradient, in float32 (float64 for float64 parameters)."""
        part = self._parts[number]
        assert part.sketch_size is not None
        wide = gradient.to(part.dtype)
        if part.sketch_size == part.size:
            return wide
        places, signs = (each.to(gradient.device) for each in self._hash(number))
        sketch = torch.zeros(part.sketch_size, dtype=part.dtype, device=gradient.device)
        return sketch.index_add_(0, places, wide * signs)

    @property
    def expected_error(self) -> float:
        """Standard error of a cosine near 0 between two sketched gradients; 0 where nothing is sketched."""
        sizes = [part.sketch_size for part in self._parts if part.sketch_size != part.size and part.sketch_size]
        return 1 / math.sqrt(min(sizes)) if sizes else 0.0

    def _hash(self, number: int) -> tuple[Tensor, Tensor]:
        """Place and sign of every scalar of a part: fixed by the seed, the same in every process."""
        if number not in self._hashes:
            part = self._parts[number]
            generator = torch.Generator().manual_seed((self._seed * _GOLDEN + number) % 2**63)
            places = torch.randint(part.sketch_size or 1, (part.size,), generator=generator, dtype=torch.int32)
            signs = torch.randint(2, (part.size,), generator=generator, dtype=torch.int8).mul_(2).sub_(1)
            self._hashes[number] = (places, signs)
        return self._hashes[number]
