"""Which rows make up a group, dataset by dataset: the bookkeeping every estimator shares."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tugofwar.errors import UserError


@dataclass(frozen=True)
class Stratum:
    """The batches of one dataset inside one group: batches that are drawn alike and weigh alike."""

    name: str
    rows: NDArray[np.intp]


@dataclass(frozen=True)
class Group:
    """A dataset, or a task that pools several; each of its strata has the same weight."""

    name: str
    strata: tuple[Stratum, ...]

    @property
    def rows(self) -> NDArray[np.intp]:
        """All rows of the group, stratum after stratum."""
        return np.concatenate([stratum.rows for stratum in self.strata])

    @property
    def fewest(self) -> int:
        """Number of rows of the smallest stratum."""
        return min(len(stratum.rows) for stratum in self.strata)

    def weights(self, rows_in_total: int) -> NDArray[np.float64]:
        """Weight of each of the ``rows_in_total`` rows in the group's mean; they sum to 1."""
        weights = np.zeros(rows_in_total)
        for stratum in self.strata:
            weights[stratum.rows] = 1.0 / (len(self.strata) * len(stratum.rows))
        return weights


def build_groups(
    groups: Mapping[str, Sequence[int]], rows_in_total: int, datasets: Sequence[str] | None = None
) -> list[Group]:
    """Check ``groups`` against the number of rows and split each one by dataset.

    Args:
        groups: rows of each group.
        rows_in_total: number of rows of the Gram matrix.
        datasets: dataset of each row, length ``rows_in_total``; without it a group is one stratum.

    Raises:
        UserError: no groups, an empty group, a row named twice or out of range, or ``datasets`` of the wrong
            length.
    """
    if not groups:
        raise UserError("There are no groups to compare; name at least one, with the rows that belong to it.")
    if datasets is not None and len(datasets) != rows_in_total:
        raise UserError(
            f"`datasets` names the dataset of {len(datasets)} rows but the Gram matrix has {rows_in_total}."
        )
    return [_build_group(name, rows, rows_in_total, datasets) for name, rows in groups.items()]


def _build_group(name: str, rows: Iterable[int], rows_in_total: int, datasets: Sequence[str] | None) -> Group:
    indices = np.asarray(list(rows))
    if indices.size == 0:
        raise UserError(f"Group {name!r} has no rows; leave it out or give it at least one.")
    if indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer):
        raise UserError(f"Group {name!r} must be a list of row numbers; got {indices.dtype} values.")
    if indices.min() < 0 or indices.max() >= rows_in_total:
        raise UserError(
            f"Group {name!r} names row {indices.min() if indices.min() < 0 else indices.max()}, but "
            "the rows of "
            f"the Gram matrix are 0 to {rows_in_total - 1}."
        )
    if len(np.unique(indices)) != len(indices):
        raise UserError(f"Group {name!r} names a row twice; each batch counts once.")
    if datasets is None:
        return Group(name, (Stratum(name, indices.astype(np.intp)),))
    by_dataset: dict[str, list[int]] = {}
    for row in indices.tolist():
        by_dataset.setdefault(datasets[row], []).append(row)
    strata = (Stratum(dataset, np.array(members, dtype=np.intp)) for dataset, members in by_dataset.items())
    return Group(name, tuple(strata))
