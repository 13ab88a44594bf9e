"""Parquet files of our own: written whole or not at all, read column by column in little memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unimed_model.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS = 8192
"""Rows of a group: what is decompressed at once."""


def write_table(path: Path, columns: Mapping[str, pa.Array], private: bool = False) -> None:
    """Write columns as Parquet, whole or not at all; ``private``: its owner alone may read it, from its first byte."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    partial = path.with_name(f"{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial.unlink(missing_ok=True)
    try:
        if private:
            partial.touch(mode=0o600)
        pq.write_table(pa.table(dict(columns)), partial, compression="zstd", row_group_size=_ROWS)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def read_table(path: Path, what: str) -> dict[str, pa.Array]:
    """Return the columns in a Parquet file.

    Raises:
        UserError: the file is missing or damaged; the sentence says it is ``what``.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with _tight_memory(), pq.ParquetFile(path, memory_map=True) as file:
            return {name: _column(file, name) for name in file.schema_arrow.names}
    except FileNotFoundError as error:
        raise UserError(f"{path}, {what}, is missing; prepare again.") from error
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}, {what}, is damaged ({_first_line(error)}); remove it and prepare again.") from error


def _column(file: Any, name: str) -> pa.Array:
    import pyarrow as pa

    combined = file.read(columns=[name], use_threads=False).column(0).combine_chunks()
    # Without any row there is no chunk to be one array.
    return combined.chunk(0) if isinstance(combined, pa.ChunkedArray) and combined.num_chunks else combined


@contextmanager
def _tight_memory() -> Iterator[None]:
    """Inside, Arrow allocates from the system, which takes freed buffers back; its own pool keeps them for long."""
    import pyarrow as pa

    before = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    finally:
        pa.set_memory_pool(before)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
