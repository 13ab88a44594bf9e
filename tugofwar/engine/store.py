"""Where the factors of finished batches wait for the products: in memory within a budget, beyond it on disk."""

import errno
import io
import math
import mmap
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tugofwar.errors import UserError
from tugofwar.sizes import format_bytes

# safetensors-like alignment, so that a mapped tensor of any precision is aligned.
_ALIGNMENT = 64
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)

# Tensors that stay are laid into slabs of this size. Allocated one by one between the passes' own short-lived tensors,
# they leave holes that the allocator cannot give back: half as much again as the tensors themselves.
_SLAB_BYTES = 32 * 2**20


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

    A store that is not persistent spills to a file without a name, which the system frees when the process ends,
    however it ends.

    Args:
        budget: bytes of memory for tensors that are kept and for pages of files that are read; None for no limit.
        folder: where files go; None when there is no folder to spill to.
        persistent: write everything to named files, so that it outlives the process.

    Attributes:
        bytes_in_memory: of the tensors kept in memory.
        bytes_on_disk: written by this store.
    """

    def __init__(self, budget: int | None = None, folder: Path | None = None, persistent: bool = False) -> None:
        if persistent and folder is None:
            raise ValueError("a persistent store needs a folder")
        self.budget = budget
        self.folder = folder
        self.persistent = persistent
        self.bytes_in_memory = 0
        self.bytes_on_disk = 0
        self._writer: io.RawIOBase | None = None
        self._writer_name = ""
        self._maps: dict[str, mmap.mmap] = {}
        self._bytes_read = 0
        self._slab = torch.empty(0, dtype=torch.uint8)
        self._slab_used = 0

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *exception: object) -> None:
        self._close_writer()
        self._maps.clear()

    def open_file(self, name: str) -> None:
        """Direct what a persistent store writes from now on into a new file ``name`` in the folder."""
        self.close_file()
        self._writer_name = name

    def close_file(self) -> None:
        """Finish a persistent store's current file; it can then be read, also by another process."""
        if self.persistent:
            self._close_writer()

    def put(self, tensor: Tensor) -> Kept:
        """Keep a copy of ``tensor`` on the CPU, contiguous.

        Raises:
            UserError: it fits neither the budget nor the disk.
        """
        kept = tensor.detach().to("cpu").contiguous()
        size = kept.numel() * kept.element_size()
        if self._fits(size):
            self.bytes_in_memory += size
            return self._lay(kept, size)
        if self.folder is None:
            raise self._beyond_budget()
        return self._write(kept, size)

    def _lay(self, tensor: Tensor, size: int) -> Tensor:
        """Copy ``tensor`` to the end of the last slab."""
        start = self._slab_used + -self._slab_used % _ALIGNMENT
        if start + size > self._slab.numel():
            # Memory that is never written to is never taken, so a slab that stays half empty costs nothing.
            self._slab, start = torch.empty(max(_SLAB_BYTES, size), dtype=torch.uint8), 0
        self._slab_used = start + size
        laid = self._slab[start : start + size].view(tensor.dtype).view(tensor.shape)
        return laid.copy_(tensor)

    def expect(self, size: int) -> None:
        """Raise a UserError now if ``size`` more bytes will not fit the budget or the disk."""
        if self._fits(size):
            return
        if self.folder is None:
            raise self._beyond_budget()
        check_free_disk(self.folder, size if self.persistent else size - int(self._limit() - self.bytes_in_memory))

    def get(self, kept: Kept) -> Tensor:
        """The tensor behind ``kept``; read-only by agreement where it is mapped from a file."""
        if isinstance(kept, Tensor):
            return kept
        count = math.prod(kept.shape)
        if count == 0:
            return torch.zeros(kept.shape, dtype=kept.dtype)
        size = count * kept.dtype.itemsize
        self._make_room(size)
        mapped = self._map(kept.file, kept.offset + size)
        return torch.frombuffer(mapped, dtype=kept.dtype, count=count, offset=kept.offset).view(kept.shape)

    def _limit(self) -> float:
        """Bytes that may be kept in memory; a quarter of the budget is for pages of what is spilled."""
        if self.budget is None:
            return math.inf
        return self.budget if self.folder is None else self.budget * 3 // 4

    def _fits(self, size: int) -> bool:
        return not self.persistent and self.bytes_in_memory + size <= self._limit()

    def _beyond_budget(self) -> UserError:
        return UserError(
            f"What the batches leave behind is more than the memory budget of {format_bytes(self.budget or 0)}; "
            "give `workspace`, a folder to spill to, raise `memory`, or record fewer batches."
        )

    def _make_room(self, size: int) -> None:
        """Before ``size`` bytes are read, give pages read earlier back to the system if they are too many.

        Mapped pages count as memory of this process. A tensor that is still in use is read from disk again.
        """
        if self.budget is None:
            return
        self._bytes_read += size
        if self._bytes_read > self.budget - self.bytes_in_memory:
            self._bytes_read = size
            for mapped in self._maps.values():
                if hasattr(mmap, "MADV_DONTNEED"):
                    mapped.madvise(mmap.MADV_DONTNEED)

    def _write(self, tensor: Tensor, size: int) -> Stored:
        with disk_errors(self.folder):
            writer = self._open_writer()
            padding = -writer.tell() % _ALIGNMENT
            offset = writer.tell() + padding
            write_all(writer, memoryview(bytes(padding)))
            if size:
                write_all(writer, tensor.reshape(-1).view(torch.uint8).numpy().data)
        self.bytes_on_disk += padding + size
        return Stored(self._writer_name, offset, tuple(tensor.shape), tensor.dtype)

    def _open_writer(self) -> io.RawIOBase:
        # Unbuffered: closing a buffer that a full disk did not take would raise again.
        if self._writer is None:
            assert self.folder is not None
            self.folder.mkdir(parents=True, exist_ok=True)
            if self.persistent:
                path = self.folder / self._writer_name
                # A file of that name may be a hard link to one that is kept elsewhere.
                path.unlink(missing_ok=True)
                self._writer = path.open("xb", buffering=0)
            else:
                self._writer = tempfile.TemporaryFile(dir=self.folder, buffering=0)  # noqa: SIM115
        return self._writer

    def _close_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _map(self, name: str, end: int) -> mmap.mmap:
        """A mapping of a file that reaches to ``end`` at least; the file may have grown since it was mapped."""
        if name not in self._maps or len(self._maps[name]) < end:
            # A private mapping: torch asks for memory that could be written to.
            if self._writer is not None and not self.persistent:
                self._maps[name] = mmap.mmap(self._writer.fileno(), 0, access=mmap.ACCESS_COPY)
            else:
                assert self.folder is not None
                with (self.folder / name).open("rb") as file:
                    self._maps[name] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        return self._maps[name]


def free_disk(folder: Path) -> int:
    """Bytes left on the disk that ``folder`` is or would be on."""
    existing = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    return shutil.disk_usage(existing).free


def check_free_disk(folder: Path, needed: int) -> None:
    """Raise a UserError unless the disk of ``folder`` has ``needed`` bytes left."""
    free = free_disk(folder)
    if needed > free:
        raise UserError(
            f"The factors need about {format_bytes(needed)} on the disk of {folder}, which has {format_bytes(free)} "
            "left; free some room, choose another folder, or record fewer batches."
        )


@contextmanager
def disk_errors(folder: Path | None) -> Iterator[None]:
    """Inside, a disk that is full or a folder that cannot be made is a UserError."""
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise UserError(f"The disk of {folder} is full; free some room or choose another folder.") from None
        raise UserError(f"{folder} cannot be written to ({error.strerror}); choose another folder.") from None


def write_all(writer: io.RawIOBase, data: memoryview) -> None:
    """Write all of ``data`` to an unbuffered file, which may take a part of a large piece at a time."""
    while data:
        data = data[writer.write(data) or 0 :]
