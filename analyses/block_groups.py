"""Which blocks of a recording are looked at together: each expert, the router, the task tokens, each layer."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tugofwar.recording import Block

MOST = 40
EVERYTHING = "(all)"
_NUMBERED = {
    "expert": re.compile(r"^(lora_)?experts$"),
    "layer": re.compile(r"^(layers?|blocks?|h)$"),
}
_NAMED = {"router": re.compile(r"^(router|gate)$"), "task_tokens": re.compile(r"^task_tokens?$")}


@dataclass(frozen=True)
class BlockGroup:
    """Blocks that are looked at together.

    Attributes:
        label: the dotted name that they share, such as ``connector.experts.0``.
        kind: ``expert``, ``router``, ``task_tokens``, ``layer`` or ``other``.
        blocks: their names.
        parameters: number of scalars.
    """

    label: str
    kind: str
    blocks: tuple[str, ...]
    parameters: int


def group_blocks(blocks: Sequence[Block], most: int = MOST) -> list[BlockGroup]:
    """Groups of blocks in the order of the recording.

    The outermost part of a name decides: a LoRA expert inside a transformer layer belongs to the layer, a layer of
    a router to the router. What is none of these is a group by module. Where there are more than ``most``, groups
    that share the longest prefix are merged into one, those with most members first, until there are no more.

    Args:
        blocks: of a recording.
        most: groups to have at most, at least 1.
    """
    groups: dict[str, BlockGroup] = {}
    for block in blocks:
        label, kind = _label(block)
        _add(groups, BlockGroup(label, kind, (block.name,), sum(block.parameters.values())))
    while len(groups) > most:
        groups = _merged(groups)
    return list(groups.values())


def _label(block: Block) -> tuple[str, str]:
    """Label and kind of one block; parameters that the module holds itself may say more than its name."""
    # A block holds the parameters of one module, so that their common name is its name or that of a lone parameter.
    name = next(iter(block.parameters)) if len(block.parameters) == 1 else block.name
    parts = name.split(".")
    for place, part in enumerate(parts):
        for kind, pattern in _NAMED.items():
            if pattern.match(part):
                return ".".join(parts[: place + 1]), kind
        numbered = place + 1 < len(parts) and parts[place + 1].isdecimal()
        for kind, pattern in _NUMBERED.items():
            if numbered and pattern.match(part):
                return ".".join(parts[: place + 2]), kind
    return block.name, "other"


def _add(groups: dict[str, BlockGroup], group: BlockGroup) -> None:
    known = groups.get(group.label)
    if known is None:
        groups[group.label] = group
        return
    groups[group.label] = replace(
        known,
        kind=known.kind if known.kind == group.kind else "other",
        blocks=known.blocks + group.blocks,
        parameters=known.parameters + group.parameters,
    )


def _merged(groups: Mapping[str, BlockGroup]) -> dict[str, BlockGroup]:
    """The groups with one family merged: of those that share the longest prefix the one with most members."""
    families: dict[tuple[str, ...], int] = {}
    for label in groups:
        parts = tuple(label.split("."))
        for depth in range(len(parts)):
            families[parts[:depth]] = families.get(parts[:depth], 0) + 1
    prefix = max((family for family, members in families.items() if members > 1), key=lambda f: (len(f), families[f]))
    result: dict[str, BlockGroup] = {}
    for group in groups.values():
        inside = tuple(group.label.split("."))[: len(prefix)] == prefix
        _add(result, replace(group, label=".".join(prefix) or EVERYTHING) if inside else group)
    return result
