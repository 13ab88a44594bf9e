"""From what the passes left to Gram matrices per block, and whatever else is folded in on the way."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tugofwar.engine.choice import Operations, count_operations
from tugofwar.engine.parts import Part
from tugofwar.engine.passes import Piece, Row
from tugofwar.engine.processes import Processes
from tugofwar.engine.products import GramAccumulator, add_token_kernel, token_kernel_fits
from tugofwar.engine.rebuild import gradient_chunks
from tugofwar.engine.store import Kept, Store
from tugofwar.errors import UserError
from tugofwar.recording import upper_triangle


class Fold(Protocol):
    """Something that is computed from the rebuilt gradients besides their Gram matrix."""

    def add(self, part: Part, first: int, gradients: Tensor) -> None:
        """Take ``(n, columns)`` gradients of a part, from column ``first`` of the part on."""

    def finish(self, block: str, gram: NDArray[np.float64]) -> None:
        """Take the block's finished Gram matrix, after all of its columns in all processes."""


@dataclass
class Products:
    """What was computed.

    Attributes:
        triangles: upper triangle of the Gram matrix of every block, ``n (n + 1) / 2``.
        scaled: the same in other geometries, by name.
        multiplied: per part (by number) how its products were formed, and the operations counted.
    """

    triangles: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    scaled: dict[str, dict[str, NDArray[np.float64]]] = field(default_factory=dict)
    multiplied: dict[int, tuple[str, Operations | None]] = field(default_factory=dict)


class Assembly:
    """Forms the products of all parts.

    Args:
        parts: what was measured.
        store: where the pieces are.
        processes: who shares the work.
        buffer_bytes: size of the buffer that gradients are rebuilt in.
        scales: geometry name -> parameter name -> factor of each scalar, applied before any product.
        folds: what else wants the rebuilt gradients (unscaled).
    """

    def __init__(
        self,
        parts: Sequence[Part],
        store: Store,
        processes: Processes,
        buffer_bytes: int,
        scales: Mapping[str, Mapping[str, Tensor]] | None = None,
        folds: Iterable[Fold] = (),
    ) -> None:
        self.parts = list(parts)
        self.store = store
        self.processes = processes
        self.buffer_bytes = buffer_bytes
        self.scales = dict(scales or {})
        self.folds = list(folds)

    def run(self, rows: Sequence[Row], owners: Sequence[int], tick: Callable[[], object]) -> Products:
        """Gram matrices of all blocks.

        Args:
            rows: all ``n`` batches in order; of batches that another process passed, only the place.
            owners: rank of the process that passed each batch.
            tick: called after each part.

        Raises:
            UserError: a product that overflows, or a file of means or scores that finds the disk full.
        """
        products = Products(scaled={name: {} for name in self.scales})
        for block in dict.fromkeys(part.block for part in self.parts):
            plain = GramAccumulator(len(rows))
            scaled = {name: GramAccumulator(len(rows)) for name in self.scales}
            for number, part in enumerate(self.parts):
                if part.block == block:
                    pieces = self._pieces(number, rows, owners)
                    products.multiplied[number] = self._together(part, pieces, plain, scaled)
                    tick()
            for total in (plain, *scaled.values()):
                self.processes.sum(total.state)
            gram = _finite(plain, block)
            products.triangles[block] = upper_triangle(gram)
            for name, total in scaled.items():
                products.scaled[name][block] = upper_triangle(_finite(total, block))
            for fold in self.folds:
                fold.finish(block, gram)
        return products

    def _together(
        self, part: Part, pieces: list[Piece], plain: GramAccumulator, scaled: Mapping[str, GramAccumulator]
    ) -> tuple[str, Operations | None]:
        """``_add_part``; a mistake that one process finds is raised in all of them, which would wait for it."""
        error: UserError | None = None
        multiplied: tuple[str, Operations | None] = ("", None)
        try:
            multiplied = self._add_part(part, pieces, plain, scaled)
        except UserError as found:
            error = found
        self.processes.agree(error)
        return multiplied

    def _pieces(self, number: int, rows: Sequence[Row], owners: Sequence[int]) -> list[Piece]:
        """The part's piece of every batch, fetched from the processes that have them."""
        if self.processes.world == 1:
            return [row.pieces[number] for row in rows]
        mine = [row.pieces[number] for row, owner in zip(rows, owners, strict=True) if owner == self.processes.rank]
        # Per piece the number of calls: -1 for a dense row, 0 for nothing.
        calls = [0 if piece is None else len(piece) if isinstance(piece, tuple) else -1 for piece in mine]
        tensors = [self.store.get(kept) for piece in mine for kept in _kept(piece)]
        layouts = self.processes.gather(calls)
        received = [iter(each) for each in self.processes.exchange(tensors)]
        counts = [iter(layout) for layout in layouts]
        return [_take(next(counts[owner]), received[owner]) for owner in owners]

    def _add_part(
        self, part: Part, pieces: list[Piece], plain: GramAccumulator, scaled: Mapping[str, GramAccumulator]
    ) -> tuple[str, Operations | None]:
        device = part.weight.device if part.owners and part.weight.is_cuda else None
        operations = self._operations(part, pieces)
        kernel = operations is not None and operations.kernel_is_cheaper
        if kernel:
            factors = [piece for piece in pieces if piece is None or isinstance(piece, tuple)]
            add_token_kernel(plain, part, factors, self.store, self.buffer_bytes, self.processes.share, device)
        if kernel and not self.folds:
            return "token kernel", operations
        share = self.processes.share
        scales = {name: _in_one_row(part, scale) for name, scale in self.scales.items()}
        for first, gradients in gradient_chunks(part, pieces, self.store, self.buffer_bytes, share, device):
            for fold in self.folds:
                fold.add(part, first, gradients)
            if not kernel:
                plain.add(gradients)
            for name, scale in scales.items():
                columns = scale[first : first + gradients.shape[1]]
                scaled[name].add(gradients * columns.to(gradients.device, gradients.dtype))
        return "token kernel" if kernel else "rebuilt" if operations else "dense rows", operations

    def _operations(self, part: Part, pieces: Sequence[Piece]) -> Operations | None:
        """Counted operations, for a part whose every piece is factors or nothing."""
        if not part.owners or any(piece is not None and not isinstance(piece, tuple) for piece in pieces):
            return None
        if all(piece is None for piece in pieces):
            return None
        tokens = sum(x.shape[0] for piece in pieces if isinstance(piece, tuple) for x, _ in piece)
        if self.scales or not token_kernel_fits(part, pieces, self.buffer_bytes):
            # Scaling single scalars needs the gradients themselves.
            return Operations(count_operations(part, len(pieces), tokens, True).rebuild, float("inf"))
        return count_operations(part, len(pieces), tokens, bool(self.folds))


def _finite(total: GramAccumulator, block: str) -> NDArray[np.float64]:
    gram = total.matrix()
    if not np.isfinite(gram).all():
        raise UserError(
            f"The inner products of the gradients of {block!r} overflow; scale the loss down or use a float64 model."
        )
    return gram


def _in_one_row(part: Part, scale: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([scale[name].reshape(-1).cpu() for name in part.parameters])


def _kept(piece: Piece) -> list[Kept]:
    if piece is None:
        return []
    return [kept for call in piece for kept in call] if isinstance(piece, tuple) else [piece]


def _take(calls: int, remaining: Iterator[Tensor]) -> Piece:
    if calls == 0:
        return None
    if calls < 0:
        return next(remaining)
    return tuple((next(remaining), next(remaining)) for _ in range(calls))
