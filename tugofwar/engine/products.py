"""Inner products of all pairs of batches: of rebuilt gradients, or of factors directly (the token kernel)."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tugofwar.engine.parts import Part
from tugofwar.engine.passes import Factors, Piece
from tugofwar.engine.store import Store

# Batches in one tile, about; tiles below the diagonal are not computed. Smaller ones leave out more of what is
# symmetric, larger ones multiply faster.
_TILE = 250


class GramAccumulator:
    """Adds up ``G G^T`` over chunks of columns: products in the chunk's precision, sums in float64.

    Args:
        batches: number of rows ``n``.
    """

    def __init__(self, batches: int) -> None:
        self._total = torch.zeros(batches, batches, dtype=torch.float64)

    def add(self, gradients: Tensor) -> None:
        """Add the products of ``(n, columns)`` gradients."""
        batches = len(gradients)
        step = -(-batches // max(2, round(batches / _TILE)))
        for top in range(0, batches, step):
            above = gradients[top : top + step]
            for left in range(top, batches, step):
                products = above @ gradients[left : left + step].T
                self._total[top : top + step, left : left + step] += products.to("cpu", torch.float64)

    def add_tile(self, top: int, left: int, products: Tensor) -> None:
        """Add a finished tile whose upper left corner is ``(top, left)``."""
        height, width = products.shape
        self._total[top : top + height, left : left + width] += products.to("cpu", torch.float64)

    @property
    def state(self) -> Tensor:
        """``(n, n)`` float64 whose upper triangle is the sum so far; sums over processes merge."""
        return self._total

    def matrix(self) -> NDArray[np.float64]:
        """The Gram matrix, ``(n, n)`` float64, symmetric to the bit."""
        upper = torch.triu(self._total)
        return (upper + torch.triu(self._total, diagonal=1).T).numpy()


def token_kernel_fits(part: Part, pieces: Sequence[Piece], buffer_bytes: int) -> bool:
    """Whether the work arrays of two batches fit the buffer."""
    return _batches_per_tile(part, pieces, buffer_bytes) >= 1


def add_token_kernel(
    total: GramAccumulator,
    part: Part,
    pieces: Sequence[Factors | None],
    store: Store,
    buffer_bytes: int,
    share: tuple[int, int] = (0, 1),
    device: torch.device | None = None,
) -> None:
    """Add ``K_ab = sum_st (X_a X_b^T)_st (D_a D_b^T)_st`` of a part, over tokens ``s`` of ``a`` and ``t`` of ``b``.

    Exact like the products of gradients, and cheaper where tokens are few.

    Args:
        total: where the products are added.
        part: a candidate.
        pieces: the factors of each of the ``n`` batches, or None for a zero gradient.
        store: where the factors are.
        buffer_bytes: bounds the work arrays.
        share: ``(rank, processes)``: only every ``processes``-th tile is computed.
        device: where to compute; the CPU by default.
    """
    rank, processes = share
    step = max(1, _batches_per_tile(part, pieces, buffer_bytes))
    tiles = [(top, left) for top in range(0, len(pieces), step) for left in range(top, len(pieces), step)]
    for number, (top, left) in enumerate(tiles):
        if number % processes != rank:
            continue
        above, beside = (_Tokens(part, pieces[at : at + step], store, device) for at in (top, left))
        total.add_tile(top, left, above.products(beside))


class _Tokens:
    """The tokens of several batches after one another, and the batch of each."""

    def __init__(self, part: Part, pieces: Sequence[Factors | None], store: Store, device: torch.device | None) -> None:
        self._batches = len(pieces)
        outputs, inputs = reversed(part.shape) if part.transposed else part.shape
        pairs = [(store.get(x), store.get(d)) for piece in pieces for x, d in piece or ()]
        counts = [sum(len(store.get(x)) for x, _ in piece or ()) for piece in pieces]
        self.inputs = _stack([x for x, _ in pairs], inputs, part.dtype, device)
        self.gradients = _stack([d.T for _, d in pairs], outputs, part.dtype, device)
        self.batch = torch.repeat_interleave(torch.arange(self._batches), torch.tensor(counts)).to(device)

    def products(self, other: "_Tokens") -> Tensor:
        """``(batches, batches of the other)`` in float64."""
        kernel = (self.inputs @ other.inputs.T) * (self.gradients @ other.gradients.T)
        rows = torch.zeros(self._batches, kernel.shape[1], dtype=torch.float64, device=kernel.device)
        rows.index_add_(0, self.batch, kernel.double())
        sums = torch.zeros(self._batches, other._batches, dtype=torch.float64, device=kernel.device)
        return sums.index_add_(1, other.batch, rows)


def _batches_per_tile(part: Part, pieces: Sequence[Piece], buffer_bytes: int) -> int:
    # A tile of b batches of t tokens needs 2 b t (outputs + inputs) numbers of factors and about 4 (b t)^2 of products.
    budget = buffer_bytes / part.dtype.itemsize
    tokens = min(budget / (4 * sum(part.shape)), (budget / 4) ** 0.5)
    return int(tokens / max(1, *(_tokens(piece) for piece in pieces)))


def _tokens(piece: Piece) -> int:
    """Tokens of one batch at a layer; 0 where it left no factors."""
    return sum(x.shape[0] for x, _ in piece) if isinstance(piece, tuple) else 0


def _stack(tensors: Sequence[Tensor], width: int, dtype: torch.dtype, device: torch.device | None) -> Tensor:
    if not tensors:
        return torch.zeros(0, width, dtype=dtype, device=device)
    return torch.cat([tensor.to(device, dtype) for tensor in tensors])
