"""Ways to the Gram matrix of batch gradients that need nothing but torch, and ours."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import tugofwar as tow
from gradient_cost.pacing import Batches
from gradient_cost.workload import VisionLanguageModel, mean_loss, parameters_of, plain_gradient

Gram = NDArray[np.float64]
Method = Callable[[VisionLanguageModel, Batches, int], Gram | None]
"""``method(model, batches, datasets)``: the Gram matrix ``(n, n)``, or None if it gives less than that."""


def ours(model: VisionLanguageModel, batches: Batches, datasets: int) -> Gram:
    """``tugofwar.record`` as it comes."""
    return _recorded(model, batches, datasets, statistics=True)


def ours_without_statistics(model: VisionLanguageModel, batches: Batches, datasets: int) -> Gram:
    """``tugofwar.record`` without statistics scores: the Gram matrix only, as everybody else here."""
    return _recorded(model, batches, datasets, statistics=False)


def _recorded(model: VisionLanguageModel, batches: Batches, datasets: int, statistics: bool) -> Gram:
    parts = {f"dataset {number}": part for number, part in enumerate(batches.split(datasets))}
    each = len(batches) // datasets
    return tow.record(
        model, parts, "connector.*", batches=each, loss=mean_loss, progress=False, statistics=statistics
    ).gram


def naive(model: VisionLanguageModel, batches: Batches, _: int) -> Gram:
    """Keep every flattened gradient and multiply them all.

    They are written into one matrix from the start: ``torch.stack`` of a list would hold them twice.
    """
    gradients = torch.empty(len(batches), sum(parameter.numel() for parameter in parameters_of(model)))
    for row, batch in zip(gradients, batches, strict=True):
        torch.cat([gradient.flatten() for gradient in plain_gradient(model, batch)], out=row)
    return (gradients @ gradients.T).double().numpy()


def two_pass(model: VisionLanguageModel, batches: Batches, datasets: int) -> None:
    """Norms and mean unit gradients in a first pass; products with those in a second pass of the same batches.

    Enough for the plugin estimator of GD and GM, but not the Gram matrix: no other estimator, no intervals.
    """
    parts = batches.split(datasets)
    means = torch.zeros(datasets, sum(parameter.numel() for parameter in parameters_of(model)))
    for mean, part in zip(means, parts, strict=True):
        for batch in part:
            gradient = _flat(plain_gradient(model, batch))
            mean.add_(gradient, alpha=1 / (len(part) * float(gradient.norm())))
    for part in parts:
        for batch in part:
            means @ _flat(plain_gradient(model, batch))


def exact(model: VisionLanguageModel, batches: Batches, _: int) -> Gram:
    """The naive loop with model, batches, gradients and products in float64: the reference."""
    wide = model.double()
    rows = []
    for batch in batches:
        converted = {name: value.double() if value.is_floating_point() else value for name, value in batch.items()}
        rows.append(_flat(plain_gradient(wide, converted)))
    gradients = torch.stack(rows)
    return (gradients @ gradients.T).numpy()


def _flat(gradients: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([gradient.flatten() for gradient in gradients])


METHODS: dict[str, Method] = {
    "ours": ours,
    "ours, without statistics": ours_without_statistics,
    "naive loop": naive,
    "two-pass streaming": two_pass,
}
