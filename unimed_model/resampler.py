"""The resampler: fewer visual tokens before the connector (eq. 7, Table 2b). It has no parameters."""

import torch
from torch import Tensor, nn

from .settings import ResamplerSettings


class Resampler(nn.Module):
    """Makes ``rate`` visual tokens into one: concatenated (``projection``), averaged, or their maximum.

    The released code concatenates consecutive tokens, a horizontal strip of 1 x rate patches, and pools blocks of
    2 x 2; eq. 7 says neither. Both shapes exist for all three kinds.

    Args:
        settings: kind, rate and shape.
        side: patches along a side of the image; tokens come in raster order.
    """

    def __init__(self, settings: ResamplerSettings, side: int) -> None:
        super().__init__()
        self.kind = settings.kind
        self.rate = settings.rate
        self.window = settings.window
        self.side = side

    def forward(self, tokens: Tensor) -> Tensor:
        """Resample (images, side * side, width) to (images, side * side / rate, width), times rate if concatenated.

        Raises:
            ValueError: another number of tokens.
        """
        images, count, width = tokens.shape
        if count != self.side**2:
            raise ValueError(f"the resampler is for {self.side} x {self.side} visual tokens, not {count}")
        if self.rate == 1:
            return tokens
        windows = self._windows(tokens)
        if self.kind == "projection":
            return windows.reshape(images, count // self.rate, width * self.rate)
        return windows.mean(dim=2) if self.kind == "average" else windows.amax(dim=2)

    def patches(self) -> Tensor:
        """Return the patches that each output token covers, (tokens, rate) indices in raster order."""
        return self._windows(torch.arange(self.side**2).reshape(1, -1, 1))[0, :, :, 0]

    def _windows(self, tokens: Tensor) -> Tensor:
        """Group (images, side * side, width) into (images, tokens, rate, width)."""
        images, count, width = tokens.shape
        rows, columns = self.window
        if rows == 1:
            return tokens.reshape(images, count // columns, columns, width)
        across = self.side // columns
        blocks = tokens.reshape(images, self.side // rows, rows, across, columns, width)
        return blocks.transpose(2, 3).reshape(images, count // self.rate, self.rate, width)
