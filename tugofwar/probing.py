"""The contract between the instrument and a model: what a batch is, and what a loss is."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tugofwar.errors import UserError

Loss = Callable[[nn.Module, Any], Tensor]
"""``loss(model, batch)``: the mean loss of a batch, a scalar."""


def default_loss(model: nn.Module, batch: Any) -> Tensor:
    """``model(**batch).loss``, as transformers' models have it.

    Raises:
        UserError: a batch that is no mapping, or a model that returns no loss.
    """
    if not isinstance(batch, Mapping):
        raise UserError(
            f"The default loss is model(**batch).loss, but a batch is a {type(batch).__name__}; "
            "pass loss=, a function of (model, batch)."
        )
    output = model(**batch)
    value = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    if value is None:
        raise UserError(
            "model(**batch) returned no loss; add labels to the batches, or pass loss=, a function of (model, batch)."
        )
    return value


def move_to(batch: Any, device: torch.device) -> Any:
    """``batch`` with every tensor in its (nested) mappings, lists and tuples on ``device``."""
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {key: move_to(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(move_to(value, device) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(move_to(value, device) for value in batch)
    return batch
