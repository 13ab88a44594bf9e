"""The learning rate over a run: linear warm-up, then a cosine down to a floor."""

import math
from collections.abc import Callable, Iterable

from .settings import TrainingSettings


def learning_rate_factor(training: TrainingSettings) -> Callable[[int], float]:
    """Return the function from a step, counted from 0, to its learning rate over the peak.

    The warm-up is a line from its start to the peak, which the step after it would have. The cosine that follows
    spans the steps after the warm-up, so that it begins at the peak; or all steps, as in the released code, so that it
    begins a little below (9.76e-6 of 1e-5 there). Either way it would reach the floor at the step after the last.

    Args:
        training: steps and rates.
    """
    floor = training.floor_learning_rate / training.peak_learning_rate
    start = training.warmup_start_learning_rate / training.peak_learning_rate
    skipped = training.warmup_steps if training.cosine == "after_warmup" else 0

    def factor(step: int) -> float:
        if step < training.warmup_steps:
            return start + (1 - start) * step / training.warmup_steps
        progress = (step - skipped) / max(1, training.steps - skipped)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        return cosine * (1 - floor) + floor

    return factor


def learning_rates(training: TrainingSettings, steps: Iterable[int]) -> list[float]:
    """Return the learning rate at each of the steps, counted from 0."""
    factor = learning_rate_factor(training)
    return [training.peak_learning_rate * factor(step) for step in steps]
