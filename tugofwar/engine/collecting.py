"""All datasets' batches, dealt out to the processes; what an archive already has is not passed again."""

import itertools
import random
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from tugofwar.engine.archive import Archive
from tugofwar.engine.choice import Keeping
from tugofwar.engine.fingerprint import batch_digest
from tugofwar.engine.passes import DatasetRows, Passes, Row
from tugofwar.engine.processes import Processes
from tugofwar.errors import UserError

Datasets = Mapping[str, Iterable[Any]]


@dataclass
class Collected:
    """What all batches left behind.

    Attributes:
        rows: one per batch of every dataset that touches a selected parameter, dataset after dataset; those
            of other processes hold a loss and no pieces.
        owners: rank of the process that passed each row.
        datasets: dataset of each row.
        untouched: datasets whose loss reaches no selected parameter.
        keepings: per dataset, how each part (by number) was kept.
    """

    rows: list[Row]
    owners: list[int]
    datasets: list[str]
    untouched: tuple[str, ...]
    keepings: dict[str, dict[int, Keeping]]


class Collector:
    """Passes the first ``batches`` batches of every dataset.

    Args:
        passes: runs the batches.
        processes: who shares them.
        archive: where finished datasets are kept; None to keep them in memory only.
        seed: the generators are seeded with it and the dataset's name before each dataset.
    """

    def __init__(self, passes: Passes, processes: Processes, archive: Archive | None, seed: int) -> None:
        self.passes = passes
        self.processes = processes
        self.archive = archive
        self.seed = seed

    def collect(self, datasets: Datasets, batches: int, bar: "tqdm[Any]") -> Collected:
        """Pass the batches.

        Args:
            datasets: name to iterable of batches.
            batches: per dataset.
            bar: shows the dataset and moves on by one per batch.

        Raises:
            UserError: a dataset with fewer batches, or what ``Passes.dataset`` raises; in every process.
        """
        collected = Collected([], [], [], (), {})
        for name, source in datasets.items():
            error: UserError | None = None
            mine = DatasetRows()
            bar.set_postfix_str(name)
            try:
                mine = self._dataset(name, source, batches, lambda: bar.update(self.processes.world))
            except UserError as found:
                error = found
            self.processes.agree(error)
            self._append(collected, name, mine, batches)
        if not collected.rows:
            raise UserError(
                f"Nothing to measure: not touching the selected parameters, because no gradient reaches them: "
                f"{', '.join(collected.untouched)}."
            )
        return collected

    def _dataset(self, name: str, source: Iterable[Any], batches: int, tick: Callable[[], object]) -> DatasetRows:
        result, segments = self._finished(name)
        rank, world = self.processes.share
        mine = range(rank, batches, world)
        have = min(len(result.rows), len(mine))
        del result.rows[have:]
        known = {number: row.digest for number, row in zip(mine, result.rows, strict=False)}
        for _ in range(have):
            tick()
        _seed_everything(self.seed, name)
        if have == len(mine):
            # One batch is drawn all the same, to see that it is this data that was passed.
            for _ in _draw(name, source, min(mine, default=-1) + 1, (), known):
                pass
            return result
        if self.archive is not None:
            self.passes.store.open_file(self.archive.file_name(name, segments))
        drawn = _draw(name, source, batches, mine[have:], known)
        more = self.passes.dataset(name, drawn, self._watched(len(mine) - have, tick))
        if self.archive is not None:
            self.passes.store.close_file()
            self.archive.save(name, segments, more)
        return DatasetRows(result.rows + more.rows, result.touched or more.touched, result.keepings | more.keepings)

    def _finished(self, name: str) -> tuple[DatasetRows, int]:
        """What the archive has of a dataset, and in how many segments."""
        result, segments = DatasetRows(), 0
        while self.archive is not None and (earlier := self.archive.load(name, segments)) is not None:
            result.rows += earlier.rows
            result.touched = result.touched or earlier.touched
            result.keepings |= earlier.keepings
            segments += 1
        for number, keeping in result.keepings.items():
            self.passes.parts[number].fallen_back |= keeping.refuted
        return result, segments

    def _watched(self, batches: int, tick: Callable[[], object]) -> Callable[[], object]:
        """``tick``, which after the first of ``batches`` also checks that the others will find room."""
        store = self.passes.store
        before = store.bytes_in_memory + store.bytes_on_disk
        is_first = iter([True])

        def watched() -> None:
            tick()
            if next(is_first, False):
                store.expect((store.bytes_in_memory + store.bytes_on_disk - before) * (batches - 1))

        return watched

    def _append(self, collected: Collected, name: str, mine: DatasetRows, batches: int) -> None:
        shared = self.processes.gather((mine.touched, mine.keepings, [row.loss for row in mine.rows]))
        if not any(touched for touched, _, _ in shared):
            collected.untouched += (name,)
            return
        remaining, losses = iter(mine.rows), [iter(each) for _, _, each in shared]
        for number in range(batches):
            owner = number % self.processes.world
            loss = next(losses[owner])
            collected.rows.append(next(remaining) if owner == self.processes.rank else Row(loss, []))
            collected.owners.append(owner)
            collected.datasets.append(name)
        collected.keepings[name] = {k: v for _, keepings, _ in shared for k, v in keepings.items()}


def check_length(name: str, source: Iterable[Any], batches: int) -> None:
    """Raise a UserError for a dataset that says by itself that it has fewer batches."""
    if not isinstance(source, Sized):
        return
    try:
        length = len(source)
    except TypeError:
        # A DataLoader over a stream has __len__ but no length; its batches are counted as they come.
        return
    if length < batches:
        raise _too_few(name, length, batches)


def first_batches(name: str, source: Iterable[Any], batches: int, seed: int) -> Iterator[Any]:
    """The batches of a dataset that recording its gradients with this seed passes.

    Raises:
        UserError: the dataset has fewer.
    """
    check_length(name, source, batches)
    _seed_everything(seed, name)
    for _, batch in _draw(name, source, batches, range(batches), {}):
        yield batch


def _draw(
    name: str, source: Iterable[Any], batches: int, wanted: Sequence[int], known: Mapping[int, str]
) -> Iterator[tuple[int, Any]]:
    """The ``wanted`` ones of the first ``batches`` batches, with their numbers; ``known`` ones must be as they were."""
    seen = 0
    for number, batch in enumerate(itertools.islice(source, batches)):
        seen += 1
        if number in known and batch_digest(batch) != known[number]:
            raise UserError(
                f"Batch {number + 1} of dataset {name!r} is not the one whose factors are in the workspace; give the "
                "same data in the same order, or another workspace, or resume=False."
            )
        if number in wanted:
            yield number, batch
    if seen < batches:
        raise _too_few(name, seen, batches)


def _too_few(name: str, found: int, wanted: int) -> UserError:
    return UserError(f"Dataset {name!r} has {found} batches but {wanted} are asked for; ask for at most {found}.")


def _seed_everything(seed: int, name: str) -> None:
    """Seed every generator from seed and name, so that a dataset's order does not depend on those before it."""
    mixed = zlib.crc32(f"{seed}/{name}".encode())
    random.seed(mixed)
    np.random.seed(mixed)
    torch.manual_seed(mixed)
