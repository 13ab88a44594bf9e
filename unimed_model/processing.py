"""UniMedProcessor: owns the prompt, the tokens and the pixels (Section 3.2.3 and Appendix C of the paper)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import ProcessorMixin

from .configuration import IMAGE_TASKS
from .data.sample import IDENTIFIERS
from .errors import UserError

IGNORED = -100
"""Label of positions that take no loss."""


@dataclass(frozen=True)
class Turn:
    """One instruction to the model: its task, the image if there is one, and the answer when it is known."""

    task: str
    instruction: str
    image: Image.Image | None = None
    answer: str | None = None


def prompt_pieces(task: str, instruction: str, image: bool) -> tuple[str, str]:
    """Return the prompt's text before and after the image; for text alone, nothing and the whole."""
    question = f"[{IDENTIFIERS[task]}] {instruction} [/INST]"
    return ("[INST] <Img>", f"</Img> {question}") if image else ("", f"[INST] {question}")


class UniMedProcessor(ProcessorMixin):
    """Turns (task, instruction, image, answer) into the tensors that the model reads.

    The prompt is ``[INST] <Img>…</Img> [vqa] question [/INST]``, the image part absent for text alone. Pieces
    on either side of the image are tokenised by themselves; the loss is taken on the answer and the end token.

    Args:
        image_processor: any transformers image processor that gives ``pixel_values``.
        tokenizer: tokenizer of the LLM, with a padding token and the image placeholder.
        image_tokens: visual tokens per image after the connector.
        image_token: the placeholder's text.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        image_tokens: int = 64,
        image_token: str = "<image>",
        **kwargs: Any,
    ) -> None:
        self.image_tokens = image_tokens
        self.image_token = image_token
        self.image_token_id = tokenizer.convert_tokens_to_ids(image_token)
        super().__init__(image_processor, tokenizer, **kwargs)

    def prompt_ids(self, turn: Turn) -> list[int]:
        """Token ids of a turn's prompt, from the begin token to ``[/INST]``."""
        before, after = prompt_pieces(turn.task, turn.instruction, turn.image is not None)
        placeholders = [] if turn.image is None else [self.image_token_id] * self.image_tokens
        return [self.tokenizer.bos_token_id, *self._tokens(before), *placeholders, *self._tokens(after)]

    def answer_ids(self, answer: str) -> list[int]:
        """Token ids of an answer with the end token."""
        return [*self._tokens(answer), self.tokenizer.eos_token_id]

    def training_batch(self, turns: Sequence[Turn]) -> dict[str, Tensor]:
        """Return a batch with labels, padded on the right.

        Returns:
            ``input_ids``, ``attention_mask``, ``labels`` (batch, sequence); with images also ``pixel_values``
            (images, 3, height, width) and ``task_ids`` (images,).
        """
        prompts = [self.prompt_ids(turn) for turn in turns]
        answers = [self.answer_ids(turn.answer or "") for turn in turns]
        rows = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
        labels = [[IGNORED] * len(p) + a for p, a in zip(prompts, answers, strict=True)]
        batch = self._padded(rows, left=False)
        batch["labels"] = _pad(labels, IGNORED, left=False)
        return batch | self._images(turns)

    def generation_batch(self, turns: Sequence[Turn]) -> dict[str, Tensor]:
        """Return a batch of prompts alone, padded on the left so that answers start at the same column."""
        return self._padded([self.prompt_ids(turn) for turn in turns], left=True) | self._images(turns)

    def pixels(self, images: Sequence[Image.Image]) -> Tensor:
        """Return images as normalised pixels, (images, 3, height, width) float32."""
        arrays = self.image_processor([image.convert("RGB") for image in images], return_tensors="np")
        return torch.from_numpy(np.asarray(arrays["pixel_values"], dtype=np.float32))

    def _images(self, turns: Sequence[Turn]) -> dict[str, Tensor]:
        seen = [turn for turn in turns if turn.image is not None]
        if not seen:
            return {}
        for turn in seen:
            if turn.task not in IMAGE_TASKS:
                raise UserError(f"Task {turn.task} has no images in Uni-Med; image tasks are {', '.join(IMAGE_TASKS)}.")
        task_ids = torch.tensor([IMAGE_TASKS.index(turn.task) for turn in seen])
        return {
            "pixel_values": self.pixels([turn.image for turn in seen if turn.image]),
            "task_ids": task_ids,
        }

    def _padded(self, rows: list[list[int]], *, left: bool) -> dict[str, Tensor]:
        return {
            "input_ids": _pad(rows, self.tokenizer.pad_token_id, left=left),
            "attention_mask": _pad([[1] * len(row) for row in rows], 0, left=left),
        }

    def _tokens(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]


def _pad(rows: list[list[int]], value: int, *, left: bool) -> Tensor:
    longest = max(len(row) for row in rows)
    padded = [[value] * (longest - len(row)) + row if left else row + [value] * (longest - len(row)) for row in rows]
    return torch.tensor(padded)
