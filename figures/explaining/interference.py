"""Which datasets and tasks pull against each other: GD and GM (equations 2 and 3), indexes (equation 4)."""

from collections.abc import Sequence

import pandas as pd

from figures.explaining.sampling import few_batches, gradient_sampling, gradient_warnings
from figures.explaining.sentences import counted, interval, most_clearly, number, within
from figures.explaining.support import Case, Support, judge
from figures.explanation import Explanation
from figures.palette import GD_BOUND, INDEX_FLOOR
from figures.tables.gradients import GradientTables

_PAIR = ("row", "column")
_EQUATIONS = {"GD": 2, "GM": 3}
_NULLS = {"GD": 0, "GM": 1}


def heatmap(run: GradientTables, level: str) -> Explanation:
    """Text beside the heat maps of GD and GM.

    Args:
        run: gradient tables.
        level: ``dataset`` or ``task``.
    """
    caption = (
        f"Interference between {level}s in run {run.name}. Left: gradient direction GD (equation 2; 1 means that the "
        "column's update helps the row as much as the row's own, negative that it harms it; colours end at "
        f"±{GD_BOUND:g}, numbers do not). Right: gradient magnitude similarity GM (equation 3). "
        f"{gradient_sampling(run)} Intervals are in the table beside the picture."
    )
    return Explanation(
        title=f"{run.name}: interference between {level}s",
        reading=(
            f"Go along a {level}'s row of the left map: blue columns are {level}s whose updates help it too, as much "
            "as its own update would at 1, red ones those whose updates harm it. "
            "On the right, dark cells are pairs with gradients of equal length, and pale cells pairs of which one "
            "dominates the other."
        ),
        finding=_pairs_finding(run, level),
        caption=caption + _dagger(run, level),
        warnings=tuple(gradient_warnings(run, level)),
    )


def intervals(run: GradientTables, level: str, measure: str = "") -> Explanation:
    """Text beside the cells of GD and GM with their single and simultaneous intervals.

    Args:
        run: gradient tables.
        level: ``dataset`` or ``task``.
        measure: ``GD`` or ``GM``; empty for both.
    """
    what = f"{measure} (equation {_EQUATIONS[measure]})" if measure else "GD (equation 2) and GM (equation 3)"
    null = f"{_NULLS[measure]}" if measure else "0 (GD) or 1 (GM)"
    caption = (
        f"Every cell of {what} between {level}s in run {run.name}, with the {run.interval_level:.0%} interval of this "
        f"cell alone and the wider one that covers all cells of the table together. {gradient_sampling(run)}"
    )
    return Explanation(
        title=f"{run.name}: how sure each pair of {level}s is" + (f" ({measure})" if measure else ""),
        reading=(
            "Every pair has two intervals, a narrow one for this pair alone and a wide one that holds for all pairs of "
            "the table at once. "
            f"Only where the wide one leaves out {null} is the effect sure among so many pairs; elsewhere it may go "
            "either way or be nothing."
        ),
        finding=_pairs_finding(run, level) if measure == "GD" else _magnitude_finding(run, level),
        caption=caption + ("" if measure == "GM" else _dagger(run, level)),
        warnings=tuple(gradient_warnings(run, level)),
    )


def indexes(runs: Sequence[GradientTables]) -> Explanation:
    """Text beside the indexes of several runs."""
    names = ", ".join(run.name for run in runs)
    caption = (
        f"Tug-of-war indexes (equation 4) divided by the largest of the same run, for {names}. "
        f"{gradient_sampling(runs[0])} Error bars are single {runs[0].interval_level:.0%} intervals; one that goes on "
        f"below {number(INDEX_FLOOR, 0)} is cut there and ends in an arrow, and the table has its end."
    )
    return Explanation(
        title="Tug-of-war indexes",
        reading=(
            "A bar is the index of one dataset or task divided by the largest of the same run, which therefore stands "
            "at 1. "
            "Where a shared step serves all alike, all bars are equally long; what has a short one is served little "
            "compared with the best, and what has a negative one is harmed."
        ),
        finding=_index_finding(runs),
        caption=caption,
        warnings=tuple(_index_warnings(runs)),
    )


def breakdown(run: GradientTables, level: str) -> Explanation:
    """Text beside indexes and GD by group of blocks.

    Args:
        run: gradient tables with those by blocks.
        level: ``dataset`` or ``task``.
    """
    blocks = run.blocks
    groups = "" if blocks is None else f" {counted(len(blocks), 'group')} of blocks are shown by themselves."
    return Explanation(
        title=f"{run.name}: interference by part of the network, {level}s",
        reading=(
            "Everything is measured again on the parameters of one part of the network alone, such as a layer, an "
            "expert or the router. "
            f"An index above 1 says that on this part the other {level}s help on balance, and one below 1 that they "
            "get in the way."
        ),
        finding=_block_finding(run, level),
        caption=(
            f"Tug-of-war indexes (equation 4) and GD (equation 2) between {level}s in run {run.name}, on groups of "
            f"blocks.{groups} Intervals are of one number alone. {gradient_sampling(run)}"
        ),
        warnings=tuple(_block_warnings(run, level)),
    )


def _dagger(run: GradientTables, level: str) -> str:
    names = run.levels[level].sign_uncertain
    if not names:
        return ""
    return f" † The sign of the denominator of {', '.join(names)} is uncertain: its row of GD is not to be trusted."


def _pairs(run: GradientTables, level: str) -> Support:
    tables = run.levels[level]
    cells = tables.gd_intervals
    others = cells[(cells["row"] != cells["column"]) & ~cells["row"].isin(tables.sign_uncertain)]
    return judge(others, _PAIR, 0.0, run.interval_level)


def _pairs_finding(run: GradientTables, level: str) -> str | None:
    found = _pairs(run, level)
    if not found.cases:
        return None
    clauses = [_effect(case, "help") for case in found.above[:1]] + [_effect(case, "harm") for case in found.below[:1]]
    counts = [
        f"{len(cases):,} surely {word}{'s' if len(cases) == 1 else ''}"
        for cases, word in ((found.above, "help"), (found.below, "harm"))
        if cases
    ]
    pairs = counted(found.tested, "ordered pair")
    tail = f"; of {pairs} {' and '.join(counts)} ({found.basis}, estimator {run.estimator})"
    begin = f"In run {run.name}, " + most_clearly(len(found.cases), clauses[0])
    return within([begin, *clauses[1:]], tail, " and ", f"; {found.brief}")


def _effect(case: Case, verb: str) -> str:
    return f"{case.names[1]}'s updates {verb} {case.names[0]}'s batches (GD {_numbers(case)})"


def _numbers(case: Case) -> str:
    return interval(case.value, case.low, case.high)


def _magnitude_finding(run: GradientTables, level: str) -> str | None:
    # GM is symmetric: each pair counts once, under the names in their order.
    cells = run.levels[level].gm_intervals
    found = judge(cells[cells["row"] < cells["column"]], _PAIR, 1.0, run.interval_level)
    if not found.below:
        return None
    case, number_of = found.below[0], len(found.below)
    text = (
        f"In run {run.name}, {number_of:,} of {counted(found.tested, 'pair')} of {level}s surely "
        f"{'has' if number_of == 1 else 'have'} gradients of different length, "
        f"{most_clearly(number_of, f'{case.names[0]} and {case.names[1]}')} (GM {_numbers(case)}; {found.basis})"
    )
    return within([text])


def _index_level(runs: Sequence[GradientTables]) -> str:
    return "task" if all("task" in run.levels for run in runs) else "dataset"


def _index_finding(runs: Sequence[GradientTables]) -> str | None:
    level = _index_level(runs)
    clauses = []
    basis = ""
    for run in runs:
        tables = run.levels[level]
        trusted = tables.index[~tables.index.index.isin(tables.sign_uncertain)].rename_axis("name").reset_index()
        found = judge(trusted, ["name"], 1.0, run.interval_level, value="index", prefix="index_")
        if found.cases:
            basis = found.basis
            clauses.append(f"in run {run.name}, {_gains(found, level)}")
    if not clauses:
        return None
    first, *others = clauses
    return within([first[0].upper() + first[1:], *others], f"; indexes before division, {basis}")


def _gains(found: Support, level: str) -> str:
    """``3 of 5 tasks surely gain from the others on balance (index above 1; most clearly REG, 2.20 [1.36, 3.04])``."""
    parts = [
        f"{len(cases):,} of {counted(found.tested, level)} surely {verb}{'s' if len(cases) == 1 else ''} "
        f"from the others on balance (index {side} 1; {most_clearly(len(cases), cases[0].names[0])}, "
        f"{_numbers(cases[0])})"
        for cases, verb, side in ((found.above, "gain", "above"), (found.below, "suffer", "below"))
        if cases
    ]
    return " and ".join(parts)


def _index_warnings(runs: Sequence[GradientTables]) -> list[str]:
    warnings = []
    first = runs[0]
    for run in runs[1:]:
        mine, theirs = (set(one.levels["dataset"].gd) for one in (first, run))
        if mine != theirs:
            warnings.append(
                f"Runs {first.name} and {run.name} were measured on different datasets: their indexes are sums over "
                "different sets and cannot be compared."
            )
    for run in runs:
        warnings += few_batches(min(run.batches), run.name)
        for level, tables in run.levels.items():
            if "index_normalised" not in tables.index:
                warnings.append(
                    f"No index of run {run.name} is positive at {level} level, so that they cannot be divided by their "
                    "maximum."
                )
    for run in runs:
        for level in run.levels:
            warnings += [text for text in gradient_warnings(run, level) if "sign of the denominator" in text]
    return list(dict.fromkeys(warnings))


def _block_finding(run: GradientTables, level: str) -> str | None:
    table = run.levels[level].index_blocks
    if table is None:
        return None
    found = judge(_trusted(table), ["block", "name"], 1.0, run.interval_level, value="index")
    if not found.cases:
        return None
    strongest = [(cases[0], side) for cases, side in ((found.above, "above"), (found.below, "below")) if cases]
    (case, side), *others = strongest
    first = f"the index of {case.names[1]} on {case.names[0]} seems {side} 1 ({_numbers(case)})"
    clauses = [f"In run {run.name}, {most_clearly(len(found.cases), first)}"]
    clauses += [f"that of {case.names[1]} on {case.names[0]} {side} 1 ({_numbers(case)})" for case, side in others]
    return within(clauses, f"; {found.basis}", " and ", f"; {found.brief}")


def _trusted(table: pd.DataFrame) -> pd.DataFrame:
    return table[~table["sign_uncertain"].astype(bool)] if "sign_uncertain" in table else table


def _block_warnings(run: GradientTables, level: str) -> list[str]:
    table = run.levels[level].index_blocks
    warnings = gradient_warnings(run, level)
    if table is not None and len(table) > len(_trusted(table)):
        warnings.append(
            f"In run {run.name} {len(table) - len(_trusted(table)):,} of {len(table):,} indexes on parts of the "
            "network have a denominator of uncertain sign; the finding leaves them out."
        )
    return warnings
