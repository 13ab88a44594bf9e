"""Several processes that share one recording: batches are dealt out, results are summed."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from tugofwar.errors import UserError


class Processes:
    """The processes of ``torch.distributed``, or this one alone.

    Attributes:
        rank: number of this process.
        world: how many there are.
    """

    def __init__(self) -> None:
        together = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if together else 0
        self.world = dist.get_world_size() if together else 1

    @property
    def share(self) -> tuple[int, int]:
        """``(rank, world)``."""
        return self.rank, self.world

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """``value`` of every process, by rank."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def sum(self, tensor: Tensor) -> None:
        """Replace ``tensor`` (on the CPU) by its sum over all processes."""
        if self.world == 1:
            return
        moved = tensor.to(self._device())
        dist.all_reduce(moved)
        tensor.copy_(moved)

    def exchange(self, tensors: Sequence[Tensor]) -> list[list[Tensor]]:
        """The ``tensors`` of every process, by rank; any number, shapes and precisions."""
        if self.world == 1:
            return [list(tensors)]
        layouts = self.gather([(tuple(tensor.shape), tensor.dtype) for tensor in tensors])
        flat = [tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in tensors]
        mine = torch.cat(flat) if flat else torch.zeros(0, dtype=torch.uint8)
        received = []
        for rank, layout in enumerate(layouts):
            size = sum(_bytes(shape, dtype) for shape, dtype in layout)
            payload = (mine if rank == self.rank else torch.empty(size, dtype=torch.uint8)).to(self._device())
            if size:
                dist.broadcast(payload, src=rank)
            received.append(_unpack(payload.cpu(), layout))
        return received

    def agree(self, error: UserError | None) -> None:
        """Raise in every process the first mistake that any of them found."""
        first = next((found for found in self.gather(str(error) if error else None) if found), None)
        if error is not None:
            raise error
        if first is not None:
            raise UserError(first)

    def _device(self) -> torch.device:
        return (
            torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
        )


def _bytes(shape: tuple[int, ...], dtype: torch.dtype) -> int:
    count = dtype.itemsize
    for extent in shape:
        count *= extent
    return count


def _unpack(payload: Tensor, layout: Sequence[tuple[tuple[int, ...], torch.dtype]]) -> list[Tensor]:
    tensors, offset = [], 0
    for shape, dtype in layout:
        size = _bytes(shape, dtype)
        # A clone, because a slice need not be aligned for its precision.
        tensors.append(payload[offset : offset + size].clone().view(dtype).view(shape))
        offset += size
    return tensors
