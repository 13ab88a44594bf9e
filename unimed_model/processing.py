"""UniMedProcessor: owns the prompt's tokens, the labels and the pixels (Section 3.2.3 and Appendix C of the paper)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from PIL import Image
from tokenizers import AddedToken
from torch import Tensor
from transformers import AutoProcessor, ProcessorMixin

from .configuration import IMAGE_TASKS, UniMedConfig
from .data.images import ImageSource
from .data.sample import Sample
from .errors import UserError
from .pixel_table import Opener, PixelTable
from .pixels import Picture, as_rgb
from .prompts import PromptProfile, Use, profile_named, prompt_pieces

__all__ = ["IGNORED", "Turn", "UniMedProcessor", "prompt_pieces"]

IGNORED = -100
"""Label of positions that take no loss."""

_CONTENT = "UNIMED CONTENT"
"""Stands for the user's turn while a chat template is taken apart."""


@dataclass(frozen=True)
class Turn:
    """One instruction to the model: its task, the image if there is one, and the answer when it is known.

    Attributes:
        task: one of ``TASKS``.
        instruction: without identifier, as the processor's profile writes it.
        image: a PIL image of any mode, or an array that ``as_rgb`` takes.
        answer: the target; None where it is not known.
        origin: dataset and sample, for messages.
        source: where the image is, instead of `image`: it is opened when its pixels are made, and then let go.
    """

    task: str
    instruction: str
    image: Picture | None = None
    answer: str | None = None
    origin: str = "the sample"
    source: ImageSource | None = None

    @property
    def has_image(self) -> bool:
        """Whether the prompt has an image."""
        return self.image is not None or self.source is not None

    def picture(self) -> Image.Image:
        """Return the image in RGB, opened if need be.

        Raises:
            UserError: it cannot be used.
        """
        if self.source is not None:
            return self.source.open()
        assert self.image is not None
        return as_rgb(self.image, f"The image of {self.origin}")

    @classmethod
    def of(cls, sample: Sample) -> "Turn":
        """Return the turn of a sample that a profile has written (``for_training`` or ``for_evaluation``)."""
        origin = f"{sample.dataset}/{sample.sample_id}"
        return cls(sample.task, sample.instruction, None, sample.answer, origin, sample.image_source)


class UniMedProcessor(ProcessorMixin):
    """Turns (task, instruction, image, answer) into the tensors that the model reads.

    The prompt is ``[INST] <Img>…</Img> [vqa] question [/INST]``, the image part absent for text alone; a profile says
    how many spaces and begin tokens there are, or puts the LLM's chat template around it. Pieces on either side of the
    image are tokenised by themselves, and so is the answer; the loss is taken on the answer and the tokenizer's end
    token. Text from outside never becomes a control token, however it is spelled.

    Args:
        image_processor: any transformers image processor that gives ``pixel_values`` (images, 3, height, width).
        tokenizer: tokenizer of the LLM; the image placeholder and a padding token are added where it has none.
        image_tokens: visual tokens per image after the connector.
        image_token: the placeholder's text. Its id may lie outside the LLM's vocabulary.
        profile: name of a ``PromptProfile``.
        identifiers: text-level task identifiers such as ``[vqa]``.
        max_answer_tokens: tokens, the end token included, after which an answer is cut. The profile says whether the
            end token survives.
        context: longest sequence that the LLM reads, in tokens; None: no limit.

    Raises:
        UserError: a profile that does not exist, or that needs what the tokenizer lacks.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        image_tokens: int = 64,
        image_token: str = "<image>",
        profile: str = "paper",
        identifiers: bool = True,
        max_answer_tokens: int = 1024,
        context: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_processor, tokenizer, **kwargs)
        if max_answer_tokens < 1:
            raise UserError(f"max_answer_tokens must be at least 1, not {max_answer_tokens}.")
        self.image_tokens = image_tokens
        self.image_token = image_token
        self.profile = profile
        self.identifiers = identifiers
        self.max_answer_tokens = max_answer_tokens
        self.context = context
        self.prompts = profile_named(profile, identifiers)
        tokenizer.add_tokens([AddedToken(image_token, special=True, normalized=False)], special_tokens=True)
        self.image_token_id: int = tokenizer.convert_tokens_to_ids(image_token)
        _require_ends(tokenizer, self.prompts)
        _choose_padding(tokenizer, self.prompts)
        added = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._special = frozenset(added.union(tokenizer.all_special_ids))
        ends = (tokenizer.special_tokens_map.get(name) for name in ("bos_token", "eos_token"))
        self._reserved = frozenset(tokenizer.convert_tokens_to_ids(t) for t in (image_token, *ends) if t)
        self._frame = _chat_frame(tokenizer) if self.prompts.chat else ("", "")

    def __call__(
        self, images: Picture | Sequence[Picture | None] | None = None, text: str | Sequence[str] = "", *, task: str
    ) -> dict[str, Tensor]:
        """Return what ``generate`` reads, for one question or several of one task.

        Args:
            images: the picture of each question, or None where it has none.
            text: question or questions, without identifier.
            task: one of ``TASKS``.

        Raises:
            UserError: another number of images than of questions; else as ``generation_batch``.
        """
        questions = [text] if isinstance(text, str) else list(text)
        pictures: list[Any] = list(images) if isinstance(images, list | tuple) else [images] * len(questions)
        if len(pictures) != len(questions):
            raise UserError(f"There are {len(pictures)} images for {len(questions)} questions.")
        return self.generation_batch([Turn(task, q, p) for q, p in zip(questions, pictures, strict=True)])

    def prompt_ids(self, turn: Turn, use: Use = "training") -> list[int]:
        """Token ids of a turn's prompt, from the begin token to ``[/INST]`` or the end of the chat template.

        Args:
            turn: what is asked.
            use: what the prompt is for; the released code writes it differently for the two.

        Raises:
            UserError: an unknown task.
        """
        before, after = prompt_pieces(turn.task, turn.instruction, turn.has_image, self.prompts, use)
        opening, closing = self._frame
        if not turn.has_image:
            ids = self._framed(opening, after, closing, turn.origin)
        else:
            placeholders = [self.image_token_id] * self.image_tokens
            opened = self._framed(opening, before, "", turn.origin)
            ids = [*opened, *placeholders, *self._framed("", after, closing, turn.origin)]
        begin = [self.tokenizer.bos_token_id] * self.prompts.begin_tokens[use]
        return begin + ids[: self.prompts.prompt_tokens]

    def answer_ids(self, answer: str, origin: str = "the sample") -> list[int]:
        """Token ids of an answer with the end token, at most ``max_answer_tokens``.

        The released code cuts an answer that is too long together with its end token, so that such an answer never
        teaches the model to stop; the other profiles keep the end token.

        Args:
            answer: the text.
            origin: dataset and sample, for messages.
        """
        ids = [*self._plain(answer, origin), self.tokenizer.eos_token_id]
        if len(ids) <= self.max_answer_tokens:
            return ids
        if self.prompts.end_survives:
            return [*ids[: self.max_answer_tokens - 1], ids[-1]]
        return ids[: self.max_answer_tokens]

    def training_batch(self, turns: Sequence[Turn], *, pixels: bool = True) -> dict[str, Tensor]:
        """Return a batch with labels, padded on the right.

        Args:
            turns: what is asked, with answers.
            pixels: whether to open the images and make pixels of them.

        Returns:
            ``input_ids``, ``attention_mask``, ``labels`` (batch, sequence); with images also ``pixel_values``
            (images, 3, height, width) and ``task_ids`` (images,).

        Raises:
            UserError: prompt and answer longer than the LLM's context, or an image that cannot be used.
        """
        prompts = [self.prompt_ids(turn, "training") for turn in turns]
        answers = [self.answer_ids(turn.answer or "", turn.origin) for turn in turns]
        for turn, prompt, answer in zip(turns, prompts, answers, strict=True):
            self._require_fit(turn, len(prompt), len(answer))
        rows = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
        labels = [[IGNORED] * len(p) + a for p, a in zip(prompts, answers, strict=True)]
        batch = self._padded(rows, left=False)
        batch["labels"] = _pad(labels, IGNORED, left=False)
        return batch | self._images(turns, pixels)

    def generation_batch(self, turns: Sequence[Turn]) -> dict[str, Tensor]:
        """Return a batch of prompts alone, padded on the left so that answers start at the same column.

        Raises:
            UserError: a prompt longer than the LLM's context, or an image that cannot be used.
        """
        prompts = [self.prompt_ids(turn, "evaluation") for turn in turns]
        for turn, prompt in zip(turns, prompts, strict=True):
            self._require_fit(turn, len(prompt), 0)
        return self._padded(prompts, left=True) | self._images(turns)

    def pixels(self, images: Sequence[Picture], names: Sequence[str] | None = None) -> Tensor:
        """Return images as normalised pixels, (images, 3, height, width) float32.

        Args:
            images: PIL images of any mode, or arrays that ``as_rgb`` takes.
            names: what messages call them; None: by their place.

        Raises:
            UserError: an image that cannot be used, or an image processor that gives another shape.
        """
        called = names or [f"Image {place} of the batch" for place in range(len(images))]
        return self._pixels([partial(as_rgb, image, name) for image, name in zip(images, called, strict=True)])

    def _pixels(self, pictures: Sequence[Opener]) -> Tensor:
        maker = type(self.image_processor).__name__
        try:
            table = PixelTable.of(self.image_processor)
            if table is not None:
                return torch.from_numpy(table.pixels(pictures))
            whole = [opener() for opener in pictures]
            pixels = self.image_processor(whole, return_tensors="pt")["pixel_values"]
        except ValueError as error:
            raise UserError(f"{maker} makes no pixels of these images ({error}).") from error
        if pixels.ndim != 4 or pixels.shape[:2] != (len(whole), 3):
            raise UserError(
                f"{maker} gives pixels of shape {tuple(pixels.shape)} for {len(whole)} images; "
                "(images, 3, height, width) is needed."
            )
        return pixels.to(torch.float32)

    def _images(self, turns: Sequence[Turn], pixels: bool = True) -> dict[str, Tensor]:
        seen = [turn for turn in turns if turn.has_image]
        if not seen:
            return {}
        for turn in seen:
            if turn.task not in IMAGE_TASKS:
                raise UserError(f"Task {turn.task} has no images in Uni-Med; image tasks are {', '.join(IMAGE_TASKS)}.")
        tasks = {"task_ids": torch.tensor([IMAGE_TASKS.index(turn.task) for turn in seen])}
        return {"pixel_values": self._pixels([turn.picture for turn in seen])} | tasks if pixels else tasks

    def _require_fit(self, turn: Turn, prompt: int, answer: int) -> None:
        if self.context is None or prompt + answer <= self.context:
            return
        if prompt > self.context:
            raise UserError(
                f"The prompt of {turn.origin} has {prompt} tokens, more than the LLM's context of {self.context}; "
                "shorten its instruction."
            )
        raise UserError(
            f"The prompt of {turn.origin} has {prompt} tokens and its answer {answer}, together more than the LLM's "
            f"context of {self.context}; lower max_answer_tokens or leave the sample out."
        )

    def _padded(self, rows: list[list[int]], *, left: bool) -> dict[str, Tensor]:
        return {
            "input_ids": _pad(rows, self.tokenizer.pad_token_id, left=left),
            "attention_mask": _pad([[1] * len(row) for row in rows], 0, left=left),
        }

    def _framed(self, before: str, text: str, after: str, origin: str) -> list[int]:
        """Tokens of a text inside parts of a chat template, whose control tokens are the only ones."""
        if not (before or after):
            return self._plain(text, origin)
        opening, whole, closing = (self._with_control(part) for part in (before, before + text + after, after))
        if self._control(whole) == self._control(opening) + self._control(closing):
            return whole
        # the text spells a control token: it is tokenised apart from the template
        return opening + self._plain(text, origin) + closing

    def _with_control(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=False)["input_ids"])

    def _control(self, ids: Sequence[int]) -> list[int]:
        return [number for number in ids if number in self._special]

    def _plain(self, text: str, origin: str) -> list[int]:
        ids = list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])
        control = self._reserved.intersection(ids)
        if control:
            token = self.tokenizer.convert_ids_to_tokens(min(control))
            raise UserError(
                f"The tokenizer makes its control token {token!r} of ordinary text, which {origin} has; take it out."
            )
        return ids


def _choose_padding(tokenizer: Any, profile: PromptProfile) -> None:
    if profile.padding is not None:
        if profile.padding not in tokenizer.get_vocab():
            raise UserError(
                f"The prompt profile {profile.name} pads with the piece {profile.padding!r}, which LLaMA's vocabulary "
                "has and this tokenizer's has not; use profile=paper or profile=chat."
            )
        tokenizer.pad_token = profile.padding
    elif "pad_token" not in tokenizer.special_tokens_map:
        tokenizer.pad_token = tokenizer.eos_token  # masked and without loss, so that any token would do


def _require_ends(tokenizer: Any, profile: PromptProfile) -> None:
    needed = {"eos_token": "end token"}
    if any(profile.begin_tokens.values()):
        needed["bos_token"] = "begin token"
    for key, what in needed.items():
        if key not in tokenizer.special_tokens_map:
            raise UserError(f"The tokenizer has no {what}, which the prompt profile {profile.name} needs.")


def _chat_frame(tokenizer: Any) -> tuple[str, str]:
    """Return what the LLM's chat template puts before and after the content of a first user's turn."""
    if not tokenizer.chat_template:
        raise UserError("The LLM's tokenizer has no chat template, which profile=chat needs; use profile=paper.")
    from jinja2 import TemplateError

    turn = [{"role": "user", "content": _CONTENT}]
    try:
        text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    except (TemplateError, ValueError) as error:
        raise UserError(
            f"The LLM's chat template refuses a single user's turn ({error}); use profile=paper."
        ) from error
    before, *rest = text.split(_CONTENT)
    if len(rest) != 1:
        raise UserError("The LLM's chat template does not write a user's turn exactly once; use profile=paper.")
    return before, rest[0]


def _pad(rows: list[list[int]], value: int, *, left: bool) -> Tensor:
    longest = max(len(row) for row in rows)
    padded = [[value] * (longest - len(row)) + row if left else row + [value] * (longest - len(row)) for row in rows]
    return torch.tensor(padded)


AutoProcessor.register(UniMedConfig, UniMedProcessor)
