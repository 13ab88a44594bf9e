"""Is what was captured right? Against autograd's own gradient, against a second run, against infinities."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tugofwar.engine.capture import Call
from tugofwar.engine.parts import Part
from tugofwar.errors import UserError

_RELATIVE_TOLERANCE = {torch.float64: 1e-11, torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 2e-2}
_LARGEST_ROUNDING = torch.finfo(torch.bfloat16).eps


def agree(reference: Tensor | None, rebuilt: Tensor | None, calls: Sequence[Call]) -> bool:
    """Whether two gradients of one weight differ by no more than rounding does.

    Args:
        reference: autograd's own, flat; None if there is none.
        rebuilt: the product of the factors, in the shape of the weight.
        calls: the calls that it was rebuilt from.
    """
    if reference is None or rebuilt is None:
        return False
    exact = reference.reshape(-1).to(rebuilt.device, rebuilt.dtype)
    difference = _norm(exact - rebuilt.reshape(-1))
    lowest = _lowest_precision(reference, calls)
    # The second bound: where tokens cancel, a sum of products is uncertain by their size and not by its own.
    products = sum(_norm(call.input.tensor) * _norm(call.gradient) for call in calls if call.gradient is not None)
    return difference <= max(_RELATIVE_TOLERANCE[lowest] * _norm(exact), 16 * torch.finfo(lowest).eps * products)


def any_nonzero(gradient: Tensor | None) -> bool:
    """Whether there is a gradient that proves anything."""
    return gradient is not None and bool((gradient != 0).any())


def check_finite(part: Part, tensor: Tensor | None, where: str) -> None:
    """Raise a UserError that names the part and the batch if ``tensor`` holds NaN or infinities."""
    if tensor is not None and not torch.isfinite(tensor).all():
        raise UserError(f"The gradient of {part.name} in {where} is not finite.")


def check_rounding(part: Part, exact: Tensor, rounded: Tensor, where: str) -> None:
    """Raise a UserError if a factor of a part lost more than bfloat16's rounding, as to the narrow range of float16."""
    if torch.finfo(rounded.dtype).tiny <= torch.finfo(exact.dtype).tiny:
        return
    lost = _norm(exact - rounded.to(exact.dtype))
    if not lost <= _LARGEST_ROUNDING * _norm(exact):
        raise UserError(
            f"The factors of {part.name} in {where} are too large or too small for {_name(rounded.dtype)}; use "
            "factor_dtype=torch.bfloat16, or none."
        )


def check_repeatable(first: float, second: float, where: str) -> None:
    """Raise a UserError if one batch gave two losses."""
    # Not equality: sums on a GPU differ in their last bits from run to run.
    if not math.isclose(first, second, rel_tol=1e-6):
        raise UserError(
            f"The loss of {where} is {first!r} and then {second!r} when computed twice: the model or the loss draws "
            "random numbers or keeps state even in evaluation mode, so its gradients would measure noise; switch that "
            "off."
        )


def _lowest_precision(reference: Tensor, calls: Sequence[Call]) -> torch.dtype:
    """Precision that autograd formed its own product in."""
    dtypes = [reference.dtype, *(call.gradient.dtype for call in calls if call.gradient is not None)]
    if reference.is_cuda and torch.backends.cuda.matmul.allow_tf32:
        dtypes.append(torch.float16)  # TF32 has as many bits
    return max(dtypes, key=lambda dtype: torch.finfo(dtype).eps)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _norm(tensor: Tensor) -> float:
    wide = torch.float64 if tensor.dtype == torch.float64 else torch.float32
    return float(torch.linalg.vector_norm(tensor, dtype=wide))
