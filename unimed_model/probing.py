"""What an instrument needs to probe a trained run: the model, and batches of every dataset's training split."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from .data import DatasetSource, Samples, discover, open_source, select_sources
from .data.collator import Collator
from .data.left_out import missing_images
from .data.sources import skipping
from .errors import UserError
from .loading import open_run, weights_digest
from .moments import SecondMoments, read_second_moments


@dataclass(frozen=True)
class ProbeBatches:
    """Batches of one dataset, collated when iterated over; every iteration gives the same ones."""

    samples: Samples
    rows: tuple[tuple[int, ...], ...]
    collator: Collator

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for row in self.rows:
            yield self.collator([self.samples[index] for index in row])

    @property
    def images(self) -> list[list[str]]:
        """Per batch the image of each of its samples; a sample of text is one by itself."""
        drawn = [[self.samples[index] for index in row] for row in self.rows]
        return [[sample.image_id or sample.sample_id for sample in row] for row in drawn]


@dataclass(frozen=True)
class ProbeSetup:
    """A trained model and what it is probed with.

    Attributes:
        model: the model, in evaluation mode.
        batches: dataset -> its batches.
        tasks: dataset -> task.
        metadata: what equal results depend on: digest of the weights, samples per dataset, versions, and
            where there are any ``missing_images``: dataset -> number of samples left out for them.
        folder: the run folder.
    """

    model: nn.Module
    batches: dict[str, ProbeBatches]
    tasks: dict[str, str]
    metadata: dict[str, Any]
    folder: Path

    @property
    def preconditioner(self) -> SecondMoments:
        """Second moments that training ended with, read when asked for.

        Raises:
            UserError: the run has none, or they are damaged.
        """
        return read_second_moments(self.folder)


def load_for_probing(
    checkpoint: Path,
    roots: list[Path],
    datasets: list[str] | None,
    batches: int,
    batch_size: int,
    seed: int,
    with_replacement: bool,
    skip_missing: bool = False,
) -> ProbeSetup:
    """Open a run and draw its probing batches: training split, one dataset each, seeded.

    Args:
        checkpoint: run folder.
        roots: data roots; a dataset is taken from the first that offers it.
        datasets: names; None for all that the roots offer.
        batches: batches per dataset.
        batch_size: samples per batch.
        seed: of the draw.
        with_replacement: let samples repeat; without it a dataset with too few samples is an error.
        skip_missing: leave out samples whose image file is missing; the metadata count them.

    Raises:
        UserError: a run or data that cannot be used, or too few samples.
    """
    # Data first: a mistake there is told before minutes went by with reading the weights of a large model.
    sources = _sources(roots, datasets)
    samples = {each.name: open_source(skipping(each) if skip_missing else each, "train") for each in sources}
    rows = {
        name: draw_batches(name, len(every), batches, batch_size, seed, with_replacement)
        for name, every in samples.items()
    }
    model, processor = open_run(checkpoint)
    collator = Collator(processor)
    missing = missing_images({name: every.skipped for name, every in samples.items()})
    metadata = {
        "weights_sha256": weights_digest(checkpoint),
        "samples": {name: len(every) for name, every in samples.items()},
        "versions": {name: version(name) for name in ("torch", "transformers", "numpy")},
        **({"missing_images": missing} if missing else {}),
    }
    probes = {name: ProbeBatches(every, rows[name], collator) for name, every in samples.items()}
    return ProbeSetup(model, probes, {each.name: each.task for each in sources}, metadata, checkpoint)


def same_batches(checkpoint: Path, earlier: ProbeSetup) -> ProbeSetup:
    """Open another checkpoint and probe it with the samples that an earlier one was probed with.

    Args:
        checkpoint: run folder, or a checkpoint in it.
        earlier: what ``load_for_probing`` returned; its model is not used.

    Raises:
        UserError: a run that cannot be used.
    """
    model, processor = open_run(checkpoint)
    collator = Collator(processor)
    batches = {name: ProbeBatches(each.samples, each.rows, collator) for name, each in earlier.batches.items()}
    metadata = {**earlier.metadata, "weights_sha256": weights_digest(checkpoint)}
    return ProbeSetup(model, batches, earlier.tasks, metadata, checkpoint)


def draw_batches(
    name: str, samples: int, batches: int, batch_size: int, seed: int, with_replacement: bool
) -> tuple[tuple[int, ...], ...]:
    """Return rows of sample indices, ``batches`` of ``batch_size``, that depend on name and seed alone.

    The first batches of a longer draw are those of a shorter one, so that a recording can be extended.

    Raises:
        UserError: too few samples to draw them without replacement.
    """
    rng = random.Random(f"{seed}/{name}")
    wanted = batches * batch_size
    if with_replacement and samples:
        drawn = [rng.randrange(samples) for _ in range(wanted)]
    elif samples >= wanted:
        shuffled = list(range(samples))
        rng.shuffle(shuffled)
        drawn = shuffled[:wanted]
    else:
        raise UserError(
            f"{name} has {samples} training samples, enough for {samples // batch_size} batches of {batch_size}, "
            f"but {batches} were asked for; ask for fewer with --batches or allow repeats with --with-replacement."
        )
    return tuple(tuple(drawn[start : start + batch_size]) for start in range(0, wanted, batch_size))


def _sources(roots: list[Path], datasets: list[str] | None) -> list[DatasetSource]:
    offered: dict[str, DatasetSource] = {}
    for root in roots:
        for source in discover(root):
            offered.setdefault(source.name, source)
    names = None if datasets is None else tuple(datasets)
    return select_sources(list(offered.values()), names, " and ".join(map(str, roots)))
