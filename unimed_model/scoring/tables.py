"""Tallies as a file: one row per dataset, sample and metric, from which every score and interval can be made again."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from unimed_model.errors import UserError

from .counts import Counts
from .tally import Tally

NAME = "sample_statistics.parquet"
_COLUMNS = ("dataset", "task", "id", "cluster", "metric", "flavour", "statistics")
_META = b"tallies"


def save_tallies(path: Path, tallies: Sequence[Tally]) -> None:
    """Write tallies to a parquet file, in full or not at all.

    Columns: dataset, task, id, cluster, metric, flavour, statistics (a list of float64). What belongs to no sample
    (counts, what is unavailable and why) stands in the file's metadata under ``tallies``, as JSON.

    Raises:
        UserError: the file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    meta = [
        {
            "dataset": tally.dataset,
            "counts": asdict(tally.counts),
            "unavailable": [[*metric, reason] for metric, reason in tally.unavailable.items()],
        }
        for tally in tallies
    ]
    schema = pa.schema(
        [(name, pa.list_(pa.float64()) if name == "statistics" else pa.string()) for name in _COLUMNS],
        metadata={_META: json.dumps(meta).encode()},
    )
    partial = path.with_name(f"{path.name}.partial")
    try:
        with pq.ParquetWriter(partial, schema) as writer:
            for tally in tallies:
                for (metric, flavour), values in tally.statistics.items():
                    writer.write_table(_rows(tally, metric, flavour, values, schema))
        partial.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        partial.unlink(missing_ok=True)


def _rows(tally: Tally, metric: str, flavour: str, values: np.ndarray, schema: Any) -> Any:
    import pyarrow as pa

    n = len(tally.ids)
    same = [pa.array([text] * n, pa.string()) for text in (tally.dataset, tally.task, metric, flavour)]
    ends = np.arange(n + 1, dtype=np.int32) * values.shape[1]
    listed = pa.ListArray.from_arrays(pa.array(ends), pa.array(np.ascontiguousarray(values).ravel()))
    ids, clusters = (pa.array(names, pa.string()) for names in (tally.ids, tally.clusters))
    return pa.Table.from_arrays([same[0], same[1], ids, clusters, same[2], same[3], listed], schema=schema)


def load_tallies(path: Path) -> list[Tally]:
    """Return the tallies in a file that `save_tallies` wrote.

    Raises:
        UserError: the file is missing or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise UserError(f"{path} does not exist; unimed-eval writes it.")
    try:
        table = pq.read_table(path)
        meta = json.loads(table.schema.metadata[_META])
        return [_tally(table, each) for each in meta]
    except (pa.ArrowException, OSError, KeyError, IndexError, TypeError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"{path} is damaged; make it again with unimed-eval.") from error


def _tally(table: Any, meta: dict[str, Any]) -> Tally:
    import pyarrow.compute as pc

    ours = table.filter(pc.equal(table["dataset"], meta["dataset"])).combine_chunks()
    metrics = list(dict.fromkeys(zip(ours["metric"].to_pylist(), ours["flavour"].to_pylist(), strict=True)))
    samples = len(ours) // len(metrics)
    names = {name: tuple(ours[name][:samples].to_pylist()) for name in ("id", "cluster")}
    statistics = {}
    for place, metric in enumerate(metrics):
        values = ours["statistics"][place * samples : (place + 1) * samples].combine_chunks().flatten()
        statistics[metric] = values.to_numpy(zero_copy_only=False).reshape(samples, -1)
    return Tally(
        dataset=meta["dataset"],
        task=ours["task"][0].as_py(),
        ids=names["id"],
        clusters=names["cluster"],
        statistics=statistics,
        counts=Counts(**meta["counts"]),
        unavailable={(metric, flavour): reason for metric, flavour, reason in meta["unavailable"]},
    )
