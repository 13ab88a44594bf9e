"""How good each arm of an ablation is, as its mean relative gain Delta over a baseline."""

import pandas as pd

from figures.explaining.sentences import counted, most_clearly, named, number, within
from figures.explaining.support import Case, judge
from figures.explanation import Explanation
from figures.tables.ablation import TOTAL, AblationTables

INTERVAL_LEVEL = 0.95
"""Of the intervals in every table of an ablation."""


def forest(tables: AblationTables) -> Explanation:
    """Text beside the forest plot of Delta."""
    deltas = tables.deltas
    baselines = list(dict.fromkeys(map(str, deltas["baseline"])))
    seeds = sorted({int(count) for count in deltas["seeds"]})
    return Explanation(
        title=f"Table {tables.name}: gain over the baseline",
        reading=(
            "Each mark is an arm's mean relative gain over the baseline in percent, and its line the interval: right "
            "of 0 the arm scores better. "
            "A line across 0 leaves open which of the two is better, and lines that overlap say nothing sure about two "
            "arms against each other."
        ),
        finding=_finding(tables),
        caption=(
            f"Δ, the mean over datasets of an arm's relative gain over {named(baselines)} in percent (Section 4.1), by "
            f"task and in total; scores as in: {tables.flavour}; {_seeds(seeds)} per arm. Intervals are single "
            f"{INTERVAL_LEVEL:.0%} intervals over images and "
            f"seeds{'' if _bounded(deltas).all() else ', where there are any'}."
        ),
        warnings=tuple(_warnings(tables)),
    )


def _seeds(seeds: list[int]) -> str:
    if len(seeds) == 1:
        return counted(seeds[0], "seed")
    return f"{seeds[0]} to {seeds[-1]} seeds"


def _bounded(deltas: pd.DataFrame) -> pd.Series:
    return deltas[["low", "high"]].notna().all(axis=1)


def _finding(tables: AblationTables) -> str | None:
    deltas = tables.deltas[_bounded(tables.deltas)]
    totals = deltas[deltas["group"] == TOTAL]
    found = judge(totals, ["arm", "baseline"], 0.0, INTERVAL_LEVEL)
    if not found.cases:
        return None
    clauses = [
        f"{case.names[0]} scores {word} than {case.names[1]} (total Δ {_percent(case)})"
        for cases, word in ((found.above, "better"), (found.below, "worse"))
        for case in cases[:1]
    ]
    begin = f"In table {tables.name}, "
    first = begin + most_clearly(len(found.cases), clauses[0])
    return within([first, *clauses[1:]], f"; {found.basis}", " and ", f"; {found.brief}")


def _percent(case: Case) -> str:
    numbers = [number(value, 1) for value in (case.value, case.low, case.high)]
    return f"{'+' if case.value > 0 else ''}{numbers[0]}% [{numbers[1]}%, {numbers[2]}%]"


def _warnings(tables: AblationTables) -> list[str]:
    warnings = []
    deltas = tables.deltas
    # A baseline has no gain over itself.
    waiting = [arm for arm in tables.waiting if arm not in set(deltas["baseline"])]
    if waiting:
        warnings.append(f"Table {tables.name} has no Δ yet for {named(waiting)}.")
    if not _bounded(deltas).all():
        count = int((~_bounded(deltas)).sum())
        warnings.append(f"In table {tables.name} {count:,} of {counted(len(deltas), 'Δ', 'Δs')} have no interval.")
    single = sorted({str(arm) for arm in deltas.loc[deltas["seeds"] < 2, "arm"]})
    if single:
        warnings.append(
            f"In table {tables.name} {named(single)} ran with one seed: the intervals there know nothing of how much "
            "training varies."
        )
    return warnings
