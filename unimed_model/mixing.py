"""The weighted sum of experts' outputs (eq. 9), computed in the cheapest of three equal ways."""

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

_JOINED_UP_TO = 4096
"""Tokens times the widest layer up to which one product for all experts is faster than one product each: there the
calls take the time; beyond, copying the weights together costs more than the calls saved (``benchmarks/model.py``)."""


def mix(experts: nn.ModuleList, tokens: Tensor, weights: Tensor, *, skip_zeros: bool = False) -> Tensor:
    """Return ``sum_e weights[:, e] * experts[e](tokens)``.

    Args:
        experts: sequences of linear layers and activations, all of one shape.
        tokens: (tokens, width_in).
        weights: (tokens, experts).
        skip_zeros: give each expert only the tokens whose weight for it is not 0.

    Returns:
        (tokens, width_out).
    """
    if skip_zeros and not tokens.is_meta:
        return _chosen(experts, tokens, weights)
    if _can_be_joined(experts, len(tokens)):
        return _joined(experts, tokens, weights)
    return _one_by_one(experts, tokens, weights)


def _one_by_one(experts: Iterable[nn.Module], tokens: Tensor, weights: Tensor) -> Tensor:
    mixed: Tensor | None = None
    for weight, expert in zip(weights.split(1, dim=1), experts, strict=True):
        output = expert(tokens)
        mixed = weight * output if mixed is None else torch.addcmul(mixed, weight, output)
    return cast("Tensor", mixed)


def _chosen(experts: Iterable[nn.Module], tokens: Tensor, weights: Tensor) -> Tensor:
    """Every expert is called, if need be without tokens: distributed training waits for every parameter's gradient."""
    mixed: Tensor | None = None
    for index, expert in enumerate(experts):
        rows = weights[:, index].nonzero().squeeze(1)
        output = weights[rows, index, None] * expert(tokens[rows])
        if mixed is None:
            mixed = output.new_zeros(len(tokens), output.shape[1])
        mixed = mixed.index_add(0, rows, output)
    return cast("Tensor", mixed)


def _can_be_joined(experts: nn.ModuleList, tokens: int) -> bool:
    """Whether one product per layer for all experts is faster, and sees all that calling the modules would.

    Hooks (of the instrument, of sharded training) and layers of other types (adapters, quantised ones) need calls.
    """
    modules = [module for expert in experts for module in expert.modules()]
    if any(type(module) not in (nn.Sequential, nn.Linear, nn.GELU) or _has_hooks(module) for module in modules):
        return False
    linears = [module for module in modules if isinstance(module, nn.Linear)]
    widest = max(max(linear.weight.shape) for linear in linears)
    return len(experts) > 1 and tokens * widest <= _JOINED_UP_TO


def _has_hooks(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def _joined(experts: nn.ModuleList, tokens: Tensor, weights: Tensor) -> Tensor:
    hidden = tokens.unsqueeze(0)
    for alike in zip(*experts, strict=True):
        if isinstance(alike[0], nn.Linear):
            hidden = _joined_linear(cast("tuple[nn.Linear, ...]", alike), hidden)
        else:
            hidden = alike[0](hidden)
    return torch.einsum("etd,te->td", hidden, weights)


def _joined_linear(layers: tuple[nn.Linear, ...], tokens: Tensor) -> Tensor:
    """Apply layer e to its tokens: (1 or experts, tokens, width_in) -> (experts, tokens, width_out)."""
    if len(tokens) == 1:  # all read the same tokens
        weight, bias = torch.cat([layer.weight for layer in layers]), torch.cat([layer.bias for layer in layers])
        return nn.functional.linear(tokens[0], weight, bias).unflatten(1, (len(layers), -1)).transpose(0, 1)
    weight, bias = torch.stack([layer.weight for layer in layers]), torch.stack([layer.bias for layer in layers])
    return torch.baddbmm(bias.unsqueeze(1), tokens, weight.transpose(1, 2))
