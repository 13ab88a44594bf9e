"""Greedy answers, a batch at a time, in batches that memory has room for."""

from collections.abc import Callable, Iterator, Sequence

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from .data.sample import Sample
from .errors import UserError
from .modeling import UniMedForConditionalGeneration
from .processing import Turn, UniMedProcessor

LONGEST_ANSWER = 100
"""Tokens after which an answer is cut, as released."""


class Answerer:
    """Answers samples with one model; what it learned about memory holds for all that follows.

    Nothing of a batch outlives it but its texts: images are opened for their batch, and ``generate`` returns token
    ids without scores or logits.

    Args:
        model: in evaluation mode.
        processor: its processor; its profile writes the instructions.
        batch_size: samples answered at once, to begin with; halved as often as memory is short.
        say: is told, in one sentence, when samples were answered in smaller batches than asked for.
    """

    def __init__(
        self,
        model: UniMedForConditionalGeneration,
        processor: UniMedProcessor,
        batch_size: int,
        say: Callable[[str], None],
    ) -> None:
        self.model = model
        self.processor = processor
        self.batch_size = batch_size
        self._say = say

    def answers(self, samples: Sequence[Sample]) -> Iterator[list[str]]:
        """Yield the answers of one batch after the other, blanks around them removed, in the order of the samples.

        Raises:
            UserError: memory is too short for a single sample; or a sample that the processor refuses.
        """
        start, asked = 0, self.batch_size
        while start < len(samples):
            chosen = samples[start : start + self.batch_size]
            answered = self._attempt(chosen)
            if answered is None:
                self._halve(chosen)
                continue
            if self.batch_size < asked:
                now = "1 is" if self.batch_size == 1 else f"{self.batch_size} are"
                self._say(f"Memory has no room for {asked} samples at once; {now} answered at once from here on.")
                asked = self.batch_size
            yield answered
            start += len(chosen)

    def _attempt(self, samples: Sequence[Sample]) -> list[str] | None:
        """Answer a batch; None where memory is too short for it."""
        try:
            return self._answered(samples)
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
        # only here, after the exception with its frames is gone, are the batch's tensors free
        clear_device_cache(garbage_collection=True)
        return None

    def _halve(self, samples: Sequence[Sample]) -> None:
        if len(samples) == 1:
            raise UserError(
                f"Memory is too short to answer {samples[0].dataset}/{samples[0].sample_id}, even by itself; "
                "end what else is running, or use a machine with more memory."
            )
        self.batch_size = len(samples) // 2

    @torch.inference_mode()
    def _answered(self, samples: Sequence[Sample]) -> list[str]:
        written = [self.processor.prompts.for_evaluation(sample) for sample in samples]
        batch = self.processor.generation_batch([Turn.of(sample) for sample in written])
        batch = {key: value.to(self.model.device) for key, value in batch.items()}
        tokens = self.model.generate(
            **batch, max_new_tokens=LONGEST_ANSWER, do_sample=False, num_beams=1, return_dict_in_generate=False
        )
        new = tokens[:, batch["input_ids"].shape[1] :]
        return [text.strip() for text in self.processor.tokenizer.batch_decode(new, skip_special_tokens=True)]


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or bool(should_reduce_batch_size(error))
