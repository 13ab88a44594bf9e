"""Router outputs, captured by hooks and summed per sample: no token's weights are kept."""

import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tugofwar.errors import UserError
from tugofwar.naming import closest, matches
from tugofwar.routing.outputs import RouterOutput, parse, without_expert

_MASKS = ("attention_mask", "decoder_attention_mask", "labels")
_NO_LABEL = -100
_ROUTERS = re.compile(r"(\w+_)?(router|gate|gating|gate_network)")
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


@dataclass(frozen=True)
class SampleSums:
    """One router's weights, summed over the counted tokens of each sample, or of all samples of a unit.

    Attributes:
        weights: ``(samples, experts)``, sums of weights.
        largest: ``(samples, experts)``, tokens whose largest weight the expert has; a tie is shared.
        entropy: ``(samples,)``, sums of the entropy of each token's weights, in bits.
        tokens: ``(samples,)``, tokens that count.
    """

    weights: NDArray[np.float64]
    largest: NDArray[np.float64]
    entropy: NDArray[np.float64]
    tokens: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.tokens)

    @classmethod
    def joined(cls, parts: list["SampleSums"]) -> "SampleSums":
        """All samples of the parts, in order."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in _FIELDS))

    def with_tokens(self) -> "SampleSums":
        """The samples that have a token that counts."""
        return SampleSums(*(getattr(self, name)[self.tokens > 0] for name in _FIELDS))

    def pooled(self, units: Sequence[Hashable]) -> "SampleSums":
        """One row per unit, in the order of their first samples: the sums over its samples.

        Args:
            units: what each sample is a part of, ``(samples,)``.
        """
        numbers = {unit: number for number, unit in enumerate(dict.fromkeys(units))}
        rows = [numbers[unit] for unit in units]

        def added(values: NDArray[np.float64]) -> NDArray[np.float64]:
            total = np.zeros((len(numbers), *values.shape[1:]))
            np.add.at(total, rows, values)
            return total

        return SampleSums(*(added(getattr(self, name)) for name in _FIELDS))

    def plus(self, other: "SampleSums") -> "SampleSums":
        """Further tokens of the same samples."""
        return SampleSums(*(getattr(self, name) + getattr(other, name) for name in _FIELDS))


_FIELDS = ("weights", "largest", "entropy", "tokens")


def find_routers(model: nn.Module, pattern: str) -> dict[str, nn.Module]:
    """Modules whose dotted name, or a dotted suffix of it, a glob matches; of nested ones the outermost.

    Args:
        model: the model.
        pattern: such as ``connector.router`` or ``layers.*.mlp.gate``.

    Raises:
        UserError: no module matches.
    """
    modules = {name: module for name, module in model.named_modules() if name}
    found: dict[str, nn.Module] = {}
    for name, module in modules.items():
        if matches(name, pattern) and not any(name.startswith(f"{outer}.") for outer in found):
            found[name] = module
    if not found:
        near = _likely(modules) or closest(pattern, modules)
        raise UserError(f"The model has no router {pattern!r}: no module of that name; {near}. Name it with --router.")
    return found


def _likely(modules: Mapping[str, nn.Module]) -> str:
    """A phrase that lists modules whose name says that they are routers, layers told apart by their number as one."""
    named = [name for name in modules if _ROUTERS.fullmatch(name.rpartition(".")[2])]
    if not named:
        return ""
    globs = list(dict.fromkeys(_NUMBER.sub("*", name) for name in named))
    shown = ", ".join(repr(glob) for glob in globs[:3]) + (", …" if len(globs) > 3 else "")
    return f"by their names {len(named)} of its modules may be routers: {shown}"


class Captured:
    """What the routers gave in one forward pass.

    Args:
        names: of the routers.
    """

    def __init__(self, names: list[str]) -> None:
        self.outputs: dict[str, list[RouterOutput]] = {name: [] for name in names}


@contextmanager
def capturing(routers: Mapping[str, nn.Module]) -> Iterator[Captured]:
    """Inside, every call of a router is noted; the model computes what it always does."""
    captured = Captured(list(routers))

    def hook_of(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def note(module: nn.Module, inputs: Any, output: Any) -> None:
            parsed = parse(output, name)
            if parsed is not None:
                captured.outputs[name].append(parsed)

        return note

    with ExitStack() as stack:
        for name, router in routers.items():
            stack.callback(router.register_forward_hook(hook_of(name)).remove)
        yield captured


@contextmanager
def switched_off(router: nn.Module, name: str, expert: int) -> Iterator[None]:
    """Inside, a router gives one expert no weight (see ``routing_outputs.without_expert``)."""

    def change(module: nn.Module, inputs: Any, output: Any) -> Any:
        parsed = parse(output, name)
        return output if parsed is None else without_expert(output, parsed, expert)

    handle = router.register_forward_hook(change)
    try:
        yield
    finally:
        handle.remove()


def sums_of_calls(name: str, calls: list[RouterOutput], batch: Any, top_k: int | None) -> tuple[SampleSums, str]:
    """The calls of one router in one pass, summed per sample.

    A router that is called several times sees the same samples each time, or, where the numbers fit, a part of the
    batch each time.

    Args:
        name: of the router, for messages.
        calls: its outputs, at least one.
        batch: what the model was given.
        top_k: see ``RouterOutput.weights``.

    Returns:
        The sums, and which tokens count: ``all``, or the entry of the batch that says so (``attention_mask``, else
        ``labels``).

    Raises:
        UserError: weights that are not finite, or calls that do not fit together.
    """
    parts, ways = [], set()
    for call in calls:
        weights, counted, way = by_sample(call.weights(top_k), batch)
        parts.append(_summed(weights, counted, name))
        ways.add(way)
    sizes = {len(part) for part in parts}
    if len(parts) > 1 and sum(len(part) for part in parts) == batch_length(batch):
        total = SampleSums.joined(parts)
    elif len(sizes) == 1:
        total = parts[0]
        for part in parts[1:]:
            total = total.plus(part)
    else:
        raise UserError(
            f"{name} was called with {' and '.join(map(str, sorted(sizes)))} samples in one pass, so that it cannot be "
            "told which weights belong to which sample."
        )
    return total, " or ".join(sorted(ways))


def by_sample(weights: Tensor, batch: Any) -> tuple[Tensor, Tensor, str]:
    """Weights as ``(samples, tokens, experts)``, and which tokens count, ``(samples, tokens)``.

    ``(samples, tokens, experts)`` are taken as they are; ``(rows, experts)`` are one row per sample where there are as
    many, otherwise all tokens of the first sample, then of the second, and so on. Padding does not count where the
    batch has a mask of the tokens' shape: ``attention_mask``, else ``labels``, where a token without one is -100.

    Args:
        weights: ``(..., experts)``.
        batch: what the model was given.
    """
    if weights.ndim > 2:
        weights = weights.flatten(1, -2)
    else:
        rows = weights.reshape(-1, weights.shape[-1])
        weights = rows.unflatten(0, _shape(len(rows), batch))
    shape = tuple(weights.shape[:2])
    for name, mask in _masks(batch):
        if tuple(mask.shape) == shape:
            return weights, mask.to(weights.device), name
    return weights, torch.ones(shape, dtype=torch.bool, device=weights.device), "all"


def batch_length(batch: Any) -> int | None:
    """Number of samples of a batch, the length of its first tensor; None when it holds none."""
    if isinstance(batch, Tensor):
        return len(batch) if batch.ndim else None
    values = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, tuple | list) else ()
    return next((length for length in map(batch_length, values) if length is not None), None)


def _shape(rows: int, batch: Any) -> tuple[int, int]:
    for _, mask in _masks(batch):
        if rows == mask.numel():
            return len(mask), mask.shape[1]
    samples = batch_length(batch)
    return (samples, rows // samples) if samples and rows % samples == 0 else (1, rows)


def _masks(batch: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(batch, Mapping):
        for name in _MASKS:
            mask = batch.get(name)
            if isinstance(mask, Tensor) and mask.ndim == 2:
                yield name, mask != (_NO_LABEL if name == "labels" else 0)


def _summed(weights: Tensor, counted: Tensor, name: str) -> SampleSums:
    weights = torch.where(counted.unsqueeze(-1), weights, torch.zeros_like(weights))
    if not bool(weights.isfinite().all()):
        raise UserError(f"{name} gives weights that are not finite.")
    top = (weights == weights.amax(dim=-1, keepdim=True)) & counted.unsqueeze(-1)
    shared = top.to(weights.dtype) / top.sum(dim=-1, keepdim=True).clamp(min=1)
    entropy = -torch.special.xlogy(weights, weights).sum(dim=(-2, -1)) / np.log(2)
    parts = (weights.sum(dim=1), shared.sum(dim=1), entropy, counted.sum(dim=1))
    return SampleSums(*(part.cpu().double().numpy() for part in parts))
