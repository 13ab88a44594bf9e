"""Which parameters are measured, and the blocks (one per module) that their gradients are kept in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tugofwar.errors import UserError
from tugofwar.naming import closest, matches

if TYPE_CHECKING:
    from torch import nn

# The block of parameters that belong to the model itself and to no module inside it.
ROOT_BLOCK = "(model)"


@dataclass(frozen=True)
class SelectedBlock:
    """The selected parameters of one module: full dotted names and the parameters, in the model's order."""

    name: str
    parameters: dict[str, nn.Parameter]

    @property
    def size(self) -> int:
        """Number of scalars."""
        return sum(parameter.numel() for parameter in self.parameters.values())


def select_parameters(
    model: nn.Module, parameters: str | Sequence[str] | Callable[[str, nn.Parameter], bool]
) -> dict[str, nn.Parameter]:
    """Trainable parameters chosen by glob, by a list of globs or exact names, or by a predicate.

    A glob matches the full dotted name or any dotted suffix of it. Frozen parameters (``requires_grad``
    false) are never selected. A tensor that several modules share can be chosen by any of its names, and appears
    once, under its first one.

    Args:
        model: any module.
        parameters: ``"connector.*"``, ``["connector.*", "lm_head.weight"]``, or a function of
            ``(name, parameter)``.

    Returns:
        Full dotted name to parameter, in the model's order.

    Raises:
        UserError: a pattern that selects nothing, or frozen parameters only; it lists the closest names.
    """
    named = dict(model.named_parameters())
    trainable = {name: parameter for name, parameter in named.items() if parameter.requires_grad}
    if callable(parameters):
        chosen = {name for name, parameter in trainable.items() if parameters(name, parameter)}
        if not chosen:
            raise UserError(
                f"The `parameters` function selects none of the model's {len(trainable)} trainable parameters."
            )
    else:
        patterns = [parameters] if isinstance(parameters, str) else list(parameters)
        if not patterns:
            raise UserError("`parameters` is an empty list; name at least one parameter or glob.")
        aliases = _aliases(model, named)
        chosen = {aliases[name] for pattern in patterns for name in _matching(pattern, aliases, trainable)}
    return {name: parameter for name, parameter in trainable.items() if name in chosen}


def group_into_blocks(parameters: dict[str, nn.Parameter], merge: Sequence[str] = ()) -> list[SelectedBlock]:
    """One block per module (the dotted path before a parameter's own name), in the model's order.

    Args:
        parameters: full dotted name to parameter.
        merge: globs; the blocks that one of them matches become one block of the glob's name. A Gram matrix is
            kept per block, which hundreds of LoRA matrices would make large.

    Raises:
        UserError: a glob that matches no block.
    """
    blocks: dict[str, dict[str, nn.Parameter]] = {}
    used: set[str] = set()
    for name, parameter in parameters.items():
        module = name.rpartition(".")[0] or ROOT_BLOCK
        glob = next((pattern for pattern in merge if matches(module, pattern) or matches(name, pattern)), None)
        used |= {glob} if glob else set()
        blocks.setdefault(glob or module, {})[name] = parameter
    for pattern in merge:
        if pattern not in used:
            raise UserError(f"The pattern {pattern!r} merges no block; {closest(pattern, blocks)}.")
    return [SelectedBlock(name, members) for name, members in blocks.items()]


def _aliases(model: nn.Module, named: dict[str, nn.Parameter]) -> dict[str, str]:
    """Every name of every parameter, with the name that it appears under."""
    first = {parameter: name for name, parameter in named.items()}
    return {name: first[parameter] for name, parameter in model.named_parameters(remove_duplicate=False)}


def _matching(pattern: str, aliases: dict[str, str], trainable: dict[str, nn.Parameter]) -> list[str]:
    matching = [name for name in aliases if matches(name, pattern)]
    selected = [name for name in matching if aliases[name] in trainable]
    if selected:
        return selected
    if matching:
        raise UserError(
            f"The pattern {pattern!r} selects frozen parameters only ({', '.join(matching[:3])}); set their "
            "requires_grad or select others."
        )
    raise UserError(f"The pattern {pattern!r} selects no parameter of the model; {closest(pattern, aliases)}.")
