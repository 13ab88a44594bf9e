"""Recording: the Gram matrices of one set of probed batches, which later questions are answered from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tugofwar import storage
from tugofwar.errors import UserError
from tugofwar.naming import closest, matches
from tugofwar.plain_table import plain_table
from tugofwar.statistics import Statistics
from tugofwar.storage import Choice

Triangles = Mapping[str, NDArray[np.float64]]


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
        geometries: the same triangles of gradients that were scaled before any product, by the name of the
            geometry, such as ``adam``; see ``in_geometry``.
        statistics: statistics scores (eq. 5) of the parameters; None where they were not asked for or cannot
            be had, as from a sketch.
        choices: how the gradients of each part were kept and multiplied, and why; see ``report``.
    """

    blocks: tuple[Block, ...]
    upper_triangles: Triangles
    datasets: list[str]
    losses: NDArray[np.float64]
    untouched: tuple[str, ...] = ()
    tasks: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    geometries: Mapping[str, Triangles] = field(default_factory=dict)
    statistics: Statistics | None = None
    choices: tuple[Choice, ...] = ()

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
        kept_names = [block.name for block in kept]
        return replace(
            self,
            blocks=kept,
            upper_triangles={name: self.upper_triangles[name] for name in kept_names},
            geometries={
                geometry: {name: triangles[name] for name in kept_names}
                for geometry, triangles in self.geometries.items()
            },
            statistics=self.statistics.select(kept_names) if self.statistics else None,
            choices=tuple(choice for choice in self.choices if choice.block in chosen),
        )

    def in_geometry(self, name: str) -> "Recording":
        """The same batches with every gradient scaled, as by Adam: ``adam`` divides by ``sqrt(v) + eps``.

        Statistics scores do not change under such a scale.

        Raises:
            UserError: nothing was recorded in that geometry.
        """
        if name not in self.geometries:
            known = ", ".join(self.geometries) or "none but the plain gradient's"
            raise UserError(f"The recording has no geometry {name!r}; it has {known}.")
        return replace(self, upper_triangles=self.geometries[name], geometries={})

    def report(self) -> str:
        """A table of how each part's gradients were kept and multiplied, with what decided it."""
        rows = [
            [choice.part, f"{choice.parameters:,}", choice.kept, choice.multiplied, choice.reason]
            for choice in self.choices
        ]
        return plain_table(["part", "parameters", "kept as", "products", "why"], rows)

    def save(self, folder: str | Path) -> None:
        """Write ``recording.safetensors`` and ``manifest.json``; equal recordings give equal bytes.

        Raises:
            UserError: metadata that is not strict JSON.
        """
        tensors: dict[str, NDArray[Any]] = {f"gram/{name}": each for name, each in self.upper_triangles.items()}
        for geometry, triangles in self.geometries.items():
            tensors |= {f"gram_{geometry}/{name}": each for name, each in triangles.items()}
        if self.statistics:
            tensors |= self.statistics.to_arrays()
        content = {
            "datasets": [{"name": name, "batches": len(rows)} for name, rows in self.rows.items()],
            "untouched": list(self.untouched),
            "tasks": dict(self.tasks),
            "blocks": [
                {
                    "name": block.name,
                    "parameters": [{"name": name, "size": size} for name, size in block.parameters.items()],
                }
                for block in self.blocks
            ],
            "geometries": list(self.geometries),
            "statistics": self.statistics.metadata() if self.statistics else None,
            "choices": list(self.choices),
            "metadata": dict(self.metadata),
        }
        storage.write(Path(folder), content, tensors | {"losses": self.losses})

    @classmethod
    def load(cls, folder: str | Path) -> "Recording":
        """Read what ``save`` wrote, and check it.

        Raises:
            UserError: no recording there, or one that is truncated, foreign or of another format version.
        """
        manifest, tensors = storage.read(Path(folder))
        path = Path(folder) / storage.TENSORS
        datasets = [part.name for part in manifest.datasets for _ in range(part.batches)]
        blocks = tuple(Block(part.name, {each.name: each.size for each in part.parameters}) for part in manifest.blocks)
        shape = (len(datasets) * (len(datasets) + 1) // 2,)

        def triangles(prefix: str) -> Triangles:
            return {block.name: storage.expect(path, tensors, f"{prefix}/{block.name}", shape) for block in blocks}

        return cls(
            blocks=blocks,
            upper_triangles=triangles("gram"),
            datasets=datasets,
            losses=storage.expect(path, tensors, "losses", (len(datasets),)),
            untouched=tuple(manifest.untouched),
            tasks=manifest.tasks,
            metadata=manifest.metadata,
            geometries={name: triangles(f"gram_{name}") for name in manifest.geometries},
            statistics=None if manifest.statistics is None else Statistics.from_arrays(tensors, manifest.statistics),
            choices=tuple(manifest.choices),
        )


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
