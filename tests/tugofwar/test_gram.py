import numpy as np
import torch

from tugofwar.gram import gram_matrix


def test_chunks_add_up_to_the_whole_product():
    rows = list(torch.randn(5, 103, generator=torch.Generator().manual_seed(0)))
    exact = torch.stack(rows).double() @ torch.stack(rows).double().T
    ours = gram_matrix(rows, chunk_bytes=8 * 5 * 10)
    np.testing.assert_allclose(ours, exact.numpy(), rtol=1e-12, atol=1e-12)
    assert (ours == ours.T).all()
    assert ours.dtype == np.float64


def test_float32_rows_are_multiplied_in_float64():
    row = torch.full((1000,), 1 + 2**-20, dtype=torch.float32)
    assert gram_matrix([row])[0, 0] == 1000 * (1 + 2**-20) ** 2
