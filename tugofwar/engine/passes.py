"""Forward and backward passes of the batches; every factored part is verified against autograd."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tugofwar.engine.capture import Call, Capture, weight_gradient
from tugofwar.engine.choice import Keeping, choose_keeping
from tugofwar.engine.fingerprint import batch_digest
from tugofwar.engine.graph import Consumers, graph_of, has_reentrant_checkpoint, used_otherwise
from tugofwar.engine.parts import Part
from tugofwar.engine.store import Kept, Store
from tugofwar.engine.verification import agree, any_nonzero, check_finite, check_repeatable, check_rounding
from tugofwar.errors import UserError
from tugofwar.probing import Loss, move_to

Factors = tuple[tuple[Kept, Kept], ...]
"""Per call of the layer: ``X`` ``(tokens, inputs)`` and the transpose of ``D``, ``(outputs, tokens)``."""

_REFUTED = Keeping("dense", "factors do not reproduce autograd's gradient", refuted=True)

Piece = Kept | Factors | None
"""What one batch left of one part: its factors, its dense gradient, or None where that is exactly zero."""


@dataclass
class Row:
    """One batch: its loss, a piece per part (in the order of the parts), and a digest that tells it from others."""

    loss: float
    pieces: list[Piece]
    digest: str = ""


@dataclass
class DatasetRows:
    """The batches of one dataset.

    Attributes:
        rows: one per batch.
        touched: whether the loss of any batch reaches a selected parameter.
        keepings: how the gradients of each part that got any are kept, by number of the part.
    """

    rows: list[Row] = field(default_factory=list)
    touched: bool = False
    keepings: dict[int, Keeping] = field(default_factory=dict)


@dataclass
class _Pass:
    """What one pass gave: its loss, the gradients that autograd was asked for, the layers' calls.

    ``beyond`` are the parts whose gradient is not in the calls, or not known to be.
    """

    loss: float
    gradients: dict[Part, Tensor | None] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    beyond: frozenset[Part] = frozenset()

    @property
    def reached(self) -> bool:
        return any(g is not None for g in self.gradients.values()) or any(c.gradient is not None for c in self.calls)


class Passes:
    """Runs batches through the model and keeps what their gradients can be rebuilt from.

    Autograd is asked for the gradients of dense parts and of the factored layers' outputs only, so it
    computes no weight gradient of a factored layer, and nothing is switched on or off in the model.

    Args:
        model: in the state that it is probed in.
        parts: what is measured.
        loss: ``loss(model, batch)``.
        store: where factors and dense rows go.
        factor_dtype: precision that factors are stored in; None for the one they come in.
        reduce: applied to every dense gradient before it is kept, such as a sketch.
    """

    def __init__(
        self,
        model: nn.Module,
        parts: Sequence[Part],
        loss: Loss,
        store: Store,
        factor_dtype: torch.dtype | None = None,
        reduce: Callable[[int, Tensor], Tensor] | None = None,
    ) -> None:
        self.model = model
        self.parts = list(parts)
        self.loss = loss
        self.store = store
        # Weights that are offloaded are on no device between calls.
        self.device = next((p.device for p in model.parameters() if not p.is_meta), torch.device("cpu"))
        self._factor_dtype = factor_dtype
        self._reduce = reduce
        self._capture = Capture(self.parts)
        self._reentrant = False

    def dataset(self, name: str, batches: Iterable[tuple[int, Any]], tick: Callable[[], object]) -> DatasetRows:
        """Pass the numbered batches of one dataset.

        The loss of the first batch must come out twice the same. What is rebuilt from factors must equal
        autograd's own gradient on the first batch that gives a part any.

        Raises:
            UserError: a loss or gradient that cannot be used, naming the batch.
        """
        result = DatasetRows()
        unverified = frozenset(part for part in self.parts if part.is_candidate)
        dense = frozenset(part for part in self.parts if not part.is_candidate)
        with self._capture.installed():
            for number, batch in batches:
                where = f"batch {number + 1} of dataset {name!r}"
                settled = self._batch(batch, where, result, dense, unverified)
                unverified -= frozenset(settled)
                dense |= {part for part, keeping in settled.items() if keeping.kind == "dense"}
                tick()
        result.keepings |= self._without_choice(result)
        return result

    def _batch(
        self, batch: Any, where: str, result: DatasetRows, dense: frozenset[Part], unverified: frozenset[Part]
    ) -> dict[Part, Keeping]:
        """Pass one batch and add its row; what autograd gave is gone afterwards. Returns what it settled."""
        digest = batch_digest(batch)
        moved = move_to(batch, self.device)
        if not result.rows:
            first = float(self._loss(moved, where).detach())
        got = self._pass(moved, where, dense | unverified, frozenset(self.parts) - dense)
        if not result.rows:
            check_repeatable(first, got.loss, where)
        settled = self._settle(unverified, got, where) | self._surprises(got, dense | unverified, where)
        result.keepings |= {self.parts.index(part): keeping for part, keeping in settled.items()}
        result.touched = result.touched or got.reached
        kept_dense = dense | {part for part, keeping in settled.items() if keeping.kind == "dense"}
        result.rows.append(Row(got.loss, self._keep(got, kept_dense, where), digest))
        return settled

    def _pass(self, batch: Any, where: str, asked: frozenset[Part], listened: frozenset[Part]) -> _Pass:
        """Gradients of the parts ``asked`` for by autograd, calls of the parts ``listened`` to."""
        with self._capture.listening(listened) as collected:
            value = self._loss(batch, where)
            if not value.requires_grad:
                return _Pass(float(value.detach()))
            # Layers inside a checkpoint are called again during backward; those calls are not this list's.
            calls = list(collected)
            graph = graph_of(value)
            if self._is_reentrant(graph):
                return _Pass(float(value.detach()), self._backward(value), beyond=frozenset(self.parts))
            beyond = used_otherwise(graph, listened, calls)
            chosen = [part for part in self.parts if part in asked | beyond]
            parameters = [parameter for part in chosen for parameter in part.parameters.values()]
            wanted: list[Any] = [*parameters, *(call.edge for call in calls)]
            found = torch.autograd.grad(value, wanted, allow_unused=True) if wanted else ()
            for call, gradient in zip(calls, found[len(parameters) :], strict=True):
                if gradient is not None:
                    call.receive(gradient)
            remaining = iter(found[: len(parameters)])
            gradients = {part: _flatten(part, remaining) for part in chosen}
            return _Pass(float(value.detach()), gradients, calls, beyond)

    def _loss(self, batch: Any, where: str) -> Tensor:
        value = self.loss(self.model, batch)
        if not isinstance(value, Tensor) or value.numel() != 1:
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise UserError(f"The loss of {where} is not a scalar tensor but {got}; return the mean loss of the batch.")
        if not torch.isfinite(value).all():
            raise UserError(f"The loss of {where} is {float(value.detach())}; a gradient needs a finite loss.")
        return value.reshape(())

    def _is_reentrant(self, graph: Consumers) -> bool:
        """Whether gradients pass through reentrant checkpoints, whose inside only ``backward()`` reaches."""
        if not self._reentrant and has_reentrant_checkpoint(graph):
            self._reentrant = True
            for parameter in self.model.parameters():
                if getattr(parameter, "_post_accumulate_grad_hooks", None):
                    raise UserError(
                        "The model has reentrant gradient checkpoints, which need backward(), and a parameter with a "
                        "hook that backward() would set off (an optimizer step, perhaps); use non-reentrant "
                        "checkpoints or remove the hook."
                    )
        return self._reentrant

    def _backward(self, value: Tensor) -> dict[Part, Tensor | None]:
        """All gradients through ``.grad``, which is empty before and afterwards."""
        value.backward()
        remaining = iter([parameter.grad for part in self.parts for parameter in part.parameters.values()])
        gradients = {part: _flatten(part, remaining) for part in self.parts}
        for parameter in self.model.parameters():
            parameter.grad = None
        return gradients

    def _settle(self, unverified: frozenset[Part], got: _Pass, where: str) -> dict[Part, Keeping]:
        """Parts that this batch verified or refuted, and how they are kept from now on."""
        settled: dict[Part, Keeping] = {}
        bytes_each = self._factor_dtype.itemsize if self._factor_dtype else None
        for part in self.parts:
            if part not in unverified:
                continue
            reference = got.gradients.get(part)
            check_finite(part, reference, where)
            rebuilt = weight_gradient(got.calls, part, part.dtype)
            if not any_nonzero(reference) and not any_nonzero(rebuilt):
                continue
            if self._reentrant:
                settled[part] = Keeping("dense", "reached through a reentrant gradient checkpoint")
            elif part not in got.beyond and agree(
                reference, rebuilt, [call for call in got.calls if call.part is part]
            ):
                settled[part] = choose_keeping(part, got.calls, bytes_each)
            else:
                settled[part] = self._fall_back(part, where)
        return settled

    def _surprises(self, got: _Pass, expected: frozenset[Part], where: str) -> dict[Part, Keeping]:
        """Verified parts whose weight this batch uses in another way than the batches before it."""
        return {part: self._fall_back(part, where) for part in self.parts if part in got.beyond - expected}

    def _fall_back(self, part: Part, where: str) -> Keeping:
        part.fallen_back = True
        warnings.warn(
            f"{part.name}: the factors captured at its layer do not reproduce autograd's gradient in {where} (the "
            "weight is tied, used functionally, or its layer is custom); its gradients are kept as dense rows.",
            stacklevel=2,
        )
        return _REFUTED

    def _without_choice(self, result: DatasetRows) -> dict[int, Keeping]:
        """How parts that are no candidates were kept."""
        reached = {
            number for row in result.rows for number, piece in enumerate(row.pieces) if piece is not None
        } - result.keepings.keys()
        if self._reduce is not None:
            return dict.fromkeys(reached, Keeping("sketch", "as asked"))
        other = Keeping("dense", "no weight of a linear layer")
        return {number: _REFUTED if self.parts[number].fallen_back else other for number in reached}

    def _keep(self, got: _Pass, dense: frozenset[Part], where: str) -> list[Piece]:
        kept_inputs: dict[int, Kept] = {}
        pieces: list[Piece] = []
        for number, part in enumerate(self.parts):
            if part in dense or part in got.beyond:
                gradient = got.gradients.get(part)
                pieces.append(None if gradient is None else self._keep_dense(number, part, gradient, where))
            else:
                pieces.append(self._keep_factors(part, got.calls, kept_inputs, where))
        return pieces

    def _keep_dense(self, number: int, part: Part, gradient: Tensor, where: str) -> Piece:
        check_finite(part, gradient, where)
        return self.store.put(self._reduce(number, gradient) if self._reduce else gradient)

    def _keep_factors(self, part: Part, calls: Sequence[Call], kept_inputs: dict[int, Kept], where: str) -> Piece:
        pairs: list[tuple[Kept, Kept]] = []
        for call in calls:
            if call.part is not part or call.gradient is None:
                continue
            source = call.input.tensor
            check_finite(part, call.gradient, where)
            check_finite(part, source, where)
            if id(call.input) not in kept_inputs:
                kept_inputs[id(call.input)] = self.store.put(self._rounded(source, part, where))
            gradient = self.store.put(self._rounded(call.gradient, part, where))
            pairs.append((kept_inputs[id(call.input)], gradient))
        return tuple(pairs) or None

    def _rounded(self, factor: Tensor, part: Part, where: str) -> Tensor:
        """A factor in the precision that factors are stored in."""
        if self._factor_dtype is None:
            return factor
        rounded = factor.to(self._factor_dtype)
        check_rounding(part, factor, rounded, where)
        return rounded


def _flatten(part: Part, gradients: Iterator[Tensor | None]) -> Tensor | None:
    """The gradients of a part's parameters in one row; None if none of them got any."""
    pairs = [(parameter, next(gradients)) for parameter in part.parameters.values()]
    if all(gradient is None for _, gradient in pairs):
        return None
    rows = [
        torch.zeros(parameter.numel(), dtype=parameter.dtype)
        if gradient is None
        else (gradient.to_dense() if gradient.is_sparse else gradient).detach().reshape(-1)
        for parameter, gradient in pairs
    ]
    if len(rows) == 1:
        return rows[0]
    # A block's parameters may be spread over devices and precisions.
    dtype = max((row.dtype for row in rows), key=lambda each: each.itemsize)
    return torch.cat([row.to("cpu", dtype) for row in rows])
