"""Samples become batches of tensors."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from unimed_model.data.sample import Sample

if TYPE_CHECKING:
    from unimed_model.feature_cache import FeatureCache
    from unimed_model.processing import UniMedProcessor


class Collator:
    """Turns samples into a training batch: prompt, image and labels.

    Answers and boxes are written in the format of the processor's profile. An instruction that a ``Mixture`` drew is
    kept; a sample as a reader gives it is asked its pool's fixed instruction.

    Args:
        processor: owns prompt, tokens and pixels.
        cache: images whose tokens it holds are not opened, and ``cache.complete`` must see every batch before the
            model does.
    """

    def __init__(self, processor: "UniMedProcessor", cache: "FeatureCache | None" = None) -> None:
        self.processor = processor
        self.cache = cache

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """Return the processor's training batch of samples (see ``UniMedProcessor.training_batch``)."""
        from unimed_model.processing import Turn

        profile = self.processor.prompts
        turns = [Turn.of(profile.for_evaluation(sample)) for sample in samples]
        batch = dict(self.processor.training_batch(turns, pixels=self.cache is None))
        sources = [turn.source for turn in turns if turn.source is not None]
        if self.cache is None or not sources:
            return batch
        return batch | self.cache.look_up(sources, self.processor)
