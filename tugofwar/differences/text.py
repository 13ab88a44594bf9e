"""What ``tugofwar compare`` prints, as plain text from a plain mapping."""

from collections.abc import Iterator, Mapping
from typing import Any

from tugofwar.plain_table import plain_table

# As many sure changes of a measure are printed; all of them are in the tables.
SHOWN = 8
_MEASURES = {"gd": "GD", "gm": "GM", "index": "index", "index_normalised": "index / max"}


def difference_text(content: Mapping[str, Any]) -> str:
    """What was compared and how, what changed surely and what did not, and where the tables are.

    Args:
        content: what ``analyses.difference.summary`` returns.
    """
    return "\n".join(_lines(content))


def _lines(content: Mapping[str, Any]) -> Iterator[str]:
    a, b = content["a"]["name"], content["b"]["name"]
    pairing = "the same batches in both, drawn together" if content["paired"] else "different batches, drawn apart"
    numbers = sorted(set(content["batches"].values()))
    size = f" of {content['batch_size']}" if "batch_size" in content else ""
    geometry = f", in the geometry of {content['geometry']}" if "geometry" in content else ""
    yield f"from {a} (a) to {b} (b){geometry}: {' or '.join(map(str, numbers))} batches{size} per dataset, {pairing}"
    for run, side in ((a, "a"), (b, "b")):
        if content["only_in"][side]:
            yield f"left out, because only {run} has a gradient there: {', '.join(content['only_in'][side])}"
    if content["sign_uncertain"]:
        yield f"not judged, because the sign of a denominator is uncertain: {', '.join(content['sign_uncertain'])}"
    for level, measures in content["levels"].items():
        yield from _level_lines(level, measures, content["interval_level"])
    if content["without_scores"]:
        yield f"no shares of parameters: {content['without_scores']}"
    yield f"estimator {content['estimator']}; tables in {content['folder']}"


def _level_lines(level: str, measures: Mapping[str, Any], interval_level: float) -> Iterator[str]:
    tested = {name: measures[name] for name in _MEASURES if name in measures}
    counts = [f"{_MEASURES[name]} {len(found['sure'])} of {found['compared']}" for name, found in tested.items()]
    yield f"\nchanged surely (5 % per measure) between {level}s: {', '.join(counts)}"
    rows = []
    for name, found in tested.items():
        rows += [_row(_MEASURES[name], cell) for cell in found["sure"][:SHOWN]]
        more = len(found["sure"]) - SHOWN
        rows += [[_MEASURES[name], f"and {more} more", "", "", "", "", ""]] if more > 0 else []
    if rows:
        header = [
            "",
            "interfered with",
            "interfering",
            "a",
            "b",
            f"b - a [{interval_level:.0%} interval]",
            "adjusted p",
        ]
        yield plain_table(header, rows)
    if "scores" in measures:
        last = measures["scores"]
        yield (
            f"statistics score over {last['interval_low']:.1f}: {last['a']:.1%} of parameters in a, "
            f"{last['b']:.1%} in b, difference {last['difference']:+.1%} [{last['low']:+.1%}, {last['high']:+.1%}]"
        )


def _row(measure: str, cell: Mapping[str, Any]) -> list[str]:
    names = [cell["row"], cell["column"]] if "row" in cell else [cell["name"], ""]
    change = f"{cell['difference']:+.3f} [{cell['low']:+.3f}, {cell['high']:+.3f}]"
    return [measure, *names, f"{cell['a']:.3f}", f"{cell['b']:.3f}", change, f"{cell['p_value']:.3f}"]
