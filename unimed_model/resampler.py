"""The resampler: fewer, wider visual tokens before the connector (eq. 7). It has no parameters."""

from torch import Tensor, nn


class ProjectionResampler(nn.Module):
    """Concatenate ``rate`` consecutive visual tokens into one; the connector's first layer projects them.

    Tokens are in raster order, so one output token covers a horizontal strip of 1 x rate patches.
    """

    def __init__(self, rate: int) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, tokens: Tensor) -> Tensor:
        """Reshape (images, tokens, width) to (images, tokens / rate, width * rate).

        Raises:
            ValueError: the number of tokens is not a multiple of the rate.
        """
        images, count, width = tokens.shape
        if count % self.rate:
            raise ValueError(f"{count} visual tokens cannot be concatenated {self.rate} at a time")
        return tokens.reshape(images, count // self.rate, width * self.rate)
