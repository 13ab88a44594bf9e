"""Where the factors of finished batches wait for the products: in memory within a budget, beyond it on disk."""

import errno
import mmap
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from tugofwar.errors import UserError
from tugofwar.sizes import format_bytes

# safetensors-like alignment, so that a mapped tensor of any precision is aligned.
_ALIGNMENT = 64


@dataclass(frozen=True)
class Stored:
    """A tensor in a file: where it begins, its shape and its precision."""

    file: str
    offset: int
    shape: tuple[int, ...]
    dtype: torch.dtype


Kept = Tensor | Stored


class Store:
    """Keeps tensors on the CPU; hands them back as they were put in.

    Args:
        budget: bytes that may be kept in memory; None for no limit.
        folder: where files go; None when there is no folder to spill to.
        persistent: write everything to files, so that it outlives the process.
    """

    def __init__(self, budget: int | None = None, folder: Path | None = None, persistent: bool = False) -> None:
        if persistent and folder is None:
            raise ValueError("a persistent store needs a folder")
        self.budget = budget
        self.folder = folder
        self.persistent = persistent
        self.bytes_in_memory = 0
        self.bytes_on_disk = 0
        self._writer: IO[bytes] | None = None
        self._writer_name = ""
        self._maps: dict[str, mmap.mmap] = {}

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close_file()
        self._maps.clear()

    def open_file(self, name: str) -> None:
        """Direct what is written from now on into a new file ``name`` in the folder."""
        self.close_file()
        self._writer_name = name

    def close_file(self) -> None:
        """Finish the current file; it can then be read, also by another process."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def put(self, tensor: Tensor) -> Kept:
        """Keep a contiguous copy of ``tensor`` (or the tensor itself, if it is on the CPU and contiguous).

        Raises:
            UserError: it fits neither the budget nor the disk.
        """
        kept = tensor.detach().to("cpu").contiguous()
        size = kept.numel() * kept.element_size()
        if not self.persistent and (self.budget is None or self.bytes_in_memory + size <= self.budget):
            self.bytes_in_memory += size
            return kept
        if self.folder is None:
            raise UserError(
                f"What the batches leave behind is more than the memory budget of {format_bytes(self.budget or 0)}; "
                "give `workspace`, a folder to spill to, raise `memory`, or record fewer batches."
            )
        return self._write(kept, size)

    def get(self, kept: Kept) -> Tensor:
        """The tensor behind ``kept``; read-only by agreement where it is mapped from a file."""
        if isinstance(kept, Tensor):
            return kept
        count = 1
        for extent in kept.shape:
            count *= extent
        if count == 0:
            return torch.zeros(kept.shape, dtype=kept.dtype)
        mapped = self._map(kept.file)
        return torch.frombuffer(mapped, dtype=kept.dtype, count=count, offset=kept.offset).view(kept.shape)

    def release_pages(self) -> None:
        """Give mapped pages back to the system, where files hold more than the budget; they are read again."""
        if self.budget is None or self.bytes_on_disk <= self.budget:
            return
        for mapped in self._maps.values():
            if hasattr(mmap, "MADV_DONTNEED"):
                mapped.madvise(mmap.MADV_DONTNEED)

    def _write(self, tensor: Tensor, size: int) -> Stored:
        writer = self._open_writer()
        padding = -writer.tell() % _ALIGNMENT
        offset = writer.tell() + padding
        try:
            writer.write(b"\0" * padding)
            if size:
                writer.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
            writer.flush()
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise UserError(
                f"The disk of {self.folder} is full; free some room, raise the memory budget, or record fewer batches."
            ) from None
        self.bytes_on_disk += padding + size
        return Stored(self._writer_name, offset, tuple(tensor.shape), tensor.dtype)

    def _open_writer(self) -> IO[bytes]:
        if self._writer is None:
            assert self.folder is not None
            self.folder.mkdir(parents=True, exist_ok=True)
            self._writer = (self.folder / self._writer_name).open("wb")
        return self._writer

    def _map(self, name: str) -> mmap.mmap:
        if name not in self._maps:
            assert self.folder is not None
            if name == self._writer_name:
                self.close_file()
            with (self.folder / name).open("rb") as file:
                # A private mapping: torch asks for memory that could be written to.
                self._maps[name] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        return self._maps[name]


def check_free_disk(folder: Path, needed: int) -> None:
    """Raise a UserError unless the disk of ``folder`` has ``needed`` bytes left."""
    existing = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise UserError(
            f"The factors need about {format_bytes(needed)} on the disk of {folder}, which has {format_bytes(free)} "
            "left; free some room, choose another folder, or record fewer batches."
        )
