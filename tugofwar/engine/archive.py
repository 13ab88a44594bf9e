"""Finished datasets on disk, so that a killed run goes on where it was and a kept one can be extended."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tugofwar.engine.choice import Keeping
from tugofwar.engine.passes import DatasetRows, Piece, Row
from tugofwar.engine.processes import Processes
from tugofwar.engine.store import Kept, Stored
from tugofwar.errors import UserError

FINGERPRINT = "fingerprint.json"
_SAMPLED_NUMBERS = 64


class Archive:
    """A folder with one pair of files per finished dataset, segment and process.

    Args:
        folder: where the files are.
        rank: number of this process.
        world: how many processes there are.
    """

    def __init__(self, folder: Path, rank: int = 0, world: int = 1) -> None:
        self.folder = folder
        self._process = f".{rank}of{world}" if world > 1 else ""

    def file_name(self, dataset: str, segment: int) -> str:
        """Name of the file that holds a dataset's tensors."""
        return self._stem(dataset, segment) + ".bin"

    def open(self, fingerprint: Mapping[str, Any], processes: Processes) -> None:
        """Make the folder ready for runs with this fingerprint; what is there of other runs is removed.

        Raises:
            UserError: a folder of that name with something else in it.
        """
        if processes.is_first and read_fingerprint(self.folder) != fingerprint:
            self._clear()
            self.folder.mkdir(parents=True, exist_ok=True)
            _write(self.folder / FINGERPRINT, fingerprint)
        processes.gather(None)

    def remove(self, processes: Processes) -> None:
        """Delete the folder, once no process needs it any more."""
        processes.gather(None)
        if processes.is_first:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _clear(self) -> None:
        if self.folder.exists() and any(self.folder.iterdir()) and not (self.folder / FINGERPRINT).exists():
            raise UserError(f"{self.folder} holds something other than factors and is not replaced; use another.")
        shutil.rmtree(self.folder, ignore_errors=True)

    def load(self, dataset: str, segment: int) -> DatasetRows | None:
        """The rows of a dataset that was finished earlier; None if it was not.

        Raises:
            UserError: its files are damaged.
        """
        path = self.folder / (self._stem(dataset, segment) + ".json")
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            rows = [Row(row["loss"], [_decode(piece) for piece in row["pieces"]]) for row in content["rows"]]
            keepings = {int(number): Keeping(**keeping) for number, keeping in content["keepings"].items()}
            intact = all((self.folder / file).stat().st_size == size for file, size in content["files"].items())
            result = DatasetRows(rows, content["touched"], keepings)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            intact = False
        if not intact:
            raise UserError(f"{path} or its tensors are damaged; remove the folder {self.folder} and record again.")
        return result

    def save(self, dataset: str, segment: int, result: DatasetRows) -> None:
        """Note a dataset as finished; its tensors must be on disk already."""
        files = {stored.file for row in result.rows for piece in row.pieces for stored in _stored(piece)}
        content = {
            "touched": result.touched,
            "keepings": {str(number): vars(keeping) for number, keeping in result.keepings.items()},
            "files": {file: (self.folder / file).stat().st_size for file in sorted(files)},
            "rows": [{"loss": row.loss, "pieces": [_encode(piece) for piece in row.pieces]} for row in result.rows],
        }
        _write(self.folder / (self._stem(dataset, segment) + ".json"), content)

    def _stem(self, dataset: str, segment: int) -> str:
        readable = re.sub(r"[^A-Za-z0-9_-]+", "_", dataset)[:40]
        digest = hashlib.sha256(dataset.encode()).hexdigest()[:8]
        return f"{readable}-{digest}.{segment}{self._process}"


def read_fingerprint(folder: Path) -> dict[str, Any] | None:
    """What the archive in ``folder`` was recorded from; None if there is none that can be read."""
    try:
        content = json.loads((folder / FINGERPRINT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def model_digest(model: nn.Module) -> str:
    """Digest of names, shapes and a sample of the numbers of every parameter and buffer.

    A sample, because a model of 7 billion parameters takes a minute to digest whole; training changes every
    tensor that it trains.
    """
    digest = hashlib.sha256()
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        if not tensor.is_meta and tensor.numel():
            digest.update(_sample(tensor.detach()).numpy().tobytes())
    return digest.hexdigest()


def _sample(tensor: Tensor) -> Tensor:
    flat = tensor.reshape(-1)
    step = max(1, flat.numel() // _SAMPLED_NUMBERS)
    return flat[::step].to("cpu", torch.complex128 if tensor.is_complex() else torch.float64)


def _stored(piece: Piece) -> list[Stored]:
    kept = [] if piece is None else [each for call in piece for each in call] if isinstance(piece, tuple) else [piece]
    return [each for each in kept if isinstance(each, Stored)]


def _encode(piece: Piece) -> Any:
    if piece is None:
        return None
    if isinstance(piece, tuple):
        return {"calls": [[_encode_tensor(x), _encode_tensor(d)] for x, d in piece]}
    return {"dense": _encode_tensor(piece)}


def _encode_tensor(kept: Kept) -> list[Any]:
    assert isinstance(kept, Stored), "an archive is only written from a persistent store"
    return [kept.file, kept.offset, list(kept.shape), str(kept.dtype).removeprefix("torch.")]


def _decode(piece: Any) -> Piece:
    if piece is None:
        return None
    if "dense" in piece:
        return _decode_tensor(piece["dense"])
    return tuple((_decode_tensor(x), _decode_tensor(d)) for x, d in piece["calls"])


def _decode_tensor(content: list[Any]) -> Stored:
    file, offset, shape, dtype = content
    return Stored(file, offset, tuple(shape), getattr(torch, dtype))


def _write(path: Path, content: Mapping[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(content), encoding="utf-8")
    temporary.replace(path)
