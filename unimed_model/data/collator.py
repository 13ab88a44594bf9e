"""Samples become batches of tensors."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from unimed_model.data.sample import Sample

if TYPE_CHECKING:
    from unimed_model.processing import UniMedProcessor


class Collator:
    """Turns samples into a training batch: prompt, image and labels, and the dataset they are of.

    Args:
        processor: owns prompt, tokens and pixels.
    """

    def __init__(self, processor: "UniMedProcessor") -> None:
        self.processor = processor

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """Return the processor's training batch of samples (see ``UniMedProcessor.training_batch``)."""
        from unimed_model.processing import Turn

        turns = [Turn(s.task, s.instruction, s.image, s.answer) for s in samples]
        return dict(self.processor.training_batch(turns))
