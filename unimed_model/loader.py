"""A mixture's batches as a torch loader, each with the datasets that its samples are of."""

from collections import Counter
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from .data.collator import Collator
from .data.mixture import Draw, Mixture
from .data.sample import Sample
from .stopping import deaf_worker

DATASETS = "datasets"
"""Key of a batch: dataset -> number of samples."""


def training_loader(mixture: Mixture, collator: Collator, workers: int) -> DataLoader:
    """Return batches as the mixture draws them.

    Args:
        mixture: batch sampler and dataset.
        collator: samples to tensors.
        workers: processes that open images; 0: this one does.
    """
    return DataLoader(
        _Named(mixture),
        batch_sampler=mixture,
        collate_fn=_NamedCollator(collator),
        num_workers=workers,
        worker_init_fn=deaf_worker if workers else None,
        # its own generator: the loader would draw from torch's, at another place in a run that was resumed
        generator=torch.Generator().manual_seed(mixture.seed),
    )


class _Named(Dataset):
    """A mixture as a torch dataset whose items know the dataset they were drawn from."""

    def __init__(self, mixture: Mixture) -> None:
        self.mixture = mixture

    def __len__(self) -> int:
        return sum(len(samples) for samples in self.mixture.datasets.values())

    def __getitem__(self, draw: Draw) -> tuple[str, Sample]:
        return draw.dataset, self.mixture[draw]


class _NamedCollator:
    def __init__(self, collator: Collator) -> None:
        self.collator = collator

    def __call__(self, named: list[tuple[str, Sample]]) -> dict[str, Any]:
        batch: dict[str, Any] = self.collator([sample for _, sample in named])
        return batch | {DATASETS: Counter(name for name, _ in named)}
