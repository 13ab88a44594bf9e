"""How the graph of a loss uses a weight: as a plain product in the calls that were captured, or otherwise."""

from collections.abc import Iterable, Sequence

from torch import Tensor
from torch.autograd.graph import Node

from tugofwar.engine.capture import Call
from tugofwar.engine.parts import Part

# What lies between the weight of a plain linear layer and its output: casts, views, one product, the bias.
_CASTS_AND_VIEWS = ("ToCopy", "T", "Transpose", "Permute", "Expand", "View", "UnsafeView", "ReshapeAlias", "Alias")
_MORE_VIEWS = ("Squeeze", "Unsqueeze", "Clone")
_PRODUCTS = ("Addmm", "Mm", "Bmm", "Baddbmm", "Mv", "Addmv", "Linear", "MkldnnLinear", "Add")
_PLAIN = frozenset(f"{name}Backward" for name in (*_CASTS_AND_VIEWS, *_MORE_VIEWS, *_PRODUCTS))

Consumers = dict[Node, list[Node]]


def graph_of(value: Tensor) -> Consumers:
    """All nodes of the graph that ``value`` was computed by, each with the nodes that use its result."""
    consumers: Consumers = {}
    waiting: list[Node] = []
    if value.grad_fn is not None:
        consumers[value.grad_fn] = []
        waiting.append(value.grad_fn)
    while waiting:
        node = waiting.pop()
        for used, _ in node.next_functions:
            if used is None:
                continue
            if used not in consumers:
                consumers[used] = []
                waiting.append(used)
            consumers[used].append(node)
    return consumers


def has_reentrant_checkpoint(graph: Iterable[Node]) -> bool:
    """Whether the graph holds a node of ``torch.utils.checkpoint`` with ``use_reentrant=True``."""
    return any("CheckpointFunction" in node.name() for node in graph)


def used_otherwise(graph: Consumers, parts: Iterable[Part], calls: Sequence[Call]) -> frozenset[Part]:
    """Parts whose weight the loss uses in other ways than as a plain product in the captured calls.

    Such as through ``F.linear``, in a layer that scales its product, doubled, or in a gradient penalty: then
    the calls' factors are not the gradient, or cannot be trusted to be in every batch.

    Args:
        graph: of the loss.
        parts: candidates.
        calls: the captured calls.
    """
    by_weight = {part.weight: part for part in parts}
    outputs: dict[Part, set[Node]] = {}
    for call in calls:
        outputs.setdefault(call.part, set()).add(call.edge.node)
    weights = ((node, getattr(node, "variable", None)) for node in graph if "AccumulateGrad" in node.name())
    leaves = {node: by_weight.get(weight) for node, weight in weights if weight is not None}
    return frozenset(
        part
        for leaf, part in leaves.items()
        if part is not None and not _leads_to(outputs.get(part, set()), leaf, graph)
    )


def _leads_to(outputs: set[Node], node: Node, graph: Consumers) -> bool:
    """Whether every use of ``node`` ends in one of ``outputs``, through plain operations only."""
    return bool(graph[node]) and all(
        consumer.name().rpartition("::")[2].rstrip("0123456789") in _PLAIN
        and (consumer in outputs or _leads_to(outputs, consumer, graph))
        for consumer in graph[node]
    )
