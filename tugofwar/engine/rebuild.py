"""Gradients rebuilt from what the passes left, some columns of all batches at a time."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from tugofwar.engine.parts import Part
from tugofwar.engine.passes import Piece
from tugofwar.engine.store import Store

# More rows of a weight at a time than this make the products no faster.
_MOST_ROWS = 64


def chunk_rows(part: Part, batches: int, buffer_bytes: int) -> int:
    """How many rows of a part's weight to rebuild at a time for all ``batches``; at least one."""
    rows, columns = part.shape
    fitting = max(1, buffer_bytes // (batches * columns * part.dtype.itemsize))
    return min(rows, fitting, _MOST_ROWS if columns > 1 else rows)


def gradient_chunks(
    part: Part,
    pieces: Sequence[Piece],
    store: Store,
    buffer_bytes: int,
    share: tuple[int, int] = (0, 1),
    device: torch.device | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """Yield ``(first column, gradients)``: consecutive columns of the part's gradients, for all batches.

    Args:
        part: whose gradients.
        pieces: what each of the ``n`` batches left of them.
        store: where the pieces are.
        buffer_bytes: size of the buffer that the gradients are rebuilt in; it is used again for each chunk.
        share: ``(rank, processes)``: only every ``processes``-th chunk is rebuilt, from chunk ``rank`` on.
        device: where to rebuild; the CPU by default.

    Yields:
        the position of the chunk in the part's flattened gradient, and ``(n, columns of the chunk)`` in
        ``part.dtype``.
    """
    rank, processes = share
    rows, columns = part.shape
    step = min(chunk_rows(part, len(pieces), buffer_bytes), -(-rows // processes))
    buffer = torch.empty(len(pieces) * step * columns, dtype=part.dtype, device=device)
    for number, start in enumerate(range(0, rows, step)):
        if number % processes != rank:
            continue
        height = min(step, rows - start)
        chunk = buffer[: len(pieces) * height * columns].view(len(pieces), height, columns)
        for piece, target in zip(pieces, chunk, strict=True):
            _rebuild(part, piece, store, start, target)
        yield start * columns, chunk.view(len(pieces), height * columns)


def _rebuild(part: Part, piece: Piece, store: Store, start: int, target: Tensor) -> None:
    """Fill ``target`` ``(height, columns)`` with rows ``start`` onwards of one batch's gradient."""
    height, columns = target.shape
    if piece is None:
        target.zero_()
        return
    if not isinstance(piece, tuple):
        dense = store.get(piece)
        target.copy_(dense[start * columns : (start + height) * columns].view(height, columns))
        return
    for number, (kept_input, kept_gradient) in enumerate(piece):
        left, right = store.get(kept_gradient), store.get(kept_input)
        if part.transposed:
            left, right = right.T, left.T
        left = left[start : start + height].to(target.device, target.dtype)
        right = right.to(target.device, target.dtype)
        if number == 0:
            torch.mm(left, right, out=target)
        else:
            target.addmm_(left, right)
