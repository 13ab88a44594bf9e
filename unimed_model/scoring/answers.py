"""What is scored: an answer beside what was right, and the names of the two ways of scoring it."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

FLAVOURS = ("paper", "released")
"""`paper`: the equations of Appendix D. `released`: what the published evaluation scripts compute."""

PRIMARY: Mapping[str, str] = MappingProxyType(
    {"QA": "accuracy", "VQA": "bleu_1", "RG": "bleu_1", "REC": "iou", "REG": "bleu_1", "CLS": "accuracy"}
)
"""Task -> the metric by which Tables 2 and 5 report it and baselines are compared."""


@dataclass(frozen=True)
class Answer:
    """One answer to one sample.

    Attributes:
        id: unique within its dataset.
        dataset: name of the dataset.
        task: one of QA, VQA, RG, REC, REG, CLS.
        prediction: what the model wrote.
        reference: what was right.
        image_id: shared by all samples of one image, which the bootstrap draws together; None: a sample by itself.
        answer_type: OPEN or CLOSED, for VQA; None: closed when the reference is yes or no.
        box_pixels: the un-quantised box `(x, y, width, height)` in pixels, for REC.
        image_size: `(width, height)` of the original image in pixels, for REC.
    """

    id: str
    dataset: str
    task: str
    prediction: str
    reference: str
    image_id: str | None = None
    answer_type: str | None = None
    box_pixels: tuple[float, ...] | None = None
    image_size: tuple[int, int] | None = None

    @property
    def closed(self) -> bool:
        """Whether the question had a closed set of answers, by its annotation or else by its reference."""
        if self.answer_type is None:
            return self.reference.strip().lower() in ("yes", "no")
        return self.answer_type.upper() == "CLOSED"

    @property
    def cluster(self) -> str:
        """What the bootstrap draws together with this answer: its image, or it alone."""
        return by_itself(self.id) if self.image_id is None else self.image_id


def by_itself(sample: str) -> str:
    """Return the cluster of a sample, by its id, that belongs to no image."""
    return f"sample {sample}"
