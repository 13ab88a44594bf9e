"""Recording: the Gram matrices of one set of probed batches, which later questions are answered from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tugofwar.errors import UserError
from tugofwar.naming import closest, matches


@dataclass(frozen=True)
class Block:
    """One module's selected parameters: full dotted name to number of scalars."""

    name: str
    parameters: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class Recording:
    """Inner products of the gradients of ``n`` batches, kept per block of parameters.

    Attributes:
        blocks: the blocks in the model's order.
        upper_triangles: per block name, the ``n (n + 1) / 2`` float64 inner products on and above the
            diagonal, row after row; in squared units of loss per unit of parameter.
        datasets: dataset of each of the ``n`` rows; the rows of one dataset are contiguous.
        losses: mean loss of each row's batch, ``(n,)``.
        untouched: datasets that were probed but whose loss never reaches a selected parameter; they have no
            rows.
        tasks: task of each dataset, where the caller gave any.
        metadata: what the caller wants to know about the run later; JSON values only.
    """

    blocks: tuple[Block, ...]
    upper_triangles: Mapping[str, NDArray[np.float64]]
    datasets: list[str]
    losses: NDArray[np.float64]
    untouched: tuple[str, ...] = ()
    tasks: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.datasets)

    @property
    def gram(self) -> NDArray[np.float64]:
        """``(n, n)`` float64 inner products, summed over the blocks; symmetric to the bit."""
        total = np.zeros(len(self) * (len(self) + 1) // 2)
        for block in self.blocks:
            total += self.upper_triangles[block.name]
        return _square(total, len(self))

    @property
    def rows(self) -> dict[str, list[int]]:
        """Row numbers of each dataset that has rows, in the order of the rows."""
        rows: dict[str, list[int]] = {}
        for row, dataset in enumerate(self.datasets):
            rows.setdefault(dataset, []).append(row)
        return rows

    @property
    def parameters(self) -> dict[str, int]:
        """Number of scalars of every selected parameter, by full dotted name."""
        return {name: size for block in self.blocks for name, size in block.parameters.items()}

    def select(self, blocks: str | Sequence[str]) -> "Recording":
        """The same batches on some of the blocks only.

        Args:
            blocks: a glob, or several, on a block's dotted name or any dotted suffix of it; a block is also
                selected when the glob matches all of its parameters' names.

        Raises:
            UserError: a glob that selects nothing; it lists the closest names.
        """
        patterns = [blocks] if isinstance(blocks, str) else list(blocks)
        chosen: set[str] = set()
        for pattern in patterns:
            names = {block.name for block in self.blocks if _block_matches(block, pattern)}
            if not names:
                known = [block.name for block in self.blocks]
                raise UserError(f"The glob {pattern!r} selects no block of the recording; {closest(pattern, known)}.")
            chosen |= names
        kept = tuple(block for block in self.blocks if block.name in chosen)
        triangles = {block.name: self.upper_triangles[block.name] for block in kept}
        return replace(self, blocks=kept, upper_triangles=triangles)

    def save(self, folder: str | Path) -> None:
        """Write ``recording.safetensors`` and ``manifest.json``; equal recordings give equal bytes.

        Raises:
            UserError: metadata that is not strict JSON.
        """
        from tugofwar.storage import save

        save(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> "Recording":
        """Read what ``save`` wrote, and check it.

        Raises:
            UserError: no recording there, or one that is truncated, foreign or of another format version.
        """
        from tugofwar.storage import load

        return load(Path(folder))


def upper_triangle(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The ``n (n + 1) / 2`` entries on and above the diagonal of ``(n, n)``, row after row."""
    return matrix[np.triu_indices(len(matrix))]


def _square(triangle: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    matrix = np.zeros((size, size))
    upper = np.triu_indices(size)
    matrix[upper] = triangle
    matrix.T[upper] = triangle
    return matrix


def _block_matches(block: Block, pattern: str) -> bool:
    return matches(block.name, pattern) or all(matches(name, pattern) for name in block.parameters)
