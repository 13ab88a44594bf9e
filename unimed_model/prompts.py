"""How samples are written for the LLM: as the paper prints it, as the released code does, or as a chat.

Text alone; ``unimed_model.processing`` makes tokens of it. A profile first writes a sample (which instruction,
which box format, how much of the answer), then the prompt around the instruction.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from .closed import nearest
from .data import templates
from .data.boxes import box_text
from .data.sample import IDENTIFIERS, IMAGE_TASKS
from .errors import UserError

if TYPE_CHECKING:
    from .data.sample import Sample

Use = Literal["training", "evaluation"]
"""What a prompt is for; the released code writes it differently for the two."""

_NO_TASKS: frozenset[str] = frozenset()


@dataclass(frozen=True)
class PromptProfile:
    """One way of writing samples and prompts.

    Attributes:
        name: by which ``profile_named`` finds it.
        pools: pool -> instructions that training draws from.
        fixed: pool -> the instruction of evaluation.
        identifiers: text-level task identifiers such as ``[vqa]`` before the instruction (Table 1, Table 5).
        chat: the LLM's own chat template stands around the question, instead of ``[INST]`` and ``[/INST]``.
        braces: boxes are written ``{<x1><y1><x2><y2>}``.
        words: how many words are kept of answers, of what fills a slot and of QA instructions with their
            identifier; None: all.
        two_spaces: use -> tasks whose instruction is followed by two spaces instead of one.
        begin_tokens: use -> begin tokens before the prompt.
        prompt_tokens: tokens, begin tokens not counted, after which a prompt is clipped; None: it is not.
        end_survives: whether an answer that is cut to its largest number of tokens keeps the end token.
        padding: the piece that pads; None: the tokenizer's own padding token.
    """

    name: str
    pools: Mapping[str, tuple[str, ...]]
    fixed: Mapping[str, str]
    identifiers: bool = True
    chat: bool = False
    braces: bool = False
    words: int | None = None
    two_spaces: Mapping[Use, frozenset[str]] = field(
        default_factory=lambda: {"training": _NO_TASKS, "evaluation": _NO_TASKS}
    )
    begin_tokens: Mapping[Use, int] = field(default_factory=lambda: {"training": 1, "evaluation": 1})
    prompt_tokens: int | None = None
    end_survives: bool = True
    padding: str | None = None

    def for_training(self, sample: Sample, rng: random.Random) -> Sample:
        """Return a sample as training reads it: an instruction drawn from its pool, the answer in this format.

        What it returns names the profile instead of a pool in its ``meta``: its instruction stays the one that was
        drawn.

        Args:
            sample: as a reader gives it.
            rng: one choice is drawn from it where the sample has a pool.

        Raises:
            ValueError: another profile has written it already.
        """
        drawn = templates.training_instruction(sample, rng, self.pools, self._subject(sample))
        return self._written(sample, drawn)

    def for_evaluation(self, sample: Sample) -> Sample:
        """Return a sample as evaluation reads it: its pool's fixed instruction, the reference in this format.

        A sample without a pool keeps its instruction. Applied twice, it changes nothing more.

        Raises:
            ValueError: another profile has written it already.
        """
        pool = sample.meta.get("templates")
        if pool is None:
            return self._written(sample, sample.instruction)
        return self._written(sample, templates.evaluation_instruction(pool, self._subject(sample), self.fixed))

    def question(self, task: str, instruction: str) -> str:
        """Return an instruction after its task's identifier, if identifiers are on.

        Raises:
            UserError: an unknown task.
        """
        if task not in IDENTIFIERS:
            raise UserError(f"There is no task {task!r}; tasks are {', '.join(IDENTIFIERS)}.")
        return f"[{IDENTIFIERS[task]}] {instruction}" if self.identifiers else instruction

    def _written(self, sample: Sample, instruction: str) -> Sample:
        writer = sample.meta.get("profile", self.name)
        if writer != self.name:
            raise ValueError(
                f"{sample.dataset}/{sample.sample_id} was written by the prompt profile {writer!r} and cannot be "
                f"written again by {self.name!r}; give the mixture the processor's profile"
            )
        meta = {key: value for key, value in sample.meta.items() if key != "templates"} | {"profile": self.name}
        if sample.task == "QA":
            instruction = self._cut_after_identifier(instruction)
        return replace(sample, instruction=instruction, answer=self._answer(sample), meta=meta)

    def _subject(self, sample: Sample) -> str:
        if sample.task == "REG" and sample.boxes:
            return box_text(sample.boxes[0], self.braces)
        subject = str(sample.meta.get("subject", ""))
        return subject if sample.task == "QA" else self._cut(subject)

    def _answer(self, sample: Sample) -> str:
        if sample.task == "REC" and sample.boxes:
            return box_text(sample.boxes[0], self.braces)
        return self._cut(sample.answer)

    def _cut_after_identifier(self, instruction: str) -> str:
        # the released code cuts QA instructions with their identifier, which is then one of the 50 words
        question = self.question("QA", instruction)
        return self._cut(question)[len(question) - len(instruction) :]

    def _cut(self, text: str) -> str:
        return text if self.words is None else first_words(text, self.words)


def first_words(text: str, count: int) -> str:
    """Return the first words of a text as the released code cuts it.

    Runs of two or more blanks become one space; newlines at the end, then spaces on both sides, go; words are what
    spaces separate, so that a single newline or tab inside the text separates none.
    """
    tidy = re.sub(r"\s{2,}", " ", text).rstrip("\n").strip(" ")
    return " ".join(tidy.split(" ")[:count])


PAPER = PromptProfile(name="paper", pools=dict(templates.TRAINING), fixed=dict(templates.EVALUATION))
"""Appendix C and Section 3.2.3: one space, one begin token, no braces, nothing cut."""

RELEASED = PromptProfile(
    name="released",
    pools=dict(templates.RELEASED_TRAINING),
    fixed=dict(templates.RELEASED_EVALUATION),
    braces=True,
    words=50,
    two_spaces={"training": frozenset(IMAGE_TASKS), "evaluation": frozenset({"RG"})},
    begin_tokens={"training": 1, "evaluation": 2},
    prompt_tokens=3800,
    end_survives=False,
    padding="$$",
)
"""What the authors' code does. It clips training prompts with an image only; nothing else comes near 3,800 tokens
there, because its words are cut. It evaluates no QA, which is prompted here as the other tasks are."""

CHAT = replace(PAPER, name="chat", chat=True, begin_tokens={"training": 0, "evaluation": 0})
"""Appendix C's instructions in a user's turn of the LLM's own chat template, which brings all special tokens."""

PROFILES: Mapping[str, PromptProfile] = {profile.name: profile for profile in (PAPER, RELEASED, CHAT)}
"""Name -> profile."""


def profile_named(name: str, identifiers: bool = True) -> PromptProfile:
    """Return a profile, with or without text-level identifiers.

    Raises:
        UserError: an unknown name.
    """
    if name not in PROFILES:
        raise UserError(
            f"There is no prompt profile {name!r}; the nearest is {nearest(str(name), PROFILES)!r} "
            f"(all: {', '.join(PROFILES)})."
        )
    return replace(PROFILES[name], identifiers=identifiers)


def prompt_pieces(
    task: str, instruction: str, image: bool, profile: PromptProfile = PAPER, use: Use = "training"
) -> tuple[str, str]:
    """Return the prompt's text before and after the image; for text alone, nothing and the whole.

    Under a chat profile it is the content of the user's turn, without what the template puts around it.

    Args:
        task: one of ``TASKS``.
        instruction: as written by the profile, without identifier.
        image: whether the prompt has one.
        profile: how to write it.
        use: what it is for.

    Raises:
        UserError: an unknown task.
    """
    question = profile.question(task, instruction)
    opening = "" if profile.chat else "[INST] "
    closing = "" if profile.chat else (" " * (2 if task in profile.two_spaces[use] else 1)) + "[/INST]"
    if image:
        return f"{opening}<Img>", f"</Img> {question}{closing}"
    return "", f"{opening}{question}{closing}"
