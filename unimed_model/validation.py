"""The loss on samples that are not trained on, while training goes on."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from .data import DatasetSource, Sample, open_source
from .data.collator import Collator
from .data.layouts import LAYOUTS
from .data.sources import skipping
from .errors import AbsentError, UserError
from .settings import ValidationSettings
from .step_lines import StepLines, step_of_json

VALIDATION_LOG = "validation.jsonl"


class Validation:
    """Held-out samples of several datasets, and the file that their losses go to.

    Args:
        samples: dataset -> samples.
        collator: samples to tensors.
        batch_size: samples per batch.
    """

    def __init__(self, samples: Mapping[str, Sequence[Sample]], collator: Collator, batch_size: int) -> None:
        self.samples = dict(samples)
        self.collator = collator
        self.batch_size = batch_size

    @torch.no_grad()
    def losses(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """Return dataset -> mean loss over its answer tokens; the model is left in training mode."""
        model.eval()
        try:
            return {name: self._loss(model, samples, device) for name, samples in self.samples.items()}
        finally:
            model.train()

    def _loss(self, model: nn.Module, samples: Sequence[Sample], device: torch.device) -> float:
        summed, tokens = 0.0, 0
        for start in range(0, len(samples), self.batch_size):
            batch = self.collator(samples[start : start + self.batch_size])
            count = int((batch["labels"][:, 1:] != -100).sum())
            summed += model(**{key: value.to(device) for key, value in batch.items()}).loss.item() * count
            tokens += count
        return summed / tokens


def held_out(
    sources: Sequence[DatasetSource], settings: ValidationSettings, skip_missing: bool
) -> dict[str, list[Sample]]:
    """Return dataset -> held-out samples, spread evenly over the split, of the datasets that have the split.

    Raises:
        UserError: no dataset has it, or it cannot be read.
    """
    found: dict[str, list[Sample]] = {}
    for source in sources:
        samples = _split(source, settings.split, skip_missing)
        if samples:
            places = np.linspace(0, len(samples) - 1, min(settings.samples, len(samples))).round().astype(int)
            found[source.name] = [samples[place] for place in places]
    if not found:
        raise UserError(
            f"validation.every is set, but no dataset has samples in a split {settings.split!r}; set validation.split "
            "or validation.every=null."
        )
    return found


def _split(source: DatasetSource, split: str, skip_missing: bool) -> Sequence[Sample]:
    """The samples of a split; none where the layout or the files have no such split."""
    layout = LAYOUTS[source.layout]
    if split not in layout.splits:
        return ()
    try:
        return open_source(skipping(source) if skip_missing else source, split)
    except AbsentError:
        return ()


def append_validation(folder: Path, step: int, losses: Mapping[str, float]) -> None:
    """Add a line to the run's ``validation.jsonl``: step, mean over datasets, and loss by dataset."""
    mean = sum(losses.values()) / len(losses)
    lines = StepLines(folder / VALIDATION_LOG, step_of_json)
    try:
        lines.append(json.dumps({"step": step, "loss": mean, "datasets": dict(losses)}) + "\n")
    finally:
        lines.close()


def rewind_validation(folder: Path, step: int) -> None:
    """Drop the lines beyond a step, which a run that was resumed there writes again."""
    StepLines(folder / VALIDATION_LOG, step_of_json).rewind(step)
