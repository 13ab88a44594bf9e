"""Scores of one prediction each, and their means with intervals over images."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BOX = re.compile(r"\{?<(\d{1,3})><(\d{1,3})><(\d{1,3})><(\d{1,3})>\}?")
"""The paper's box text, with or without the released code's braces."""

Box = tuple[float, float, float, float]
Score = Callable[[str, str], float]
RESAMPLES = 2000


def exact_match(prediction: str, reference: str) -> float:
    """Return 1 when two answers are equal but for case and blanks around them, else 0."""
    return float(prediction.strip().lower() == reference.strip().lower())


def word_f1(prediction: str, reference: str) -> float:
    """Return the harmonic mean of precision and recall of words, clipped counts (eq. 16 to 18)."""
    candidate, wanted = prediction.lower().split(), reference.lower().split()
    common = sum((Counter(candidate) & Counter(wanted)).values())
    return 2 * common / (len(candidate) + len(wanted)) if common else 0.0


def parse_box(text: str) -> Box | None:
    """Return the box ``(x1, y1, x2, y2)`` that a whole answer spells; None when it spells none."""
    match = BOX.fullmatch(text.replace(" ", ""))
    if match is None:
        return None
    x1, y1, x2, y2 = (float(number) for number in match.groups())
    return (x1, y1, x2, y2)


def box_iou(first: Box, second: Box) -> float:
    """Return intersection over union of two boxes ``(x1, y1, x2, y2)`` (eq. 23); 0 for an empty one."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return width * height / (sum(areas) - width * height)


def text_iou(prediction: str, reference: str) -> float:
    """Return the IoU of two box texts; an answer that spells no box scores 0 and is counted as such."""
    predicted, wanted = parse_box(prediction), parse_box(reference)
    if wanted is None:
        raise ValueError("the reference is not a box")
    return 0.0 if predicted is None else box_iou(predicted, wanted)


METRICS: dict[str, dict[str, Score]] = {
    "QA": {"accuracy": exact_match},
    "VQA": {"accuracy": exact_match, "f1": word_f1},
    "RG": {"f1": word_f1},
    "REC": {"iou": text_iou},
    "REG": {"accuracy": exact_match, "f1": word_f1},
    "CLS": {"accuracy": exact_match},
}
"""Task -> its metrics, the first one being the one that baselines are compared by."""


@dataclass(frozen=True)
class Mean:
    """A mean with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def mean_by_image(scores: Sequence[float] | NDArray[np.float64], images: Sequence[str], seed: int = 0) -> Mean:
    """Return the mean of scores with a percentile bootstrap interval over images.

    Args:
        scores: one score per sample.
        images: the image of each sample; all samples of an image are drawn together.
        seed: of the bootstrap.

    Raises:
        ValueError: no scores.
    """
    if len(scores) == 0:
        raise ValueError("a mean needs at least one score")
    _, cluster = np.unique(np.asarray(images), return_inverse=True)
    sums = np.bincount(cluster, weights=np.asarray(scores, dtype=np.float64))
    counts = np.bincount(cluster)
    drawn = np.random.default_rng(seed).integers(0, len(sums), (RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Mean(float(np.mean(scores)), float(low), float(high))
