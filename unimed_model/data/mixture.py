"""Batches of one dataset each, datasets drawn in proportion to their size (Section 4.1 of the paper)."""

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from unimed_model.data.sample import Sample, Samples
from unimed_model.errors import UserError
from unimed_model.prompts import PAPER, PromptProfile


@dataclass(frozen=True)
class Draw:
    """One drawn sample: where it stands, and the seed that picks its instruction template."""

    dataset: str
    index: int
    seed: int


class Mixture:
    """A batch sampler and its map-style dataset in one: iterate for batches of draws, index by a draw.

    Each step draws one dataset with probability proportional to its number of samples, and takes that dataset's
    next samples in an order shuffled anew whenever it is used up. The sequence depends on the seed alone, and is the
    same under every profile.

    Args:
        datasets: name -> samples.
        batch_size: samples per batch.
        steps: number of batches.
        seed: of datasets, orders and templates.
        profile: how samples are written; that of the processor they go to.

    Raises:
        UserError: a dataset without samples.
    """

    def __init__(
        self,
        datasets: Mapping[str, Samples],
        batch_size: int,
        steps: int,
        seed: int,
        profile: PromptProfile = PAPER,
    ) -> None:
        empty = [name for name, samples in datasets.items() if not samples]
        if empty:
            raise UserError(f"The dataset {empty[0]} has no training samples.")
        self.datasets = dict(datasets)
        self.batch_size = batch_size
        self.steps = steps
        self.seed = seed
        self.profile = profile

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[Draw]]:
        rng = random.Random(self.seed)
        orders = {name: _endless_order(len(samples), rng) for name, samples in self.datasets.items()}
        names = list(self.datasets)
        sizes = [len(samples) for samples in self.datasets.values()]
        for _ in range(self.steps):
            name = rng.choices(names, sizes)[0]
            yield [Draw(name, next(orders[name]), rng.getrandbits(32)) for _ in range(self.batch_size)]

    def __getitem__(self, draw: Draw) -> Sample:
        """Return a drawn sample as the profile writes it, its instruction drawn from the dataset's pool."""
        return self.profile.for_training(self.datasets[draw.dataset][draw.index], random.Random(draw.seed))

    def realised(self) -> dict[str, int]:
        """Return dataset -> number of samples that all steps draw."""
        counts = Counter(batch[0].dataset for batch in self)
        return {name: counts[name] * self.batch_size for name in self.datasets}


def _endless_order(count: int, rng: random.Random) -> Iterator[int]:
    order = list(range(count))
    while True:
        rng.shuffle(order)
        yield from order
