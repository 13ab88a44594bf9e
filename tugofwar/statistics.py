"""Statistics scores (eq. 5 of arXiv 2409.17508) of all parameters as histograms, with intervals and two nulls.

The histograms count every parameter. Intervals and nulls come from a fixed sample of each block's parameters,
``sampled`` of ``parameters``; where a block is not sampled whole they also carry the sample's own randomness,
which makes intervals too wide rather than too narrow.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tugofwar.errors import UserError
from tugofwar.metrics import Array, statistics_score
from tugofwar.naming import closest

TEN, FINE = 10, 1000
Counts = NDArray[np.int64]

_PREFIX = "scores"
_REQUIRED = {"fine": (FINE,), "ten": (TEN,), "null_signs": (TEN,)}


@dataclass(frozen=True)
class BlockScores:
    """Scores of one block at one level.

    ``ten`` and ``fine`` count parameters in 10 and 1,000 equal intervals of [0, 1], the last one closed, as
    ``numpy.histogram`` does. ``null_signs`` and ``null_no_conflict`` count the sampled parameters in ten
    intervals, over all draws of the null together; ``replicates``, ``(replicates, 10)``, does so for each
    resample of the batches. The last two are None when a dataset has a single batch: there is no noise to
    learn from it.
    """

    parameters: int
    sampled: int
    fine: Counts
    ten: Counts
    null_signs: Counts
    null_no_conflict: Counts | None = None
    replicates: NDArray[np.int32] | None = None

    @property
    def undefined(self) -> int:
        """Parameters that no gradient reaches: their score is 0/0 and in no interval."""
        return self.parameters - int(self.ten.sum())

    @property
    def weight(self) -> float:
        """How many parameters of the block one sampled parameter stands for."""
        return self.parameters / self.sampled


@dataclass(frozen=True)
class Statistics:
    """Statistics scores of a recording: ``levels[level][block]``, with what they were drawn with.

    ``groups`` names the datasets or tasks that each level compares. Equal seeds and data give equal numbers,
    however the gradients were cut into chunks.
    """

    levels: Mapping[str, Mapping[str, BlockScores]]
    groups: Mapping[str, tuple[str, ...]]
    seed: int

    @property
    def blocks(self) -> tuple[str, ...]:
        """Names of the blocks."""
        return tuple(next(iter(self.levels.values())))

    def select(self, blocks: Sequence[str]) -> "Statistics":
        """The same, of these blocks only, in the order of the recording.

        Raises:
            UserError: an unknown block, or none at all.
        """
        if not blocks:
            raise UserError("There is no block to select; name at least one.")
        for name in blocks:
            self._check_block(name)
        chosen = {
            level: {name: scores for name, scores in members.items() if name in blocks}
            for level, members in self.levels.items()
        }
        return replace(self, levels=chosen)

    def undefined(self, level: str, block: str | None = None) -> int:
        """Number of parameters without a score, in one block or in all.

        Raises:
            UserError: an unknown level or block.
        """
        return sum(scores.undefined for scores in self._members(level, block))

    def table(self, level: str, block: str | None = None, confidence: float = 0.95) -> pd.DataFrame:
        """Ten rows: the share of parameters in each interval of the score, its interval, and both nulls.

        An interval is the point plus the spread of the resampled shares about their own mean: eq. 5 also
        measures noise, and it covers what is expected at the same number of batches. Over several blocks each
        block's sample counts for the whole block.

        Args:
            level: ``"dataset"`` or ``"task"``.
            block: one block; by default all of them together.
            confidence: probability that an interval should cover the expected share.

        Returns:
            Columns ``interval_low``, ``interval_high`` (of the score), ``count`` (parameters), ``share``,
            ``low``, ``high``, ``null_signs``, ``null_no_conflict`` (shares). What does not exist has no
            column: ``low``, ``high`` and ``null_no_conflict`` when a dataset has one batch, all of the last
            four when no sampled parameter has a score.

        Raises:
            UserError: an unknown level or block, a confidence outside (0, 1), or no parameter with a score.
        """
        if not 0 < confidence < 1:
            raise UserError(f"An interval's confidence is between 0 and 1, such as 0.95; got {confidence}.")
        members = self._members(level, block)
        count = np.sum([scores.ten for scores in members], axis=0)
        if count.sum() == 0:
            where = "any block" if block is None else f"block {block!r}"
            raise UserError(f"No gradient reaches a parameter of {where}, so that there is no statistics score.")
        share = count / count.sum()
        edges = np.linspace(0, 1, TEN + 1)
        columns = {"interval_low": edges[:-1], "interval_high": edges[1:], "count": count, "share": share}
        replicates = _pooled(members, "replicates")
        if replicates is not None:
            columns["low"], columns["high"] = _interval(share, replicates, confidence)
        for name in ("null_signs", "null_no_conflict"):
            null = _pooled(members, name)
            if null is not None:
                columns[name] = null
        return pd.DataFrame(columns)

    def replicate_shares(self, level: str) -> Array | None:
        """Shares of parameters in each interval of the score for every resample of the batches.

        Args:
            level: ``"dataset"`` or ``"task"``.

        Returns:
            ``(replicates, 10)``; None when a dataset has one batch, or no sampled parameter has a score.

        Raises:
            UserError: an unknown level.
        """
        return _pooled(self._members(level, None), "replicates")

    def metadata(self) -> dict[str, Any]:
        """What ``from_arrays`` needs besides the arrays; strict JSON."""
        members = next(iter(self.levels.values()))
        first = next(iter(members.values()))
        return {
            "seed": self.seed,
            "replicates": 0 if first.replicates is None else len(first.replicates),
            "levels": {level: list(names) for level, names in self.groups.items()},
            "parameters": {name: scores.parameters for name, scores in members.items()},
            "sampled": {name: scores.sampled for name, scores in members.items()},
        }

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """All counts under names like ``scores/dataset/<block>/fine``, for one safetensors file."""
        arrays: dict[str, NDArray[Any]] = {}
        for level, members in self.levels.items():
            for block, scores in members.items():
                for field in (*_REQUIRED, "null_no_conflict", "replicates"):
                    array = getattr(scores, field)
                    if array is not None:
                        arrays[f"{_PREFIX}/{level}/{block}/{field}"] = array
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]) -> "Statistics":
        """What ``to_arrays`` and ``metadata`` were taken from; other arrays are left alone.

        Raises:
            UserError: metadata without a key, or an array that is missing or has the wrong shape or type.
        """
        try:
            groups = {level: tuple(names) for level, names in metadata["levels"].items()}
            sizes = {name: (int(size), int(metadata["sampled"][name])) for name, size in metadata["parameters"].items()}
            replicates, seed = int(metadata["replicates"]), int(metadata["seed"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"The statistics scores' metadata is damaged ({error!r}); record again.") from None
        if not groups or not sizes:
            raise UserError("The statistics scores' metadata names no level or no block; record again.")
        levels = {
            level: {
                name: _read_block(arrays, f"{_PREFIX}/{level}/{name}/", *size, replicates)
                for name, size in sizes.items()
            }
            for level in groups
        }
        return cls(levels, groups, seed)

    def _members(self, level: str, block: str | None) -> list[BlockScores]:
        if level not in self.levels:
            raise UserError(f"There are no statistics scores of level {level!r}, only of {', '.join(self.levels)}.")
        if block is None:
            return list(self.levels[level].values())
        self._check_block(block)
        return [self.levels[level][block]]

    def _check_block(self, name: str) -> None:
        if name not in self.blocks:
            raise UserError(f"There is no block {name!r} with statistics scores; {closest(name, self.blocks)}.")


def histograms(score: Array) -> tuple[Counts, Counts]:
    """Counts of scores in 1,000 and in 10 equal intervals of [0, 1], the last one closed.

    Args:
        score: defined scores, ``(parameters,)``, in [0, 1].
    """
    fine, _ = np.histogram(score, bins=FINE, range=(0, 1))
    ten, _ = np.histogram(score, bins=TEN, range=(0, 1))
    return fine.astype(np.int64), ten.astype(np.int64)


def scores_from_means(means: Iterable[NDArray[Any]], groups: Mapping[str, Sequence[int]]) -> tuple[Counts, Counts, int]:
    """Histograms of eq. 5 for any grouping of datasets, from mean gradients that were kept.

    Args:
        means: mean gradients chunk by chunk, ``(datasets, parameters of the chunk)`` each.
        groups: rows of ``means`` in each group; a group's mean weighs its datasets equally.

    Returns:
        ``(fine, ten, undefined)``: counts ``(1000,)`` and ``(10,)``, and how many parameters have no score.

    Raises:
        UserError: no groups, an empty one, or a row out of range; means that are not finite.
    """
    fine, ten, undefined = np.zeros(FINE, dtype=np.int64), np.zeros(TEN, dtype=np.int64), 0
    for chunk in means:
        score, missing = statistics_score(group_means(chunk, groups))
        chunk_fine, chunk_ten = histograms(score[~missing])
        fine += chunk_fine
        ten += chunk_ten
        undefined += int(missing.sum())
    return fine, ten, undefined


def group_means(means: NDArray[Any], groups: Mapping[str, Sequence[int]]) -> list[NDArray[Any]]:
    """Mean gradient of each group from those of its datasets, ``(parameters,)`` each, in the mapping's order.

    Raises:
        UserError: an empty group, or a row that ``means`` does not have.
    """
    for name, rows in groups.items():
        if len(rows) == 0 or min(rows) < 0 or max(rows) >= len(means):
            raise UserError(f"Group {name!r} must name rows from 0 to {len(means) - 1}; got {list(rows)}.")
    return [means[rows[0]] if len(rows) == 1 else means[list(rows)].mean(axis=0) for rows in groups.values()]


def _pooled(members: Sequence[BlockScores], field: str) -> Array | None:
    """Shares ``(..., 10)`` of the blocks' samples, each blown up to its block; None if they do not exist."""
    parts = [getattr(scores, field) for scores in members]
    if any(part is None for part in parts):
        return None
    total = np.sum([scores.weight * part for scores, part in zip(members, parts, strict=True)], axis=0)
    defined = total.sum(axis=-1, keepdims=True)
    return None if (defined == 0).any() else np.asarray(total / defined)


def _interval(share: Array, replicates: Array, confidence: float) -> tuple[Array, Array]:
    tail = (1 - confidence) / 2
    low, high = np.quantile(replicates, [tail, 1 - tail], axis=0) - replicates.mean(axis=0)
    # A few skewed replicates can leave both quantiles on one side of the mean; the point still belongs inside.
    return np.clip(share + np.minimum(low, 0), 0, 1), np.clip(share + np.maximum(high, 0), 0, 1)


def _read_block(
    arrays: Mapping[str, NDArray[Any]], prefix: str, parameters: int, sampled: int, replicates: int
) -> BlockScores:
    fields: dict[str, Any] = {
        field: _read_counts(arrays, prefix + field, shape, np.int64) for field, shape in _REQUIRED.items()
    }
    if replicates:
        fields["null_no_conflict"] = _read_counts(arrays, prefix + "null_no_conflict", (TEN,), np.int64)
        fields["replicates"] = _read_counts(arrays, prefix + "replicates", (replicates, TEN), np.int32)
    if not 0 < sampled <= parameters or fields["ten"].sum() > parameters or fields["ten"].sum() != fields["fine"].sum():
        raise UserError(f"The statistics scores under {prefix!r} do not add up; record again.")
    return BlockScores(parameters, sampled, **fields)


def _read_counts(
    arrays: Mapping[str, NDArray[Any]], name: str, shape: tuple[int, ...], kind: type[np.integer]
) -> NDArray[Any]:
    array = arrays.get(name)
    if array is None or array.shape != shape or array.dtype != kind or (array < 0).any():
        raise UserError(f"The recording does not hold {name!r} as {shape} counts ({kind.__name__}); record again.")
    return array
