"""Digests of what a recording is made from: the model, the loss and the batches."""

import functools
import hashlib
from collections.abc import Callable, Mapping
from types import CodeType
from typing import Any

import torch
from torch import Tensor, nn

_SAMPLED_NUMBERS = 1024
_PLAIN = (type(None), bool, int, float, complex, str, bytes)


def model_digest(model: nn.Module) -> str:
    """Digest of names, shapes and a sample of the numbers of every parameter and buffer.

    A sample, because a model of 7 billion parameters takes a minute to digest whole; training changes every
    tensor that it trains.
    """
    digest = hashlib.sha256()
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        digest.update(name.encode())
        _add_tensor(digest, tensor)
    return digest.hexdigest()


def batch_digest(batch: Any) -> str:
    """Digest of the tensors (shape, precision, a sample of their numbers) and plain values in a batch."""
    digest = hashlib.sha256()
    _add(digest, batch)
    return digest.hexdigest()


def loss_digest(loss: Callable[..., Any]) -> str:
    """Name of a function and a digest of its code and of the plain values that are bound in it.

    What it reads besides, such as attributes of an object, is not seen.
    """
    digest = hashlib.sha256()
    bound = loss
    while isinstance(bound, functools.partial):
        _add(digest, [bound.args, bound.keywords])
        bound = bound.func
    function = bound if hasattr(bound, "__code__") or hasattr(bound, "__func__") else type(bound).__call__
    code = getattr(function, "__code__", None)
    if code is not None:
        _add_code(digest, code)
    _add(digest, [getattr(function, "__defaults__", None), getattr(function, "__kwdefaults__", None)])
    _add(digest, [_content(cell) for cell in getattr(function, "__closure__", None) or ()])
    name = getattr(bound, "__qualname__", type(bound).__qualname__)
    return f"{bound.__module__}.{name} {digest.hexdigest()[:16]}"


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        # A variable that is not bound yet.
        return None


def _add_code(digest: Any, code: CodeType) -> None:
    digest.update(code.co_code)
    digest.update(repr(code.co_names).encode())
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            _add_code(digest, constant)
        else:
            _add(digest, constant)


def _add(digest: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        _add_tensor(digest, value)
    elif isinstance(value, Mapping):
        _add(digest, list(value.items()))
    elif isinstance(value, list | tuple):
        digest.update(f"[{len(value)}]".encode())
        for each in value:
            _add(digest, each)
    elif isinstance(value, set | frozenset):
        _add(digest, sorted(map(repr, value)))
    else:
        # Other objects by their type only: their text may hold an address.
        digest.update(repr(value if isinstance(value, _PLAIN) else type(value).__qualname__).encode())


def _add_tensor(digest: Any, tensor: Tensor) -> None:
    digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
    if tensor.is_meta or not tensor.numel() or tensor.layout is not torch.strided:
        return
    flat = tensor.detach().reshape(-1)
    step = max(1, flat.numel() // _SAMPLED_NUMBERS)
    wide = torch.complex128 if tensor.is_complex() else torch.float64
    digest.update(flat[::step].to("cpu", wide).numpy().tobytes())
