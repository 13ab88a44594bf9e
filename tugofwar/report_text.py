"""What the commands print about measurements and recordings, as plain text from plain mappings."""

from collections.abc import Iterator, Mapping
from typing import Any

from tugofwar.plain_table import plain_table


def measurement_text(content: Mapping[str, Any], patterns: str, folder: str) -> str:
    """Indexes with intervals, what is not touched, what is not to be trusted, and where the tables are.

    Args:
        content: what ``analyses.interference.summary`` returns.
        patterns: the selected parameters, as the user wrote them.
        folder: where the tables are.
    """
    return "\n".join(_measurement_lines(content, patterns, folder))


def _measurement_lines(content: Mapping[str, Any], patterns: str, folder: str) -> Iterator[str]:
    header = ["dataset", "task", "batches", f"index / max [{content['interval_level']:.0%} interval]"]
    yield plain_table(
        header,
        [
            [name, row.get("task", ""), str(row["batches"]), _with_interval(row)]
            for name, row in content["dataset"].items()
        ],
    )
    if content["untouched"]:
        yield f"not touching {patterns}: {', '.join(content['untouched'])}"
    for level, names in content["sign_uncertain"].items():
        for name in names:
            yield f"{level} {name}: the sign of its denominator is uncertain; do not trust its row of GD"
    yield f"estimator {content['estimator']}; tables in {folder}"


def _with_interval(row: Mapping[str, Any]) -> str:
    if "index_normalised" not in row:
        return "undefined: no index is positive"
    text = f"{row['index_normalised']:.3f}"
    if "index_normalised_low" not in row:
        return text
    return f"{text} [{row['index_normalised_low']:.3f}, {row['index_normalised_high']:.3f}]"


def inspection_text(content: Mapping[str, Any]) -> str:
    """Datasets, blocks and indexes of a recording.

    Args:
        content: ``datasets``, ``untouched``, ``blocks`` and ``index``, as ``tugofwar inspect --json`` prints them.
    """
    return "\n".join(_inspection_lines(content))


def _inspection_lines(content: Mapping[str, Any]) -> Iterator[str]:
    datasets = content["datasets"]
    rows = [[n, d["task"] or "", str(d["batches"]), f"{d['mean_loss']:.4f}"] for n, d in datasets.items()]
    yield plain_table(["dataset", "task", "batches", "mean loss"], rows)
    if content["untouched"]:
        yield f"not touching the selected parameters: {', '.join(content['untouched'])}"
    blocks = content["blocks"]
    sizes = [[name, str(len(block)), f"{sum(block.values()):,}"] for name, block in blocks.items()]
    total = sum(sum(block.values()) for block in blocks.values())
    yield "\n" + plain_table(["block", "tensors", "parameters"], [*sizes, ["all", "", f"{total:,}"]])
    yield "\nTug-of-war index (eq. 4) by estimator"
    yield from _index_lines(content["index"])


def _index_lines(indexes: Mapping[str, Mapping[str, float] | str]) -> Iterator[str]:
    defined = {name: index for name, index in indexes.items() if not isinstance(index, str)}
    names = list(dict.fromkeys(dataset for index in defined.values() for dataset in index))
    yield plain_table(
        ["dataset", *defined], [[name, *(f"{index[name]:.4f}" for index in defined.values())] for name in names]
    )
    for name, index in indexes.items():
        if isinstance(index, str):
            yield f"{name}: {index}"
