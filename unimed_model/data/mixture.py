"""Which samples every training step sees: datasets drawn by weight (Section 4.1 of the paper: by size).

The draw of a step depends on the seed and on the number of the step alone, and the order of a dataset on the seed, its
name and the epoch. So a position in the sequence is a few counters, and nothing is replayed to go on from it.
"""

import random
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

from unimed_model.data.proportions import by_ratios, by_size
from unimed_model.data.sample import Sample
from unimed_model.errors import UserError
from unimed_model.prompts import PAPER, PromptProfile


@dataclass(frozen=True, slots=True)
class Draw:
    """One drawn sample: where it stands, and the seed that picks its instruction template."""

    dataset: str
    index: int
    seed: int


class Mixture:
    """A batch sampler and its map-style dataset in one: iterate for batches of draws, index by a draw.

    Each step draws a dataset by weight, or one for every sample of the batch, and takes that dataset's next samples in
    an order shuffled anew for every epoch of it. The sequence depends on the seed and on names, sizes and weights of
    the datasets alone: not on their order, nor on the profile.

    Of several processes each draws the same batches of `world * batch_size` samples and takes its own part, so that
    together they see what one process sees whose batches are that large.

    Args:
        datasets: name -> samples.
        batch_size: samples per batch of this process.
        steps: number of batches of the whole run.
        seed: of datasets, orders and templates.
        profile: how samples are written; that of the processor they go to.
        weights: dataset -> ratio, names joined by `+` sharing one by size (see `proportions.by_ratios`); None: by size.
        temperature: without `weights`, n samples weigh `n ** (1 / temperature)`.
        batches: `homogeneous` (each of one dataset) or `mixed` (every sample draws its dataset).
        world: number of processes.
        rank: which of them this is, from 0.

    Raises:
        UserError: no datasets, one without samples, or weights that do not fit them.
    """

    def __init__(
        self,
        datasets: Mapping[str, Sequence[Sample]],
        batch_size: int,
        steps: int,
        seed: int,
        profile: PromptProfile = PAPER,
        *,
        weights: Mapping[str, float] | None = None,
        temperature: float = 1.0,
        batches: Literal["homogeneous", "mixed"] = "homogeneous",
        world: int = 1,
        rank: int = 0,
    ) -> None:
        sizes = {name: len(samples) for name, samples in datasets.items()}
        _require_samples(sizes)
        if batches not in ("homogeneous", "mixed"):
            raise UserError(f"The batches of a mixture are 'homogeneous' or 'mixed', not {batches!r}.")
        if batch_size < 1 or steps < 0:
            raise UserError(
                f"A mixture has batches of 1 sample or more and 0 steps or more, not {batch_size} and {steps}."
            )
        if not 0 <= rank < world:
            raise UserError(f"Of {world} processes none has the rank {rank}; ranks count from 0.")
        self.datasets = dict(datasets)
        self.batch_size = batch_size
        self.steps = steps
        self.seed = seed
        self.profile = profile
        self.weights = by_size(sizes, temperature) if weights is None else by_ratios(sizes, weights)
        self.batches = batches
        self.world = world
        self.rank = rank
        self._names = sorted(self.datasets)
        self._cumulated = list(accumulate(self.weights[name] for name in self._names))
        self._orders = {name: _Orders(name, size, seed) for name, size in sizes.items()}
        self._step, self._drawn = 0, Counter[str]()
        self._goes_on = False

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[Draw]]:
        """Yield the batches from the first one; after `load_state_dict`, once, from where the state was taken."""
        start, drawn = (self._step, self._drawn) if self._goes_on else (0, Counter[str]())
        self._goes_on = False
        first = self.rank * self.batch_size
        for step in range(start, self.steps):
            rng = self._generator(step)
            names = self._draw_names(rng)
            seeds = [rng.getrandbits(32) for _ in names]
            batch = []
            for place, name in enumerate(names):
                if first <= place < first + self.batch_size:
                    batch.append(Draw(name, self._orders[name].index(drawn[name]), seeds[place]))
                drawn[name] += 1
            self._step, self._drawn = step + 1, drawn
            yield batch

    def __getitem__(self, draw: Draw) -> Sample:
        """Return a drawn sample as the profile writes it, its instruction drawn from the dataset's pool."""
        return self.profile.for_training(self.datasets[draw.dataset][draw.index], random.Random(draw.seed))

    def realised(self, steps: int | None = None) -> dict[str, int]:
        """Return dataset -> number of samples drawn, by all processes together.

        Args:
            steps: that the first so many steps of the run draw; None: those drawn so far.
        """
        drawn = self._drawn if steps is None else self._drawn_by(steps)
        return {name: drawn[name] for name in self.datasets}

    def state_dict(self, steps: int | None = None) -> dict[str, Any]:
        """Return the position in the sequence, as values that JSON keeps.

        Args:
            steps: after so many steps of the run, which a loader that fetches ahead of training must say; None: after
                the last batch that was drawn.
        """
        done = self._step if steps is None else steps
        return {**self._identity(), "steps": done, "drawn": self.realised(steps)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state: the next iteration yields what would have come after it, in any number of processes.

        Raises:
            UserError: the state of another mixture, naming what differs, or no state at all.
        """
        for key, mine in self._identity().items():
            if key not in state:
                raise UserError(f"This is no state of a mixture: it lacks {key!r}.")
            if state[key] != mine:
                raise UserError(f"The state is of another mixture: {_difference(key, state[key], mine)}.")
        step, drawn = state.get("steps"), state.get("drawn")
        if not (isinstance(step, int) and isinstance(drawn, Mapping) and _counts(drawn, self.datasets)):
            raise UserError("The state of the mixture is damaged: it does not say how many samples were drawn.")
        if sum(drawn.values()) != step * self.world * self.batch_size:
            raise UserError(
                f"The state of the mixture is damaged: {step} steps do not draw {sum(drawn.values())} samples."
            )
        if Counter(drawn) != self._drawn_by(step):
            raise UserError("The state of the mixture is damaged: other samples come first in this sequence.")
        if step > self.steps:
            raise UserError(f"The state was taken after {step} steps, but this run has {self.steps}.")
        self._step, self._drawn = step, Counter(drawn)
        self._goes_on = True

    def _identity(self) -> dict[str, Any]:
        """What the sequence depends on."""
        return {
            "seed": self.seed,
            "batches": self.batches,
            "samples_per_step": self.world * self.batch_size,
            "sizes": {name: len(samples) for name, samples in self.datasets.items()},
            "weights": dict(self.weights),
        }

    def _generator(self, step: int) -> random.Random:
        return random.Random(f"{self.seed}/{step}")

    def _draw_names(self, rng: random.Random) -> list[str]:
        """The dataset of every sample of a step."""
        count = self.world * self.batch_size
        if self.batches == "mixed":
            return rng.choices(self._names, cum_weights=self._cumulated, k=count)
        return rng.choices(self._names, cum_weights=self._cumulated) * count

    def _drawn_by(self, steps: int) -> Counter[str]:
        return Counter(name for step in range(steps) for name in self._draw_names(self._generator(step)))


class _Orders:
    """The orders of one dataset, one for every epoch of it; the one in use is kept."""

    def __init__(self, name: str, size: int, seed: int) -> None:
        self.name = name
        self.size = size
        self.seed = seed
        self._epoch = -1
        self._order = array("L")

    def index(self, drawn: int) -> int:
        """Return the sample that comes after so many drawn ones."""
        epoch, place = divmod(drawn, self.size)
        if epoch != self._epoch:
            self._order = array("L", range(self.size))
            random.Random(f"{self.seed}/{self.name}/{epoch}").shuffle(self._order)
            self._epoch = epoch
        return self._order[place]


def _require_samples(sizes: Mapping[str, int]) -> None:
    if not sizes:
        raise UserError("A mixture needs at least one dataset.")
    for name, size in sizes.items():
        if not size:
            raise UserError(f"The dataset {name} has no training samples.")


def _counts(drawn: Mapping[str, Any], datasets: Mapping[str, Any]) -> bool:
    return set(drawn) == set(datasets) and all(isinstance(count, int) and count >= 0 for count in drawn.values())


def _difference(key: str, theirs: Any, mine: Any) -> str:
    """What differs, in words: of two mappings their first different entry."""
    what = {"samples_per_step": "samples per step"}.get(key, key)
    if not (isinstance(theirs, Mapping) and isinstance(mine, Mapping)):
        return f"its {what} is {theirs!r}, here it is {mine!r}"
    name = next(name for name in [*mine, *theirs] if theirs.get(name) != mine.get(name))
    there, here = (f"{side[name]:g}" if name in side else "none" for side in (theirs, mine))
    return f"its {what} of {name} is {there}, here it is {here}"
