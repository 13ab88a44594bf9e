"""Sizes of what is measured."""

from dataclasses import dataclass, replace

SAMPLES = 4
ROUTER = 64


@dataclass(frozen=True)
class Scale:
    """Sizes of the model and of a batch of ``SAMPLES`` samples.

    Attributes:
        inputs: width of the visual features.
        width: width of the language model.
        layers: depth of the language model, which is frozen.
        heads: its attention heads.
        experts: two-layer experts of the connector.
        visual: visual tokens per sample.
        text: text tokens per sample.
    """

    inputs: int
    width: int
    layers: int
    heads: int
    experts: int = 5
    visual: int = 16
    text: int = 96

    @property
    def parameters(self) -> int:
        """Scalars of the connector, which the gradient is taken of."""
        expert = (self.inputs + 1) * self.width + (self.width + 1) * self.width
        return self.experts * expert + (self.inputs + 1) * ROUTER + (ROUTER + 1) * self.experts

    @property
    def gradient_bytes(self) -> int:
        """Size of one gradient in float32."""
        return 4 * self.parameters

    def wider(self, times: int) -> "Scale":
        """The same connector with ``times`` the width, so about the square of it in parameters."""
        return replace(self, inputs=self.inputs * times, width=self.width * times, heads=self.heads * times)

    def shallow(self) -> "Scale":
        """The same connector under one layer of language model."""
        return replace(self, layers=1)


SCALES = {
    # The paper's proportions: 64 visual tokens a batch, a gradient of about 8 times the size of its factors.
    "paper": Scale(inputs=1056, width=768, layers=12, heads=12),
    "tiny": Scale(inputs=24, width=16, layers=1, heads=2, experts=2, visual=2, text=4),
}
