"""Gram matrix of the batch gradients of one block, in float64 and bounded memory."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

# Columns of all rows that are widened to float64 at a time.
_CHUNK_BYTES = 128 * 2**20


def gram_matrix(rows: Sequence[torch.Tensor], chunk_bytes: int = _CHUNK_BYTES) -> NDArray[np.float64]:
    """Inner products of all pairs of rows, accumulated over column chunks.

    Args:
        rows: ``n`` flat gradients of one block, ``(parameters,)`` each.
        chunk_bytes: size of the float64 work array.

    Returns:
        ``(n, n)`` float64, symmetric to the bit.
    """
    columns = rows[0].numel()
    step = max(1, chunk_bytes // (8 * len(rows)))
    total = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for start in range(0, columns, step):
        chunk = torch.stack([row[start : start + step].double() for row in rows])
        total += chunk @ chunk.T
    upper = torch.triu(total)
    return (upper + torch.triu(total, diagonal=1).T).numpy()
