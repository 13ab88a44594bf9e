"""How a part's gradients are kept and multiplied: chosen by counted bytes and operations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tugofwar.engine.capture import Call
from tugofwar.engine.parts import Part
from tugofwar.sizes import format_bytes


@dataclass(frozen=True)
class Keeping:
    """How one dataset's gradients of a part are kept.

    Attributes:
        kind: ``factors`` or ``dense``.
        reason: one clause with the numbers that decided it.
        refuted: factors did not reproduce autograd's gradient, so that no dataset after this one is asked again.
    """

    kind: str
    reason: str
    refuted: bool = False


def choose_keeping(part: Part, calls: Sequence[Call], factor_bytes: int | None) -> Keeping:
    """Factors where they are smaller than the gradient itself, counted on one batch.

    An input that several layers read is kept once, so that each of them is charged its share.

    Args:
        part: the candidate.
        calls: the calls of one batch, of all parts.
        factor_bytes: bytes per number that factors are stored in; None for the precision they come in.
    """
    readers: dict[int, set[Part]] = {}
    for call in calls:
        readers.setdefault(id(call.input), set()).add(call.part)
    factors = 0.0
    for call in calls:
        if call.part is part:
            width = factor_bytes or call.input.tensor.element_size()
            factors += call.input.tensor.numel() * width / len(readers[id(call.input)])
            factors += call.gradient.numel() * width if call.gradient is not None else 0
    dense = part.size * part.dtype.itemsize
    smaller = "factors" if factors < dense else "dense"
    return Keeping(smaller, f"factors {format_bytes(round(factors))}, dense {format_bytes(dense)} per batch")


@dataclass(frozen=True)
class Operations:
    """Multiply-adds that the products of one part cost either way."""

    rebuild: float
    token_kernel: float

    @property
    def kernel_is_cheaper(self) -> bool:
        """Whether the token kernel costs less than rebuilding the gradients."""
        return self.token_kernel < self.rebuild


def count_operations(part: Part, batches: int, tokens: int, with_means: bool) -> Operations:
    """Multiply-adds of a candidate's Gram matrix by rebuilding gradients, and by the token kernel.

    Rebuilding costs ``tokens * outputs * inputs`` for the gradients and ``n^2 / 2 * outputs * inputs`` for
    their products. The token kernel ``sum (X_a X_b^T) * (D_a D_b^T)`` costs ``tokens^2 / 2 * (outputs +
    inputs)``, and the gradients all the same when their means are wanted for the statistics scores.

    Args:
        part: the candidate.
        batches: number of rows ``n``.
        tokens: tokens of all rows together.
        with_means: whether mean gradients are needed besides.
    """
    outputs, inputs = part.shape
    rebuild = float(tokens) * outputs * inputs
    products = 0.5 * batches**2 * outputs * inputs
    kernel = 0.5 * float(tokens) ** 2 * (outputs + inputs)
    return Operations(rebuild + products, kernel + (rebuild if with_means else 0.0))


def describe(keepings: Mapping[str, Keeping], operations: Operations | None) -> str:
    """One clause on what decided how a part was kept and multiplied.

    Args:
        keepings: per dataset that gave the part a gradient.
        operations: what was counted for its products; None where there was no choice.
    """
    if not keepings:
        return "no gradient reaches it"
    reasons: dict[str, list[str]] = {}
    for dataset, keeping in keepings.items():
        reasons.setdefault(keeping.reason, []).append(dataset)
    if len(reasons) == 1:
        text = next(iter(reasons))
    else:
        text = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in reasons.items())
    if operations is None or operations.token_kernel == float("inf"):
        return text
    return f"{text}; rebuilding {operations.rebuild:.2g} multiply-adds, token kernel {operations.token_kernel:.2g}"
