"""Folds gradients, a few parameters at a time, into statistics scores (eq. 5 of arXiv 2409.17508)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from tugofwar.errors import UserError
from tugofwar.metrics import Array, statistics_score
from tugofwar.score_nulls import Design, Resampled, draw_design, resample_block, sampled_columns
from tugofwar.statistics import FINE, TEN, BlockScores, Statistics, group_means, histograms


@dataclass(frozen=True)
class ChunkScores:
    """What one chunk of ``C`` parameters came to.

    ``means``: mean gradients of the datasets, ``(datasets, C)``, in the gradients' type. ``scores`` and
    ``undefined``: per level ``(C,)``; a score is NaN where it is undefined (0/0), which no file should hold.
    """

    means: NDArray[np.floating]
    scores: Mapping[str, Array]
    undefined: Mapping[str, NDArray[np.bool_]]


@dataclass(frozen=True)
class _BlockState:
    """Sums over the chunks seen. ``counts``: per level 1,000 fine, 10 coarse, 1 undefined: ``(levels, 1011)``."""

    size: int
    columns: NDArray[np.intp]
    counts: NDArray[np.int64]
    sample: Array


class StatisticsAccumulator:
    """Statistics scores of all parameters from gradients that exist only a chunk at a time.

    Exact histograms cover every parameter; a seeded sample of each block's columns is kept until the block
    is finished, and gives its intervals and nulls. Everything kept is a sum over chunks, so that processes
    that share a block's chunks add up what ``state_of`` returns.
    """

    def __init__(
        self,
        datasets: Sequence[str],
        tasks: Mapping[str, str],
        seed: int,
        replicates: int = 200,
        sample_bytes: int = 32 * 2**20,
    ) -> None:
        """Prepare for gradients of ``len(datasets)`` batches.

        Args:
            datasets: dataset of each row; means are cheapest when a dataset's rows are consecutive.
            tasks: task of each dataset, for a second level; empty for none.
            seed: seed of the sample and of all draws.
            replicates: resamples of the batches behind the intervals.
            sample_bytes: bytes that the sample of one unfinished block may take.

        Raises:
            UserError: no rows, a dataset without a task although others have one, a negative seed, or fewer
                than 2 replicates.
        """
        _check(datasets, tasks, seed, replicates)
        self.datasets = tuple(dict.fromkeys(datasets))
        self._labels = np.array([self.datasets.index(name) for name in datasets])
        self._rows = [np.flatnonzero(self._labels == number) for number in range(len(self.datasets))]
        self._runs = [_runs(rows) for rows in self._rows]
        self._levels = _levels(self.datasets, tasks)
        self._seed = seed
        self._sample_bytes = sample_bytes
        self._design: Design | None = None
        if min(len(rows) for rows in self._rows) > 1:
            self._design = draw_design(self._rows, replicates, seed)
        self._open: dict[str, _BlockState] = {}
        self._done: dict[str, dict[str, BlockScores]] = {level: {} for level in self._levels}

    def add(self, block: str, first: int, gradients: torch.Tensor, block_size: int) -> ChunkScores:
        """Fold in consecutive parameters of a block; chunks may come in any order, each parameter once.

        Args:
            block: name of the block.
            first: place of the chunk's first parameter in the block.
            gradients: ``(batches, C)``, float32 or float64, on any device.
            block_size: number of parameters of the whole block.

        Raises:
            UserError: gradients that are not finite.
            ValueError: a shape that does not fit the rows or the block.
        """
        state = self._state(block, block_size)
        rows, width = gradients.shape
        if rows != len(self._labels) or not 0 <= first <= block_size - width:
            raise ValueError(f"{rows} x {width} gradients from {first} do not fit block {block!r} of {block_size}.")
        start, stop = np.searchsorted(state.columns, [first, first + width])
        if stop > start:
            wanted = gradients.new_tensor(state.columns[start:stop] - first, dtype=torch.int64)
            state.sample[:, start:stop] = gradients.index_select(1, wanted).cpu().numpy()
        means = self._means(gradients)
        if not np.isfinite(means).all():
            raise UserError(f"The gradients of {block!r} hold values that are not finite; a gradient overflowed.")
        scores, missing = {}, {}
        for level, counts in zip(self._levels, state.counts, strict=True):
            score, undefined = statistics_score(group_means(means, self._levels[level]))
            fine, ten = histograms(score[~undefined])
            counts += np.concatenate([fine, ten, [undefined.sum()]])
            scores[level], missing[level] = score, undefined
        return ChunkScores(means, scores, missing)

    def state_of(self, block: str, block_size: int) -> list[NDArray[np.generic]]:
        """The arrays themselves that hold what was added of a block; a process that added nothing has zeros.

        Sum each of them over the processes in place before ``finish_block``: int64 ``(levels, 1011)`` and
        float64 ``(batches, sampled)``.
        """
        state = self._state(block, block_size)
        return [state.counts, state.sample]

    def finish_block(self, block: str, gram: ArrayLike) -> None:
        """Compute the block's intervals and nulls, and free its sample.

        Args:
            block: a block whose chunks have all been added.
            gram: inner products of the batches' gradients over the whole block, ``(batches, batches)``.

        Raises:
            ValueError: parameters that were not added, or added twice; a Gram matrix of the wrong shape.
        """
        state = self._open[block]
        matrix = np.asarray(gram, dtype=np.float64)
        if matrix.shape != (len(self._labels),) * 2:
            raise ValueError(f"The Gram matrix of {block!r} has shape {matrix.shape}, not {len(self._labels)} rows.")
        size = state.size
        if (state.counts[:, :FINE].sum(axis=1) + state.counts[:, -1] != size).any():
            raise ValueError(f"Block {block!r} has {size} parameters; not every one of them was added once.")
        means = np.stack([state.sample[rows].mean(axis=0) for rows in self._rows])
        drawn = resample_block(block, state.sample, means, matrix, self._design, self._levels, self._seed)
        for level, counts in zip(self._levels, state.counts, strict=True):
            self._done[level][block] = _block_scores(size, len(state.columns), counts, drawn[level])
        del self._open[block]

    def result(self) -> Statistics:
        """Statistics of all blocks.

        Raises:
            ValueError: no block, or one that is not finished.
        """
        if self._open or not self._done["dataset"]:
            raise ValueError(f"Finish every block first; unfinished: {', '.join(self._open) or 'none, nor finished'}.")
        groups = {level: tuple(members) for level, members in self._levels.items()}
        return Statistics({level: dict(blocks) for level, blocks in self._done.items()}, groups, self._seed)

    def _state(self, block: str, block_size: int) -> _BlockState:
        if block not in self._open:
            if block in self._done["dataset"]:
                raise ValueError(f"Block {block!r} is finished; nothing can be added to it.")
            rows = len(self._labels)
            columns = sampled_columns(block, block_size, rows, self._sample_bytes, self._seed)
            counts = np.zeros((len(self._levels), FINE + TEN + 1), dtype=np.int64)
            self._open[block] = _BlockState(block_size, columns, counts, np.zeros((rows, len(columns))))
        return self._open[block]

    def _means(self, gradients: torch.Tensor) -> NDArray[np.floating]:
        """Mean gradient of each dataset, ``(datasets, C)``."""
        # Consecutive rows are read once, where a product with a (datasets, batches) matrix takes four times as long.
        means = torch.zeros(len(self._rows), gradients.shape[1], dtype=gradients.dtype, device=gradients.device)
        for mean, runs, rows in zip(means, self._runs, self._rows, strict=True):
            for run in runs:
                mean += gradients.new_ones(run.stop - run.start) @ gradients[run]
            mean /= len(rows)
        return np.asarray(means.cpu().numpy())


def _check(datasets: Sequence[str], tasks: Mapping[str, str], seed: int, replicates: int) -> None:
    if not datasets:
        raise UserError("Statistics scores need the gradients of at least one batch; there is none.")
    missing = [name for name in dict.fromkeys(datasets) if tasks and name not in tasks]
    if missing:
        raise UserError(f"Dataset {missing[0]!r} has no task although others have; name one or leave all out.")
    if seed < 0:
        raise UserError(f"A seed is a whole number from 0; got {seed}.")
    if replicates < 2:
        raise UserError(f"Intervals need at least 2 replicates, and 200 to be smooth; got {replicates}.")


def _levels(datasets: Sequence[str], tasks: Mapping[str, str]) -> dict[str, dict[str, list[int]]]:
    """Per level the groups, each as the numbers of its datasets."""
    levels = {"dataset": {name: [number] for number, name in enumerate(datasets)}}
    if tasks:
        levels["task"] = {}
        for number, name in enumerate(datasets):
            levels["task"].setdefault(tasks[name], []).append(number)
    return levels


def _runs(rows: NDArray[np.intp]) -> list[slice]:
    """Consecutive stretches of sorted rows."""
    stretches = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
    return [slice(int(stretch[0]), int(stretch[-1]) + 1) for stretch in stretches]


def _block_scores(parameters: int, sampled: int, counts: NDArray[np.int64], drawn: Resampled) -> BlockScores:
    return BlockScores(
        parameters,
        sampled,
        counts[:FINE].copy(),
        counts[FINE : FINE + TEN].copy(),
        drawn.null_signs,
        drawn.null_no_conflict,
        drawn.replicates,
    )
