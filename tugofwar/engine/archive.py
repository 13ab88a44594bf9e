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

from tugofwar.engine.choice import Keeping
from tugofwar.engine.passes import DatasetRows, Piece, Row
from tugofwar.engine.processes import Processes
from tugofwar.engine.store import Kept, Stored, disk_errors
from tugofwar.errors import UserError

FINGERPRINT = "fingerprint.json"


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

    def open(self, fingerprint: Mapping[str, Any], processes: Processes, afresh: bool = False) -> None:
        """Make the folder ready for runs with this fingerprint; what is there of other runs is removed.

        Args:
            fingerprint: what factors must share to be used again; JSON values.
            processes: the first one makes the folder.
            afresh: remove what is there of equal runs, too.

        Raises:
            UserError: a folder of that name with something else in it, or one that cannot be made.
        """
        error: UserError | None = None
        # As it will be read: JSON knows no tuples.
        wanted = json.loads(json.dumps(fingerprint))
        if processes.is_first and (afresh or read_fingerprint(self.folder) != wanted):
            try:
                self._clear()
                with disk_errors(self.folder):
                    self.folder.mkdir(parents=True, exist_ok=True)
                    _write(self.folder / FINGERPRINT, wanted)
            except UserError as found:
                error = found
        processes.agree(error)

    def remove(self, processes: Processes) -> None:
        """Delete the folder, once no process needs it any more."""
        processes.gather(None)
        if processes.is_first:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _clear(self) -> None:
        if self.folder.is_file() or (self.folder.exists() and not self._is_ours()):
            raise UserError(f"{self.folder} holds something other than factors and is not replaced; use another.")
        shutil.rmtree(self.folder, ignore_errors=True)

    def _is_ours(self) -> bool:
        return (self.folder / FINGERPRINT).exists() or not any(self.folder.iterdir())

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
            rows = [_decode_row(row) for row in content["rows"]]
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
            "rows": [_encode_row(row) for row in result.rows],
        }
        with disk_errors(self.folder):
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


def _stored(piece: Piece) -> list[Stored]:
    kept = [] if piece is None else [each for call in piece for each in call] if isinstance(piece, tuple) else [piece]
    return [each for each in kept if isinstance(each, Stored)]


def _encode_row(row: Row) -> dict[str, Any]:
    return {"loss": row.loss, "digest": row.digest, "pieces": [_encode(piece) for piece in row.pieces]}


def _decode_row(content: Mapping[str, Any]) -> Row:
    return Row(content["loss"], [_decode(piece) for piece in content["pieces"]], content["digest"])


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
    try:
        temporary.write_text(json.dumps(content), encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
