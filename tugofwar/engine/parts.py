"""Parts: the parameters whose gradients are kept together, and which of them may be kept as factors."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from tugofwar.errors import UserError
from tugofwar.selection import SelectedBlock


@dataclass(eq=False)
class Part:
    """One weight that linear layers own (a *candidate* for factors), or the other parameters of a block.

    Attributes:
        block: name of the block that the part's Gram matrix is added to.
        parameters: full dotted name to parameter; a candidate has exactly one.
        owners: the linear layers that hold a candidate's weight, several where it is tied; empty for other
            parts.
        transposed: the weight is stored ``(inputs, outputs)``, as in GPT-2's ``Conv1D``.
        fallen_back: factors did not reproduce autograd's gradient, so dense rows are kept from then on.
        sketch_size: numbers that each gradient is sketched to, where it is.
    """

    block: str
    parameters: dict[str, nn.Parameter]
    owners: tuple[nn.Module, ...] = ()
    transposed: bool = False
    fallen_back: bool = False
    sketch_size: int | None = None

    @property
    def name(self) -> str:
        """The candidate's parameter name; the names of other parts, joined."""
        return ", ".join(self.parameters)

    @property
    def size(self) -> int:
        """Number of scalars."""
        return sum(parameter.numel() for parameter in self.parameters.values())

    @property
    def is_candidate(self) -> bool:
        """Whether the gradient may be kept as factors."""
        return bool(self.owners) and not self.fallen_back and self.sketch_size is None

    @property
    def weight(self) -> nn.Parameter:
        """The only parameter of a candidate."""
        (parameter,) = self.parameters.values()
        return parameter

    @property
    def shape(self) -> tuple[int, int]:
        """``(rows, columns)`` that gradients are rebuilt in: those of a linear weight, otherwise ``(size, 1)``."""
        if self.sketch_size is not None:
            return self.sketch_size, 1
        if self.owners:
            rows, columns = self.weight.shape
            return int(rows), int(columns)
        return self.size, 1

    @property
    def dtype(self) -> torch.dtype:
        """Precision of products of this part: float64 if any parameter has it, else float32."""
        wide = any(parameter.dtype == torch.float64 for parameter in self.parameters.values())
        return torch.float64 if wide else torch.float32


def split_into_parts(model: nn.Module, blocks: Sequence[SelectedBlock]) -> list[Part]:
    """Parts of every block, in the blocks' order; each candidate weight alone, the rest of a block together.

    Raises:
        UserError: a complex parameter.
    """
    _check_real(blocks)
    owners = _owners(model)
    parts: list[Part] = []
    for block in blocks:
        rest: dict[str, nn.Parameter] = {}
        for name, parameter in block.parameters.items():
            layers = owners.get(parameter, [])
            if layers and all(_is_linear(layer, attribute) for layer, attribute in layers):
                transposed = not isinstance(layers[0][0], nn.Linear)
                modules = tuple(layer for layer, _ in layers)
                if all(isinstance(module, nn.Linear) is not transposed for module in modules):
                    parts.append(Part(block.name, {name: parameter}, modules, transposed))
                    continue
            rest[name] = parameter
        if rest:
            parts.append(Part(block.name, rest))
    return parts


def _check_real(blocks: Sequence[SelectedBlock]) -> None:
    for block in blocks:
        for name, parameter in block.parameters.items():
            if parameter.is_complex():
                raise UserError(f"{name} is complex; gradients are compared for real parameters only, so leave it out.")


def _owners(model: nn.Module) -> dict[nn.Parameter, list[tuple[nn.Module, str]]]:
    """Modules and attribute names under which each parameter is registered."""
    owners: dict[nn.Parameter, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        for attribute, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            owners.setdefault(parameter, []).append((module, attribute))
    return owners


def _is_linear(module: nn.Module, attribute: str) -> bool:
    """Whether ``attribute`` is the weight of a layer that computes ``input @ weight (+ bias)`` and no more.

    transformers' ``Conv1D`` is told by its shape, so that transformers need not be imported. Whatever is
    wrongly taken for linear is found by verification against autograd.
    """
    if attribute != "weight":
        return False
    is_gpt2_layer = type(module).__name__ == "Conv1D" and hasattr(module, "nf")
    weight = module.weight
    return (isinstance(module, nn.Linear) or is_gpt2_layer) and isinstance(weight, nn.Parameter) and weight.ndim == 2
