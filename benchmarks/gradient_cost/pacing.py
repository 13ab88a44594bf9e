"""Time and memory of a method, beside plain passes of the same batches."""

import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from gradient_cost.workload import Batch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Timing:
    """What a method took on its batches, in plain passes of as many batches.

    Attributes:
        ratio: everything from the first batch to the result, the interleaved plain passes taken out.
        products: the part of it that came after the last pass.
        plain_seconds: one plain pass, on average.
    """

    ratio: float
    products: float
    plain_seconds: float


@dataclass
class Clock:
    """Seconds of plain passes and of the method that they alternate with.

    Attributes:
        plain: one plain pass, called with each batch just before it is handed out.
        plain_seconds: of every plain pass.
        own_seconds: the method's own between being handed one batch and asking for the next.
        handed_out: when the last batch was handed out.
        total: the method's own seconds, all together.
        products: those after its last pass.
    """

    plain: Callable[[Batch], object]
    plain_seconds: list[float] = field(default_factory=list)
    own_seconds: list[float] = field(default_factory=list)
    handed_out: float = 0.0
    total: float = 0.0
    products: float = 0.0

    def pass_plainly(self, batch: Batch) -> None:
        """Time the plain pass of a batch."""
        started = time.perf_counter()
        self.plain(batch)
        self.plain_seconds.append(time.perf_counter() - started)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Inside, a method runs on batches of this clock."""
        started = time.perf_counter()
        yield
        ended = time.perf_counter()
        self.total = ended - started - sum(self.plain_seconds)
        # The last pass is not followed by a request for another batch.
        last_pass = statistics.median(self.own_seconds) if self.own_seconds else 0.0
        self.products = max(0.0, ended - self.handed_out - last_pass)

    @property
    def took_all_first(self) -> bool:
        """Whether the method took most of its time after the last batch, so that plain passes came only before it."""
        return self.products > 0.5 * self.total

    def timing(self, batches: int) -> Timing:
        """The method's time in plain passes of ``batches`` batches."""
        plain = statistics.fmean(self.plain_seconds)
        return Timing(self.total / (batches * plain), self.products / (batches * plain), plain)


@dataclass(frozen=True)
class Batches:
    """Batches that are made and handed out one at a time; every ``every``-th one after its plain pass.

    A shared machine is slower in one minute than in the next. Because plain passes and the method's own
    alternate, both meet the same minutes, and their ratio is steadier than either.
    """

    make: Callable[[int], Batch]
    numbers: Sequence[int]
    clock: Clock
    every: int = 1

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[Batch]:
        """The batches; may be asked for more than once."""
        for place, number in enumerate(self.numbers):
            asked = time.perf_counter()
            if place > 0:
                self.clock.own_seconds.append(asked - self.clock.handed_out)
            batch = self.make(number)
            if place % self.every == 0:
                self.clock.pass_plainly(batch)
            self.clock.handed_out = time.perf_counter()
            yield batch

    def split(self, parts: int) -> "list[Batches]":
        """As many consecutive, equal parts, timed by the same clock."""
        size = len(self) // parts
        starts = range(0, size * parts, size)
        return [Batches(self.make, self.numbers[at : at + size], self.clock, self.every) for at in starts]


@contextmanager
def peak_memory() -> Iterator[list[int]]:
    """Inside, memory is watched; afterwards the largest resident size in bytes is in the list that is yielded.

    The list stays empty where the system does not count it (Linux does).
    """
    peaks: list[int] = []
    supported = _RESET.exists() and _STATUS.exists()
    if supported:
        _RESET.write_text("5")  # proc(5): resets the high-water mark to the present size
    yield peaks
    if supported and (found := re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())):
        peaks.append(1024 * int(found[1]))
