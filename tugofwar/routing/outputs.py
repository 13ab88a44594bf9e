"""What a router gives, read as one weight per expert; and the same with an expert switched off.

Three forms are known:

* a tensor ``(..., experts)``, or a tuple or mapping (transformers' ``ModelOutput``) that begins with one: the weights
  themselves where all rows are distributions, otherwise logits, whose softmax the weights are;
* the triple of a top-k gate, as transformers' mixtures have it: logits ``(..., experts)``, the chosen experts' scores
  ``(..., k)`` and their numbers ``(..., k)``. The weights are the scores at these numbers, divided by their sum, and 0
  for all other experts: what the mixture is made with, not the softmax of all logits;
* logits among other tensors: the weights are their softmax, but what the model does with the other tensors is not
  known, so that no expert can be switched off.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tugofwar.errors import UserError

WEIGHTS, LOGITS = "weights", "logits"


@dataclass(frozen=True)
class RouterOutput:
    """A router's output, taken apart.

    Attributes:
        main: ``(..., experts)``: weights or logits.
        gives: ``weights`` or ``logits``.
        chosen: scores and numbers ``(..., k)`` of a top-k gate's experts.
        switchable: whether it is known what the model reads, so that an expert can be switched off.
    """

    main: Tensor
    gives: str
    chosen: tuple[Tensor, Tensor] | None = None
    switchable: bool = True

    def weights(self, top_k: int | None = None) -> Tensor:
        """Weights ``(..., experts)`` in double precision (single on devices that have no double), summing to 1.

        Args:
            top_k: how many experts the model keeps of logits; None for all.
        """
        precision = torch.float32 if self.main.device.type == "mps" else torch.float64
        if self.chosen is not None:
            scores, numbers = self.chosen
            spread = torch.zeros(self.main.shape, dtype=precision, device=self.main.device)
            return _divided_by_sum(spread.scatter_add(-1, numbers.long(), scores.to(precision)))
        main = self.main.to(precision)
        if self.gives == WEIGHTS:
            return _divided_by_sum(main.clamp(min=0))
        if top_k is not None:
            best, numbers = main.topk(top_k, dim=-1)
            main = torch.full_like(main, -torch.inf).scatter(-1, numbers, best)
        return main.softmax(dim=-1)


def parse(output: Any, name: str) -> RouterOutput | None:
    """Take a router's output apart; None when it has no rows.

    Args:
        output: what the module returned.
        name: of the module, for messages.

    Raises:
        UserError: an output that holds no weights.
    """
    tensors = [part for part in _parts(output) if isinstance(part, Tensor)]
    if not tensors:
        kind = type(output).__name__
        raise UserError(f"{name} is no router: it gives a {kind}, not a tensor with the experts as last axis.")
    if not any(tensor.numel() for tensor in tensors):
        return None
    gate = _top_k_gate(tensors)
    if gate is not None:
        return gate
    if _are_distributions(tensors[0]):
        return RouterOutput(tensors[0], WEIGHTS)
    for tensor in tensors:
        if tensor.is_floating_point() and tensor.ndim > 1:
            known = all(other is tensor or other.numel() <= 1 for other in tensors)
            return RouterOutput(tensor, WEIGHTS if _are_distributions(tensor) else LOGITS, switchable=known)
    shapes = ", ".join(f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}" for tensor in tensors)
    raise UserError(f"{name} is no router whose weights can be read: it gives {shapes}, no weight for every expert.")


def without_expert(output: Any, parsed: RouterOutput, expert: int) -> Any:
    """The output with one expert's weight at 0 and the others scaled to the sum that all had before.

    Logits become minus infinity instead, which comes to the same, and lets a choice of the best k that is made
    afterwards fall on another expert. A top-k gate has chosen already: its other k - 1 experts take over. A token whose
    whole weight is on this expert (a hard router, k = 1) keeps no weight at all: the mixture gives 0 for it.

    Args:
        output: what the module returned.
        parsed: ``parse(output)``.
        expert: its number.
    """
    if parsed.chosen is not None:
        scores, numbers = parsed.chosen
        return _replaced(output, scores, _zeroed(scores, numbers == expert))
    numbers = torch.arange(parsed.main.shape[-1], device=parsed.main.device)
    if parsed.gives == WEIGHTS:
        return _replaced(output, parsed.main, _zeroed(parsed.main, numbers == expert))
    return _replaced(output, parsed.main, parsed.main.masked_fill(numbers == expert, -torch.inf))


def _top_k_gate(tensors: Sequence[Tensor]) -> RouterOutput | None:
    """Logits, scores and numbers, in this order; the first tensor may also be the softmax of the logits."""
    if len(tensors) < 3:
        return None
    main, scores, numbers = tensors[:3]
    fits = (
        main.is_floating_point()
        and scores.is_floating_point()
        and not (numbers.is_floating_point() or numbers.dtype == torch.bool)
        and main.ndim > 1
        and scores.shape == numbers.shape
        and main.shape[:-1] == scores.shape[:-1]
        and 0 < numbers.shape[-1] <= main.shape[-1]
    )
    if not fits or not bool(((numbers >= 0) & (numbers < main.shape[-1])).all()):
        return None
    return RouterOutput(main, WEIGHTS, chosen=(scores, numbers))


def _are_distributions(tensor: Tensor) -> bool:
    """Whether all rows that are finite are not negative and sum to 1, within the precision of their type."""
    if tensor.ndim == 0 or tensor.is_complex():
        return False
    rows = tensor.float().flatten(0, -2) if tensor.ndim > 1 else tensor.float().unsqueeze(0)
    rows = rows[rows.isfinite().all(dim=-1)]
    tolerance = 1e-3 if not tensor.is_floating_point() or tensor.dtype.itemsize > 2 else 2e-2
    return bool(len(rows) and (rows >= -tolerance).all() and ((rows.sum(dim=-1) - 1).abs() <= tolerance).all())


def _divided_by_sum(weights: Tensor) -> Tensor:
    return weights / weights.sum(dim=-1, keepdim=True)


def _zeroed(weights: Tensor, off: Tensor) -> Tensor:
    """Weights with those that are ``off`` at 0 and the row's sum unchanged, unless nothing is left in it."""
    left = weights.masked_fill(off, 0)
    remaining = left.sum(dim=-1, keepdim=True)
    scaled = left * (weights.sum(dim=-1, keepdim=True) / remaining)
    return torch.where(remaining > 0, scaled, left) if weights.is_floating_point() else left


def _parts(output: Any) -> Sequence[Any]:
    if isinstance(output, Mapping):
        return list(output.values())
    return output if isinstance(output, tuple | list) else [output]


def _replaced(output: Any, old: Tensor, new: Tensor) -> Any:
    """The same output with another tensor in one place."""
    if output is old:
        return new
    if isinstance(output, Mapping):
        key = next(key for key, value in output.items() if value is old)
        changed: Any = copy.copy(output)
        changed[key] = new
        return changed
    parts = [new if part is old else part for part in output]
    return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)
