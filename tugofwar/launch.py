"""Several processes: what ``torchrun`` and ``accelerate launch`` say in the environment, and joining the others."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from tugofwar.errors import UserError


def world_size() -> int:
    """How many processes were launched together; 1 without a launcher.

    Raises:
        UserError: WORLD_SIZE is not a number.
    """
    return _number("WORLD_SIZE", 1)


def is_first() -> bool:
    """Whether this process prints and writes: the one of rank 0, or the only one."""
    # Asked while mistakes are reported, so it must not raise about a malformed environment.
    alone = os.environ.get("WORLD_SIZE", "") in ("", "1")
    return alone or os.environ.get("RANK", "") in ("", "0")


@contextmanager
def joined() -> Iterator[None]:
    """Inside, ``torch.distributed`` is initialised if there are several processes: NCCL with CUDA, else gloo.

    Raises:
        UserError: the environment lacks what a launcher sets besides WORLD_SIZE.
    """
    if world_size() < 2:
        yield
        return
    import torch
    from torch import distributed

    if torch.cuda.is_available():
        torch.cuda.set_device(_number("LOCAL_RANK", 0))
    try:
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"WORLD_SIZE is {world_size()}, but the processes cannot be joined ({error}); start them with torchrun or "
            "accelerate launch, or unset WORLD_SIZE."
        ) from None
    try:
        yield
    finally:
        distributed.destroy_process_group()


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    if not text:
        return default
    if not text.isdigit():
        raise UserError(
            f"The environment variable {name} is {text!r}, not a number; launchers such as torchrun set it."
        )
    return int(text)
