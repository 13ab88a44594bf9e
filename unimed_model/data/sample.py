"""One training or evaluation example of any dataset, and the sequence of them that a reader returns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, overload

from unimed_model.data.boxes import Box
from unimed_model.data.findings import Findings
from unimed_model.data.images import ImageSource

if TYPE_CHECKING:
    from PIL.Image import Image

TASKS = ("QA", "VQA", "RG", "REC", "REG", "CLS")
"""Question answering, visual question answering, report generation, referring expression comprehension and
generation, classification: the paper's six tasks, in the order of its tables."""

IMAGE_TASKS = ("VQA", "REC", "REG", "RG", "CLS")
"""Tasks that own a vision-level task token, in the order of the released code. QA never sees an image."""

IDENTIFIERS: Mapping[str, str] = MappingProxyType(
    {"QA": "qa", "VQA": "vqa", "RG": "caption", "REC": "refer", "REG": "identify", "CLS": "cls"}
)
"""Task -> the word that stands in brackets before an instruction (Table 1)."""


def frozen(value: Any) -> Any:
    """Return a value as JSON has it with tuples for its lists, at every depth."""
    if isinstance(value, list | tuple):
        return tuple(frozen(item) for item in value)
    if isinstance(value, dict):
        return {key: frozen(item) for key, item in value.items()}
    return value


@dataclass(frozen=True, slots=True)
class Sample:
    """One example. It can be pickled, and so be sent to the workers of a `DataLoader`.

    Attributes:
        dataset: name of the dataset, as in `DatasetSource.name`.
        task: one of `TASKS`.
        split: the split that was asked for.
        sample_id: unique within dataset and split.
        image_id: shared by all samples of one image; None for text.
        patient_id: where the files tell; else None.
        instruction: the fixed evaluation instruction, without task identifier and image tags.
        answer: the target text.
        boxes: `(x1, y1, x2, y2)` in hundredths of width and height, 0..100; empty where there are none.
        meta: what else the files tell. `templates` names the pool of training instructions (absent where
            there is only the fixed one) and `subject` is the text that fills their slot: the question, the
            object's name, or the box text. `profile` names the prompt profile that wrote instruction and answer.
        image_source: how to open the image; None for text.
        restricted: whether the data's licence forbids passing its text on: such text is kept out of everything that
            is written (``unimed_model.data.privacy``).
    """

    dataset: str
    task: str
    split: str
    sample_id: str
    image_id: str | None
    patient_id: str | None
    instruction: str
    answer: str
    boxes: tuple[Box, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)
    image_source: ImageSource | None = None
    restricted: bool = False

    @property
    def image(self) -> Image | None:
        """The picture as an RGB PIL image, opened anew at every access; None for text.

        Raises:
            UserError: the image file is missing, truncated or unreadable; names the file.
        """
        return None if self.image_source is None else self.image_source.open()


class Samples(Sequence[Sample]):
    """What a reader returns: the samples in file order, and what it found wrong.

    Attributes:
        findings: kind of problem -> how often, where first, and whether records were left out for it.
    """

    def __init__(self, samples: Iterable[Sample], findings: Findings | None = None):
        self._samples: Sequence[Sample] = tuple(samples)
        self.findings = findings or Findings()

    @property
    def skipped(self) -> dict[str, int]:
        """Reason -> number of records left out for it; empty when nothing was."""
        return self.findings.left_out()

    def __len__(self) -> int:
        return len(self._samples)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | Sequence[Sample]:
        return self._samples[index]

    def __repr__(self) -> str:
        return f"Samples({len(self)} samples, skipped={self.skipped})"
