"""What ``tugofwar routing`` prints, as plain text from plain mappings."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tugofwar.plain_table import plain_table

Row = Mapping[str, Any]

# Beyond these a table is wider or longer than a terminal; the files hold all of it.
_MOST_EXPERTS, _MOST_ROUTERS, _MOST_NAMES = 8, 4, 12


def routing_text(content: Mapping[str, Any], folder: str) -> str:
    """Weights by task with intervals, what they amount to, and what switching experts off costs.

    Args:
        content: what ``analyses.routing_weights.measuring.summary`` returns.
        folder: where the tables are.
    """
    return "\n".join(_lines(content, folder))


def _lines(content: Mapping[str, Any], folder: str) -> Iterator[str]:
    routers = content["routers"]
    for checkpoint in content["checkpoints"]:
        for router in routers[:_MOST_ROUTERS]:
            tables = {name: _of(rows, checkpoint["name"], router["name"]) for name, rows in content["tables"].items()}
            yield f"{checkpoint['label']}: {router['name']}, {router['experts']} experts, gives {router['gives']}"
            yield from _weights_lines(tables, router["experts"], content["interval_level"])
            yield from _measure_lines(tables)
            yield from _switched_lines(tables, router)
            yield ""
    if len(routers) > _MOST_ROUTERS:
        yield f"and {len(routers) - _MOST_ROUTERS} more routers, in the tables"
    if content["untouched"]:
        yield f"not reaching a router: {', '.join(content['untouched'])}"
    missing = content["missing_images"]
    if missing:
        yield f"left out, image file missing: {', '.join(f'{count} of {name}' for name, count in missing.items())}"
    yield f"tables in {folder}"


def _weights_lines(tables: Mapping[str, Sequence[Row]], experts: int, level: float) -> Iterator[str]:
    rows = _finest(tables["weights"])
    if experts > _MOST_EXPERTS:
        return
    by_name: dict[str, list[Row]] = {}
    for row in rows:
        by_name.setdefault(row["name"], []).append(row)
    header = [f"weight [{level:.0%}]", *(f"expert {number}" for number in range(experts))]
    cells = [[name, *(_interval(row, "weight") for row in found)] for name, found in list(by_name.items())]
    yield plain_table(header, cells[:_MOST_NAMES])
    if len(cells) > _MOST_NAMES:
        yield f"and {len(cells) - _MOST_NAMES} more, in weights.csv"


def _measure_lines(tables: Mapping[str, Sequence[Row]]) -> Iterator[str]:
    words = {"utilisation_entropy": "utilisation entropy", "token_entropy": "entropy of a token's weights"}
    for row in tables["measures"]:
        if row["level"] == "all":
            yield f"{words[row['measure']]} (0 to 1): {_interval(row, 'value')}"
    for row in tables["information"]:
        yield (
            f"mutual information of {row['level']} and expert: {_interval(row, 'value', '.4f')} bits "
            f"(by chance up to {row['null_high']:.4f}; p = {row['p_value']:.3g})"
        )
    dead = [str(row["expert"]) for row in tables["load"] if row["level"] == "all" and row["dead"]]
    yield f"dead experts: {', '.join(dead) or 'none'}"


def _switched_lines(tables: Mapping[str, Sequence[Row]], router: Row) -> Iterator[str]:
    if "not_switched_off" in router:
        yield f"no expert was switched off: {router['not_switched_off']}"
    rows = [row for row in tables["switched_off"] if row["level"] == "all"]
    if not rows:
        return
    if all(row["change"] == row["low"] == row["high"] == 0 for row in rows):
        yield "switching an expert off changes no loss at all: the loss does not depend on this router"
        return
    most = sorted(rows, key=lambda row: -row["change"])[:_MOST_EXPERTS]
    costs = ", ".join(f"expert {row['expert']} {_interval(row, 'change', '+.4f')}" for row in most)
    yield f"switched off, the loss of {rows[0]['loss']:.4f} changes by: {costs}"


def _of(rows: Sequence[Row], checkpoint: str, router: str) -> list[Row]:
    return [row for row in rows if (row["checkpoint"], row["router"]) == (checkpoint, router)]


def _finest(rows: Sequence[Row]) -> list[Row]:
    """Rows by task; by dataset where no tasks are known."""
    level = "task" if any(row["level"] == "task" for row in rows) else "dataset"
    return [row for row in rows if row["level"] == level]


def _interval(row: Row, column: str, form: str = ".3f") -> str:
    return f"{row[column]:{form}} [{row['low']:{form}}, {row['high']:{form}}]"
