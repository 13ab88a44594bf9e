"""What changed from one run to another, as `tugofwar compare` tested it."""

from collections.abc import Sequence

import pandas as pd

from figures.explaining.sampling import batches_text, few_batches
from figures.explaining.sentences import counted, interval, most_clearly, named, points, within
from figures.explaining.support import Case, Support, in_order, judge
from figures.explanation import Explanation
from figures.tables.difference import DifferenceTables

_ROUNDING = 1e-9
_ADJUSTED = "What changed surely has a p-value, adjusted for all cells of its table, of at most 0.05."


def maps(tables: DifferenceTables, level: str) -> Explanation:
    """Text beside the maps of differences in GD and GM.

    Args:
        tables: of one comparison.
        level: ``dataset`` or ``task``.
    """
    return Explanation(
        title=f"From {tables.a} to {tables.b}: interference between {level}s",
        reading=(
            f"A cell is {tables.b}'s number minus {tables.a}'s: above 0 the column's updates help the row more in "
            f"{tables.b} than in {tables.a}. "
            "Only marked cells changed surely, counting that so many were looked at; an unmarked cell may have "
            "changed, too."
        ),
        finding=_maps_finding(tables, level),
        caption=f"Differences of GD (equation 2) and GM (equation 3) between {level}s. {_sampling(tables)} {_ADJUSTED}",
        warnings=tuple(_warnings(tables, level)),
    )


def indexes(tables: DifferenceTables, level: str) -> Explanation:
    """Text beside the differences of tug-of-war indexes.

    Args:
        tables: of one comparison.
        level: ``dataset`` or ``task``.
    """
    return Explanation(
        title=f"From {tables.a} to {tables.b}: tug-of-war indexes, {level}s",
        reading=(
            f"Each line is one {level}'s index in {tables.b} minus that in {tables.a}, with its interval: right of 0 "
            "the others help it more there. "
            "Only filled marks changed surely among all that were looked at; intervals across 0 leave open whether "
            "there is a change and in which direction."
        ),
        finding=_indexes_finding(tables, level),
        caption=f"Differences of tug-of-war indexes (equation 4) of {level}s. {_sampling(tables)} {_ADJUSTED}",
        warnings=tuple(_warnings(tables, level)),
    )


def scores(tables: DifferenceTables, level: str) -> Explanation:
    """Text beside the differences of the statistics scores' distributions.

    Args:
        tables: of one comparison.
        level: ``dataset`` or ``task``.
    """
    return Explanation(
        title=f"From {tables.a} to {tables.b}: statistics scores, {level}s",
        reading=(
            f"Each bar is the share of parameters in one tenth of the statistics score in {tables.b} minus that in "
            f"{tables.a}, in percentage points. "
            "Shares sum to 1 in both runs, so what rises in one tenth falls in others; more on the right means less "
            "conflict or less noise."
        ),
        finding=_scores_finding(tables, level),
        caption=(
            f"Differences of the shares of parameters by statistics score (equation 5) between {level}s; single "
            f"intervals. {_sampling(tables)}"
        ),
        warnings=tuple(_sampling_warnings(tables)),
    )


def verdicts(table: pd.DataFrame, names: Sequence[str], level: float) -> Support:
    """Cells with the verdict ``higher`` or ``lower``, the strongest first; cells without any spread do not count.

    Args:
        table: with verdicts and simultaneous intervals.
        names: columns that say what a cell is about.
        level: of the intervals.
    """
    ends = ("simultaneous_low", "simultaneous_high")
    moving = table[(table["low"] - table["high"]).abs() > _ROUNDING]
    higher, lower = (moving[moving["verdict"] == verdict] for verdict in ("higher", "lower"))
    return Support(
        above=in_order(moving, names, "difference", ends, higher[ends[0]]),
        below=in_order(moving, names, "difference", ends, -lower[ends[1]]),
        tested=len(moving),
        excluding=None,
        level=level,
        null="0",
    )


def _maps_finding(tables: DifferenceTables, level: str) -> str | None:
    clauses = []
    for measure, cells in (("GD", tables.gd.get(level)), ("GM", tables.gm.get(level))):
        if cells is None:
            continue
        # GM is symmetric: each pair counts once.
        others = cells["row"] != cells["column"] if measure == "GD" else cells["row"] < cells["column"]
        found = verdicts(cells[others], ("row", "column"), _level(tables))
        if found.cases:
            clauses.append(_counted_change(measure, found))
    if not clauses:
        return None
    return within([f"{_from_to(tables)}, {clauses[0]}", *clauses[1:]], f"; {_basis(tables)}")


def _counted_change(measure: str, found: Support) -> str:
    case = max(found.cases, key=lambda one: (min(abs(one.low), abs(one.high)), one.names))
    row, column = case.names
    pair = f"that of {row} under {column}'s updates" if measure == "GD" else f"that of {row} and {column}"
    return (
        f"{len(found.cases):,} of {counted(found.tested, 'value')} of {measure} changed surely, "
        f"{most_clearly(len(found.cases), pair)} ({_signed(case)})"
    )


def _indexes_finding(tables: DifferenceTables, level: str) -> str | None:
    table = tables.index.get(level)
    if table is None:
        return None
    clauses = []
    for measure, words in (("index", "indexes"), ("index_normalised", "max-normalised indexes")):
        found = verdicts(table[table["measure"] == measure], ("name",), _level(tables))
        for cases, word in ((found.above, "higher"), (found.below, "lower")):
            if cases:
                clauses.append(
                    f"{len(cases):,} of {found.tested:,} {words} {'is' if len(cases) == 1 else 'are'} surely {word} "
                    f"({most_clearly(len(cases), cases[0].names[0])}, {_signed(cases[0])})"
                )
    if not clauses:
        return None
    return within([f"{_from_to(tables)}, {clauses[0]}", *clauses[1:]], f"; {_basis(tables)}")


def _scores_finding(tables: DifferenceTables, level: str) -> str | None:
    table = tables.scores.get(level)
    if table is None:
        return None
    named_rows = table.assign(
        tenth=[
            f"{low:.1f} to {high:.1f}" for low, high in zip(table["interval_low"], table["interval_high"], strict=True)
        ]
    )
    found = judge(named_rows, ["tenth"], 0.0, _level(tables), value="difference")
    if not found.cases:
        return None
    clauses = [
        f"{'more' if case.value > 0 else 'fewer'} parameters score {case.names[0]} "
        f"({points(case.value, case.low, case.high)})"
        for cases in (found.above, found.below)
        for case in cases[:1]
    ]
    return within([f"{_from_to(tables)}, {clauses[0]}", *clauses[1:]], f"; {found.basis}", " and ", f"; {found.brief}")


def _from_to(tables: DifferenceTables) -> str:
    return f"From {tables.a} to {tables.b}"


def _signed(case: Case) -> str:
    return ("+" if case.value > 0 else "") + interval(case.value, case.low, case.high)


def _level(tables: DifferenceTables) -> float:
    return float(tables.manifest["interval_level"])


def _basis(tables: DifferenceTables) -> str:
    pairing = "paired, " if tables.manifest["paired"] else ""
    return f"{pairing}simultaneous {_level(tables):.0%} intervals, {tables.manifest['estimator']}"


def _sampling(tables: DifferenceTables) -> str:
    manifest = tables.manifest
    paired = (
        "paired: both runs saw the same batches, which are drawn together in the bootstrap"
        if manifest["paired"]
        else "not paired: the runs saw different batches, which are drawn independently in the bootstrap"
    )
    parts = [
        f"Run {tables.b} minus run {tables.a}",
        paired,
        batches_text(" or ".join(map(str, _batches(tables))), manifest.get("batch_size")),
        f"estimator {manifest['estimator']}",
        f"{_level(tables):.0%} bootstrap intervals ({manifest['resamples']:,} resamples"
        + (f", seed {manifest['seed']})" if "seed" in manifest else ")"),
    ]
    return "; ".join(parts) + "."


def _batches(tables: DifferenceTables) -> list[int]:
    """The different numbers of batches per dataset."""
    batches = tables.manifest["batches"]
    return sorted(set(batches.values())) if isinstance(batches, dict) else [int(batches)]


def _warnings(tables: DifferenceTables, level: str) -> list[str]:
    """Those of ``_sampling_warnings``, and denominators of GD that may have either sign."""
    names = set(tables.index[level]["name"]) if level in tables.index else set()
    # The manifest lists datasets and tasks together.
    uncertain = [name for name in dict.fromkeys(tables.manifest.get("sign_uncertain") or []) if name in names]
    if not uncertain:
        return _sampling_warnings(tables)
    return [
        *_sampling_warnings(tables),
        f"The sign of the denominator of {named(uncertain)} is uncertain in {tables.a} or {tables.b}: nothing is said "
        "of changes of rows of GD and of indexes there.",
    ]


def _sampling_warnings(tables: DifferenceTables) -> list[str]:
    manifest = tables.manifest
    warnings = few_batches(_batches(tables)[0], f"{tables.a} or {tables.b}")
    if not manifest["paired"]:
        warnings.append(
            f"Runs {tables.a} and {tables.b} were probed with different batches: intervals are wider than a paired "
            "comparison would give."
        )
    missing = [str(name) for name in manifest.get("left_out") or []]
    if missing:
        warnings.append(
            f"Only one of {tables.a} and {tables.b} has gradients of {named(missing)}: the comparison leaves them out, "
            "and its indexes are sums over the others."
        )
    return warnings
