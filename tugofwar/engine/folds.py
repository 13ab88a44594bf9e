"""What is computed from rebuilt gradients besides their products: statistics scores, and files of them."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tugofwar.engine.parts import Part
from tugofwar.engine.processes import Processes
from tugofwar.score_accumulator import ChunkScores, StatisticsAccumulator
from tugofwar.statistics import Statistics

Writer = Callable[[Part, int, ChunkScores], object]


class ScoreFold:
    """Statistics scores (eq. 5) of every parameter.

    Args:
        parts: all parts, in the order of their columns within blocks.
        datasets: dataset of each row.
        tasks: task of each dataset; a dataset that is not in it leaves the task level out.
        seed: of resamples and nulls.
        sample_bytes: size of the sample that intervals and nulls come from.
        processes: who shares the columns of a block.
        writers: called with every chunk's means and scores.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        datasets: Sequence[str],
        tasks: Mapping[str, str],
        seed: int,
        sample_bytes: int,
        processes: Processes,
        writers: Sequence[Writer] = (),
    ) -> None:
        known = {name: tasks[name] for name in dict.fromkeys(datasets) if name in tasks}
        complete = known if len(known) == len(set(datasets)) else {}
        self._accumulator = StatisticsAccumulator(datasets, complete, seed, sample_bytes=sample_bytes)
        self._processes = processes
        self._writers = list(writers)
        self._sizes: dict[str, int] = {}
        self._offsets: dict[Part, int] = {}
        for part in parts:
            self._offsets[part] = self._sizes.get(part.block, 0)
            self._sizes[part.block] = self._offsets[part] + part.size

    def add(self, part: Part, first: int, gradients: Tensor) -> None:
        """Take ``(n, columns)`` gradients of a part, from column ``first`` of the part on."""
        size = self._sizes[part.block]
        scores = self._accumulator.add(part.block, self._offsets[part] + first, gradients, size)
        for write in self._writers:
            write(part, first, scores)

    def finish(self, block: str, gram: NDArray[np.float64]) -> None:
        """Merge the processes' sums, then draw intervals and nulls."""
        for array in self._accumulator.state_of(block, self._sizes[block]):
            self._processes.sum(torch.from_numpy(array))
        self._accumulator.finish_block(block, gram)

    def result(self) -> Statistics:
        """Statistics of all blocks."""
        return self._accumulator.result()
