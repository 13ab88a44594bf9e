"""A small mixture of experts, its batches, and plain autograd to compare with."""

import itertools

import numpy as np
import torch
from torch import nn


class Mixture(nn.Module):
    """Two experts, weighted by a router, read the same tokens; a norm and a bare parameter stand beside them.

    Tokens are fewer than a layer is wide, so that factors are less than gradients. An expert that a batch names as
    ``idle`` is not called.
    """

    def __init__(self, width=12, dtype=torch.float64):
        super().__init__()
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width + 2), nn.Tanh(), nn.Linear(width + 2, 6)) for _ in range(2)
        )
        self.router = nn.Linear(width, 2)
        self.norm = nn.LayerNorm(6)
        self.token = nn.Parameter(torch.randn(width))
        self.to(dtype)

    def forward(self, x, idle=()):
        mixed = x + self.token
        weights = self.router(mixed).softmax(-1)
        outputs = [
            weights[:, [number]] * expert(mixed) for number, expert in enumerate(self.experts) if number not in idle
        ]
        return self.norm(sum(outputs))


def build(seed=0, **settings):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Mixture(**settings)


def batches(count, seed, width=12, tokens=3, dtype=torch.float64, **more):
    generator = torch.Generator().manual_seed(seed)
    return [
        {
            "x": torch.randn(tokens, width, generator=generator, dtype=torch.float64).to(dtype),
            "y": torch.randn(tokens, 6, generator=generator, dtype=torch.float64).to(dtype) + seed,
            **more,
        }
        for _ in range(count)
    ]


def loss(model, batch):
    return ((model(batch["x"], batch.get("idle", ())) - batch["y"]) ** 2).mean()


def gradients(model, data, scale=None, names=None, loss=loss):
    """Flattened gradients of all batches, ``(n, parameters)`` float64; ``scale`` multiplies them by name."""
    rows = []
    for batch in itertools.chain(*data.values()):
        model.zero_grad()
        loss(model, batch).backward()
        row = []
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and (names is None or name in names):
                gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                row.append((gradient * (1 if scale is None else scale[name])).flatten().double())
        rows.append(torch.cat(row))
    model.zero_grad()
    return torch.stack(rows)


def gram(model, data, **settings):
    rows = gradients(model, data, **settings)
    return (rows @ rows.T).numpy()


def relative_error(measured, exact):
    """``max |dK_ab| / sqrt(K_aa K_bb)``; where a gradient is zero its products have to be zero exactly."""
    norms = np.sqrt(np.diagonal(exact))
    scale = np.outer(norms, norms)
    assert (measured[scale == 0] == 0).all()
    return float((abs(measured - exact)[scale > 0] / scale[scale > 0]).max(initial=0.0))
