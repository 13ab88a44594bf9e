"""A recording on disk: ``recording.safetensors`` (numbers) and ``manifest.json`` (everything else)."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as serialise_tensors

from tugofwar.errors import UserError
from tugofwar.recording import Block, Recording

FORMAT = "tugofwar-recording"
FORMAT_VERSION = 1
TENSORS = "recording.safetensors"
MANIFEST = "manifest.json"
_GRAM_PREFIX = "gram/"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _DatasetRows(_Part):
    name: str
    batches: int


class _ParameterSize(_Part):
    name: str
    size: int


class _BlockParameters(_Part):
    name: str
    parameters: list[_ParameterSize]


class Manifest(_Part):
    """What stands in ``manifest.json``; closed, so that a key nobody knows is an error and not ignored."""

    format: Literal["tugofwar-recording"]
    format_version: int
    tensors_sha256: str
    datasets: list[_DatasetRows]
    untouched: list[str]
    tasks: dict[str, str]
    blocks: list[_BlockParameters]
    metadata: dict[str, Any]


def save(recording: Recording, folder: Path) -> None:
    """Write ``recording`` into ``folder``, both files under temporary names first.

    Raises:
        UserError: metadata that is not strict JSON.
    """
    tensors = {_GRAM_PREFIX + name: triangle for name, triangle in recording.upper_triangles.items()}
    content = serialise_tensors({**tensors, "losses": recording.losses})
    manifest = _manifest(recording, hashlib.sha256(content).hexdigest())
    text = strict_json(manifest.model_dump())
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / TENSORS, content)
    _write(folder / MANIFEST, text.encode())


def load(folder: Path) -> Recording:
    """Read and check the recording in ``folder``.

    Raises:
        UserError: no recording there, or one that is truncated, foreign or of another format version.
    """
    for name in (MANIFEST, TENSORS):
        if not (folder / name).is_file():
            raise UserError(
                f"There is no recording in {folder}: {name} is missing; `tugofwar gradients` or "
                "Recording.save makes one."
            )
    manifest = _read_manifest(folder / MANIFEST)
    content = (folder / TENSORS).read_bytes()
    if hashlib.sha256(content).hexdigest() != manifest.tensors_sha256:
        raise UserError(
            f"{folder / TENSORS} is truncated, or not the file that {MANIFEST} beside it was "
            "written with; record again."
        )
    datasets = [part.name for part in manifest.datasets for _ in range(part.batches)]
    blocks = tuple(
        Block(part.name, {parameter.name: parameter.size for parameter in part.parameters}) for part in manifest.blocks
    )
    triangles, losses = _read_tensors(folder / TENSORS, content, blocks, len(datasets))
    return Recording(blocks, triangles, datasets, losses, tuple(manifest.untouched), manifest.tasks, manifest.metadata)


def is_recording(folder: Path) -> bool:
    """Whether ``folder`` holds a manifest in this format, of whatever version."""
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("format") == FORMAT


def strict_json(content: Mapping[str, Any]) -> str:
    """Sorted, indented JSON without NaN or infinities, the same bytes for equal content.

    Raises:
        UserError: a value that JSON cannot hold.
    """
    try:
        return json.dumps(content, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"
    except (TypeError, ValueError) as error:
        raise UserError(f"The metadata must be strict JSON (text, finite numbers, lists, mappings): {error}.") from None


def _manifest(recording: Recording, digest: str) -> Manifest:
    return Manifest(
        format="tugofwar-recording",
        format_version=FORMAT_VERSION,
        tensors_sha256=digest,
        datasets=[_DatasetRows(name=name, batches=len(rows)) for name, rows in recording.rows.items()],
        untouched=list(recording.untouched),
        tasks=dict(recording.tasks),
        blocks=[
            _BlockParameters(
                name=block.name,
                parameters=[_ParameterSize(name=name, size=size) for name, size in block.parameters.items()],
            )
            for block in recording.blocks
        ],
        metadata=dict(recording.metadata),
    )


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _read_manifest(path: Path) -> Manifest:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise UserError(f"{path} is truncated or not JSON; record again.") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{path} is not the manifest of a recording (its `format` is not {FORMAT!r}).")
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        raise UserError(
            f"{path} has format version {version!r} but this release reads {FORMAT_VERSION}; record "
            "again, or use the "
            "release that wrote it."
        )
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        raise UserError(f"{path} is damaged at key {where!r}: {first['msg']}.") from None


def _read_tensors(
    path: Path, content: bytes, blocks: tuple[Block, ...], rows: int
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.float64]]:
    try:
        tensors = load_tensors(content)
    except SafetensorError:
        raise UserError(f"{path} is not a safetensors file; record again.") from None
    expected = {_GRAM_PREFIX + block.name: (rows * (rows + 1) // 2,) for block in blocks} | {"losses": (rows,)}
    for name, shape in expected.items():
        array = tensors.get(name)
        if array is None or array.shape != shape or array.dtype != np.float64 or not np.isfinite(array).all():
            raise UserError(f"{path} does not hold {name!r} as {shape[0]} finite float64 numbers; record again.")
    triangles = {block.name: tensors[_GRAM_PREFIX + block.name] for block in blocks}
    return triangles, tensors["losses"]
