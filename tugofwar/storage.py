"""A recording's two files: ``recording.safetensors`` (numbers) and ``manifest.json`` (everything else)."""

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

FORMAT = "tugofwar-recording"
FORMAT_VERSION = 2
TENSORS = "recording.safetensors"
MANIFEST = "manifest.json"

Tensors = Mapping[str, NDArray[Any]]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class DatasetRows(_Part):
    """A dataset and its number of batches; its rows follow those of the dataset before it."""

    name: str
    batches: int


class ParameterSize(_Part):
    """A parameter's full dotted name and number of scalars."""

    name: str
    size: int


class BlockParameters(_Part):
    """A block and its parameters, in the model's order."""

    name: str
    parameters: list[ParameterSize]


class Choice(_Part):
    """How the gradients of one part of a block were kept and multiplied, and why.

    Attributes:
        block: the block.
        part: the weight, or the other parameters of the block, joined.
        parameters: number of scalars.
        kept: ``factors``, ``dense``, ``sketch``, ``nothing``, or two of them where datasets differ.
        multiplied: ``rebuilt``, ``token kernel``, ``dense rows``.
        reason: the counted bytes and operations.
    """

    block: str
    part: str
    parameters: int
    kept: str
    multiplied: str
    reason: str


class Manifest(_Part):
    """What stands in ``manifest.json``; closed, so that a key nobody knows is an error and not ignored."""

    format: Literal["tugofwar-recording"] = "tugofwar-recording"
    format_version: int = FORMAT_VERSION
    tensors_sha256: str
    datasets: list[DatasetRows]
    untouched: list[str]
    tasks: dict[str, str]
    blocks: list[BlockParameters]
    geometries: list[str]
    statistics: dict[str, Any] | None
    choices: list[Choice]
    metadata: dict[str, Any]


def write(folder: Path, content: Mapping[str, Any], tensors: Tensors) -> None:
    """Write both files into ``folder``, under temporary names first; equal content gives equal bytes.

    Args:
        folder: made if missing.
        content: the manifest's fields but for the digest and the format.
        tensors: arrays by name.

    Raises:
        UserError: metadata that is not strict JSON.
    """
    serialised = serialise_tensors(dict(tensors))
    strict_json(content["metadata"])
    manifest = Manifest(tensors_sha256=hashlib.sha256(serialised).hexdigest(), **content)
    text = strict_json(manifest.model_dump())
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / TENSORS, serialised)
    _write(folder / MANIFEST, text.encode())


def read(folder: Path) -> tuple[Manifest, dict[str, NDArray[Any]]]:
    """Read and check both files.

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
    try:
        return manifest, load_tensors(content)
    except SafetensorError:
        raise UserError(f"{folder / TENSORS} is not a safetensors file; record again.") from None


def expect(path: Path, tensors: Tensors, name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The named array.

    Raises:
        UserError: it is missing, of another shape or precision, or not finite.
    """
    array = tensors.get(name)
    if array is None or array.shape != shape or array.dtype != np.float64 or not np.isfinite(array).all():
        raise UserError(f"{path} does not hold {name!r} as {shape[0]} finite float64 numbers; record again.")
    return array


def format_of(kind: str) -> str:
    """What the ``format`` in the manifest of a kind of result is: ``tugofwar-recording`` of a ``recording``."""
    return f"tugofwar-{kind.replace(' ', '-')}"


def holds(folder: Path, kind: str) -> bool:
    """Whether ``folder`` holds the manifest of a kind of result, of whatever version."""
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("format") == format_of(kind)


def strict_json(content: Mapping[str, Any]) -> str:
    """Sorted, indented JSON without NaN or infinities, the same bytes for equal content.

    Raises:
        UserError: a value that JSON cannot hold.
    """
    try:
        return json.dumps(content, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"
    except (TypeError, ValueError) as error:
        raise UserError(f"The metadata must be strict JSON (text, finite numbers, lists, mappings): {error}.") from None


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
            "again, or use the release that wrote it."
        )
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        raise UserError(f"{path} is damaged at key {where!r}: {first['msg']}.") from None
