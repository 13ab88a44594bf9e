"""Mean gradients and scores of every parameter, written chunk by chunk into safetensors files."""

import json
import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tugofwar.engine.parts import Part
from tugofwar.engine.processes import Processes
from tugofwar.engine.store import check_free_disk, disk_errors, write_all
from tugofwar.errors import UserError
from tugofwar.score_accumulator import ChunkScores

MEANS = "means.safetensors"
SCORES = "scores.safetensors"
_NAMES = {np.dtype(np.float32): "F32", np.dtype(np.float16): "F16", np.dtype(np.bool_): "BOOL"}


class StreamedTensors:
    """A safetensors file of known layout whose tensors are filled in piece by piece.

    The safetensors library writes whole tensors only, and all mean gradients together may not fit in memory.

    Args:
        path: the file; it appears under this name when ``finish`` is called.
        layout: tensor name to shape and type.
        processes: the first one makes the file, all of them write into it.
    """

    def __init__(
        self, path: Path, layout: Mapping[str, tuple[Sequence[int], np.dtype[Any]]], processes: Processes
    ) -> None:
        self._path = path
        self._temporary = path.with_name(f".{path.name}.unfinished")
        header: dict[str, dict[str, Any]] = {}
        offset = 0
        for name, (shape, dtype) in layout.items():
            size = int(np.prod(shape)) * dtype.itemsize
            header[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [offset, offset + size]}
            offset += size
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        self._start = 8 + len(text)
        self._places = {name: (each["data_offsets"][0], layout[name][1]) for name, each in header.items()}
        self._processes = processes
        error: UserError | None = None
        if processes.is_first:
            try:
                self._begin(text, offset)
            except UserError as found:
                error = found
        processes.agree(error)
        # Unbuffered: closing a buffer that a full disk did not take would raise again.
        self._file = self._temporary.open("r+b", buffering=0)

    def _begin(self, header: bytes, size: int) -> None:
        check_free_disk(self._path.parent, size)
        with disk_errors(self._path.parent):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._temporary.open("wb", buffering=0) as file:
                file.write(struct.pack("<Q", len(header)) + header)
                file.truncate(self._start + size)

    def write(self, name: str, first: int, values: NDArray[Any]) -> None:
        """Write consecutive numbers of a tensor, from flat position ``first`` on.

        Raises:
            UserError: the disk is full.
        """
        place, dtype = self._places[name]
        with disk_errors(self._path.parent):
            self._file.seek(self._start + place + first * dtype.itemsize)
            write_all(self._file, np.ascontiguousarray(values, dtype=dtype).data.cast("B"))

    def finish(self) -> None:
        """Give the file its name, once every process has written."""
        os.fsync(self._file.fileno())
        self._file.close()
        self._processes.gather(None)
        if self._processes.is_first:
            self._temporary.replace(self._path)

    def discard(self) -> None:
        """Remove the unfinished file."""
        self._file.close()
        self._temporary.unlink(missing_ok=True)


class MeansFile:
    """``means.safetensors``: ``<dataset>/<parameter>``, float32, in the parameter's shape."""

    def __init__(self, folder: Path, parts: Sequence[Part], datasets: Sequence[str], processes: Processes) -> None:
        self._datasets = tuple(dict.fromkeys(datasets))
        layout = {
            f"{dataset}/{name}": (tuple(parameter.shape), np.dtype(np.float32))
            for dataset in self._datasets
            for part in parts
            for name, parameter in part.parameters.items()
        }
        self.file = StreamedTensors(folder / MEANS, layout, processes)

    def __call__(self, part: Part, first: int, scores: ChunkScores) -> None:
        """Write one chunk."""
        for dataset, means in zip(self._datasets, scores.means, strict=True):
            for name, start, values in _by_parameter(part, first, means):
                self.file.write(f"{dataset}/{name}", start, values)


class ScoresFile:
    """``scores.safetensors``: ``<level>/<parameter>`` in float16, and ``<level>/<parameter>/undefined``.

    An undefined score (0/0) is marked there and stands as 0.
    """

    def __init__(self, folder: Path, parts: Sequence[Part], levels: Sequence[str], processes: Processes) -> None:
        layout: dict[str, tuple[Sequence[int], np.dtype[Any]]] = {}
        for level in levels:
            for part in parts:
                for name, parameter in part.parameters.items():
                    layout[f"{level}/{name}"] = (tuple(parameter.shape), np.dtype(np.float16))
                    layout[f"{level}/{name}/undefined"] = (tuple(parameter.shape), np.dtype(np.bool_))
        self.file = StreamedTensors(folder / SCORES, layout, processes)

    def __call__(self, part: Part, first: int, scores: ChunkScores) -> None:
        """Write one chunk."""
        for level, values in scores.scores.items():
            undefined = scores.undefined[level]
            for name, start, piece in _by_parameter(part, first, np.where(undefined, 0, values)):
                self.file.write(f"{level}/{name}", start, piece)
            for name, start, piece in _by_parameter(part, first, undefined):
                self.file.write(f"{level}/{name}/undefined", start, piece)


def _by_parameter(part: Part, first: int, values: NDArray[Any]) -> list[tuple[str, int, NDArray[Any]]]:
    """Split a chunk of a part's columns by parameter: name, flat position in it, values."""
    pieces, start = [], 0
    for name, parameter in part.parameters.items():
        stop = start + parameter.numel()
        low, high = max(first, start), min(first + len(values), stop)
        if low < high:
            pieces.append((name, low - start, values[low - first : high - first]))
        start = stop
    return pieces
