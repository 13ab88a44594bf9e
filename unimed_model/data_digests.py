"""What a run was trained on, told by digests: of a prepared folder's manifests, or of a raw root's annotation files."""

import hashlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from .data.prepared import is_prepared

LARGEST = 256 * 2**20
"""Bytes of the largest annotation file whose content is read for a digest; of a larger one name and size count."""


def data_digests(root: Path, files: Mapping[str, Collection[Path]]) -> dict[str, dict[str, Any]]:
    """Return dataset -> what tells its data from others.

    Args:
        root: the data root.
        files: dataset -> the files and folders that were noted when it was opened (``data.files.noting``).

    Returns:
        Of a dataset of a prepared folder ``prepared_sha256`` (how and from which files it was read, times included) and
        ``splits_sha256`` (which samples are in which split; the same on every machine). Of a raw one ``sha256`` over
        names and contents of its annotation files, ``files`` and ``bytes`` of them, and ``by_size``, the names of those
        too large for their content to be read.
    """
    if is_prepared(root):
        return {name: _of_manifests(root, name) for name in files}
    digest = cache(_sha256)
    folder = root if root.is_dir() else root.parent
    return {name: _of_annotations(folder, noted, digest) for name, noted in files.items()}


def _of_manifests(root: Path, name: str) -> dict[str, Any]:
    parts = {"prepared_sha256": root / "datasets" / f"{name}.json", "splits_sha256": root / "splits" / f"{name}.json"}
    return {key: _sha256(path) for key, path in parts.items() if path.is_file()}


def _of_annotations(folder: Path, noted: Iterable[Path], digest: Any) -> dict[str, Any]:
    whole, total, by_size = hashlib.sha256(), 0, []
    named = list(_named(folder, noted))
    for name, path in named:
        size = path.stat().st_size
        total += size
        if size > LARGEST:
            by_size.append(name)
        content = f"{size} bytes" if size > LARGEST else digest(path)
        whole.update(f"{name}\0{content}\n".encode(errors="surrogateescape"))
    return {"sha256": whole.hexdigest(), "files": len(named), "bytes": total, "by_size": by_size}


def _named(folder: Path, noted: Iterable[Path]) -> Iterator[tuple[str, Path]]:
    """Each file under a name that is the same on every machine, in the order of the names."""
    found = []
    for path in noted:
        if path.is_file():
            name = Path(os.path.relpath(path, folder))
            found.append((path.name if name.parts[0] == ".." else name.as_posix(), path))
    yield from sorted(found)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
