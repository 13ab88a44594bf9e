"""The hub's Parquet shards: `data/<split>-00000-of-00003-<hash>.parquet`, with images inside their cells.

An image is a cell `struct{bytes, path}`. Row groups (mostly a hundred rows) are what is read at once; the last two
that images were opened from stay in memory.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unimed_model.data.files import note
from unimed_model.data.images import image_of_bytes, size_of_bytes
from unimed_model.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL.Image import Image

_NUMBERED = re.compile(r"(?P<stem>.+)-(?P<number>\d+)-of-(?P<total>\d+)(?:-[0-9a-f]+)?\.parquet")
_LISTED = 10


@dataclass(frozen=True, slots=True)
class ImageCell:
    """One image of a Parquet file.

    Attributes:
        path: the file.
        column: of images, each a struct with a field `bytes`.
        index: row in the file, from 0.
    """

    path: Path
    column: str
    index: int

    @property
    def place(self) -> tuple[str, int]:
        """Name of the column and row in the file."""
        return self.column, self.index

    def open(self) -> Image:
        """Return the decoded image in RGB.

        Raises:
            UserError: the file is missing or damaged; the image is missing, truncated, unreadable or refused.
        """
        return image_of_bytes(self.content(), self._name)

    def size(self) -> tuple[int, int]:
        """Return (width, height) in pixels from the image's header, without decoding.

        Raises:
            UserError: the file is missing or damaged; the image is missing or its header is unreadable.
        """
        return size_of_bytes(self.content(), self._name)

    def content(self) -> bytes:
        """Return the bytes of the image's file.

        Raises:
            UserError: the file is missing or damaged, or the image is missing.
        """
        with _readable(self.path):
            state = self.path.stat()
            version = (state.st_mtime_ns, state.st_size)
            starts = _row_groups(self.path, *version)
            if not 0 <= self.index < starts[-1]:
                raise UserError(f"{self.path} has {starts[-1]} rows and no row {self.index}; prepare the data again.")
            group = bisect_right(starts, self.index) - 1
            cells = _cells(self.path, self.column, group, *version)
            content = cells[self.index - starts[group]].as_py()
        if not content:
            raise UserError(f"{self._name} is empty; download the file again.")
        return bytes(content)

    @property
    def _name(self) -> str:
        return f"{self.path}, row {self.index}, {self.column}"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a shard.

    Attributes:
        where: file and row, for a message.
        values: column -> value, as Python has it.
        image: the image's cell, if a column of images was asked for.
        digest: of the image's bytes, the same for the same image in every row and file; None where the cell is empty.
    """

    where: str
    values: dict[str, Any]
    image: ImageCell | None = None
    digest: str | None = None


def find_shards(root: Path, split: str, folder: str = "data") -> list[Path]:
    """Return the shards of a split in their order: in ``folder`` of the root, in the root, or one folder deeper.

    Not all of them need be there (`require_whole`); an empty list means none.
    """
    deeper = sorted(path / folder for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    for place in (root / folder, root, *deeper):
        shards = sorted(path for path in place.glob(f"{split}-*.parquet") if _stem(path) == split)
        if shards:
            note(place)
            return shards
    return []


def require_whole(shards: Sequence[Path]) -> None:
    """Raise `UserError`, which names them, unless the shards are all of one set, each once."""
    folder = shards[0].parent
    named = [match for path in shards if (match := _NUMBERED.fullmatch(path.name))]
    stem, total = named[0]["stem"], int(named[0]["total"])
    numbers = [int(match["number"]) for match in named]
    strange = [path for path, match in zip(shards, named, strict=True) if int(match["total"]) != total]
    strange += [path for path, number in zip(shards, numbers, strict=True) if numbers.count(number) > 1]
    if strange:
        raise UserError(f"{folder}: {strange[-1].name} is of another set than {shards[0].name}; keep one download's.")
    missing = list(islice((i for i in range(total) if i not in numbers), _LISTED))
    if missing:
        listed = " and ".join(f"{stem}-{number:05d}-of-{total:05d}" for number in missing)
        more = " and others" if total - len(numbers) > _LISTED else ""
        state = "is" if len(missing) == 1 else "are"
        raise UserError(f"{folder}: of {total} shards, {listed}{more} {state} missing; complete the download.")


def read_rows(shards: Sequence[Path], columns: Sequence[str], image: str | None = None) -> Iterator[Row]:
    """Yield the rows of a set of shards, shard after shard.

    Args:
        shards: in their order.
        columns: to read; texts and numbers.
        image: name of a column of images.

    Raises:
        UserError: a shard is missing from the set, missing or damaged, or lacks a column.
    """
    require_whole(shards)
    for path in shards:
        note(path)
        index = 0
        for group in range(_group_count(path)):
            for values, digest in _group_rows(path, group, columns, image):
                cell = ImageCell(path, image, index) if image else None
                yield Row(f"{path}, row {index}", values, cell, digest)
                index += 1


def _stem(path: Path) -> str | None:
    match = _NUMBERED.fullmatch(path.name)
    return match["stem"] if match else None


def _group_count(path: Path) -> int:
    with _readable(path), _file(path) as file:
        return int(file.num_row_groups)


def _group_rows(
    path: Path, group: int, columns: Sequence[str], image: str | None
) -> list[tuple[dict[str, Any], str | None]]:
    with _readable(path), _file(path) as file:
        _require_columns(path, file.schema_arrow, columns, image)
        rows = file.read_row_group(group, columns=list(columns), use_threads=False).to_pylist()
        digests = [_digest(cell) for cell in _read_cells(file, group, image)] if image else [None] * len(rows)
        return list(zip(rows, digests, strict=True))


def _require_columns(path: Path, schema: pa.Schema, columns: Sequence[str], image: str | None) -> None:
    import pyarrow as pa

    lacking = [name for name in (*columns, *([image] if image else [])) if name not in schema.names]
    if lacking:
        raise UserError(f"{path} lacks the column {lacking[0]!r}; it has {', '.join(schema.names)}.")
    if image:
        kind = schema.field(image).type
        held = kind.field("bytes").type if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 else None
        if held not in (pa.binary(), pa.large_binary()):
            raise UserError(f"{path}: the column {image!r} must hold images as struct{{bytes, path}}, not {kind}.")


def _digest(cell: pa.Scalar) -> str | None:
    content = cell.as_buffer()
    return hashlib.blake2b(content, digest_size=16).hexdigest() if content is not None and content.size else None


def _read_cells(file: pq.ParquetFile, group: int, column: str) -> pa.ChunkedArray:
    table = file.read_row_group(group, columns=[f"{column}.bytes"], use_threads=False)
    return table.column(column).flatten()[0] if table.num_rows else table.column(column)


def _file(path: Path) -> pq.ParquetFile:
    import pyarrow.parquet as pq

    return pq.ParquetFile(path)


@lru_cache(maxsize=64)
def _row_groups(path: Path, _mtime: int, _size: int) -> tuple[int, ...]:
    """First row of each row group, and the number of rows at the end."""
    with _file(path) as file:
        return tuple(accumulate((file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)), initial=0))


# A row group of large images may have a hundred million bytes: two are kept, for a reading in order.
@lru_cache(maxsize=2)
def _cells(path: Path, column: str, group: int, _mtime: int, _size: int) -> pa.ChunkedArray:
    with _file(path) as file:
        _require_columns(path, file.schema_arrow, (), column)
        return _read_cells(file, group, column)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; complete the download.") from error
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} is not a complete, valid Parquet file ({reason}); download it again.") from error
