"""What one backward pass leaves behind at linear layers: inputs ``X`` and output gradients ``D``.

For ``y = x W^T`` the gradient of the loss with respect to ``W`` is ``D^T X`` (``X``: tokens x inputs, ``D``: tokens
x outputs), so both factors together are the gradient, and autograd need not form the product.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from tugofwar.engine.parts import Part

_LOW_PRECISION = (torch.bfloat16, torch.float16)


@dataclass(eq=False)
class Input:
    """The input of one or more linear layers, ``(tokens, inputs)``, copied when it was read."""

    tensor: Tensor


@dataclass(eq=False)
class Call:
    """One call of a linear layer.

    Attributes:
        part: the part whose weight was used.
        input: what the layer read; the same object for layers that read the same tensor.
        edge: where autograd leaves the gradient of the loss with respect to the layer's output.
        gradient: that gradient, ``(outputs, tokens)``; None when the output does not reach the loss.
    """

    part: Part
    input: Input
    edge: GradientEdge
    gradient: Tensor | None = None

    def receive(self, gradient: Tensor) -> None:
        """Keep a copy of the gradient with respect to the output, one row per output."""
        self.gradient = gradient.detach().reshape(-1, gradient.shape[-1]).T.contiguous()


class Capture:
    """Listens at the linear layers of candidate parts during one pass at a time.

    Args:
        parts: all parts; only candidates are listened to.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts_of: dict[nn.Module, Part] = {owner: part for part in parts for owner in part.owners}
        self._wanted: frozenset[Part] = frozenset()
        self._calls: list[Call] = []
        self._inputs: dict[tuple[Any, ...], tuple[Tensor, Input]] = {}

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Inside, the layers' outputs are seen; afterwards the hooks are gone, also after an exception."""
        with ExitStack() as stack:
            for module in self._parts_of:
                # Before the hooks of others, which may change the output: D belongs to the layer's own output.
                handle = module.register_forward_hook(self._on_forward, prepend=True, with_kwargs=True)
                stack.callback(handle.remove)
            yield

    @contextmanager
    def listening(self, parts: frozenset[Part]) -> Iterator[list[Call]]:
        """Inside, the calls of ``parts`` are collected into the list that is yielded."""
        self._wanted, self._calls = parts, []
        try:
            yield self._calls
        finally:
            self._wanted, self._calls = frozenset(), []
            self._inputs.clear()

    def _on_forward(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        part = self._parts_of[module]
        if part not in self._wanted or not isinstance(output, Tensor) or not output.requires_grad:
            return
        source = args[0] if args else next(iter(kwargs.values()), None)
        if isinstance(source, Tensor):
            # The edge, not the tensor: a later change in place would make the tensor another value's.
            self._calls.append(Call(part, self._input(source, output), get_gradient_edge(output)))

    def _input(self, source: Tensor, output: Tensor) -> Input:
        # Under autocast the layer itself reads its input in the precision of its output; a model that is spread over
        # devices may move it inside the layer.
        dtype, device = (output.dtype if output.dtype in _LOW_PRECISION else source.dtype), output.device
        key = (source.data_ptr(), source.shape, source.stride(), source.dtype, source._version, dtype, device)
        if key not in self._inputs:
            flat = source.detach().reshape(-1, source.shape[-1])
            # A copy, because the model may go on to change its tensor in place. The source is held so that its
            # address is not given to another tensor.
            self._inputs[key] = (source, Input(flat.to(device, dtype, copy=True)))
        return self._inputs[key][1]


def weight_gradient(calls: Sequence[Call], part: Part, dtype: torch.dtype) -> Tensor | None:
    """Gradient of the loss with respect to a part's weight, from its calls; None if no gradient arrived.

    Args:
        calls: calls of one pass, of any part.
        part: the candidate.
        dtype: precision of the product.

    Returns:
        ``D^T X`` summed over the calls, in the shape of the weight.
    """
    total: Tensor | None = None
    for call in calls:
        if call.part is not part or call.gradient is None:
            continue
        product = call.gradient.to(dtype) @ call.input.tensor.to(dtype)
        product = product.T if part.transposed else product
        total = product if total is None else total + product
    return total
