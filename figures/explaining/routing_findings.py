"""What a run's routing shows, in one hedged sentence a question; None where no interval supports one."""

from math import log2

import pandas as pd

from figures.explaining.sentences import interval, number, p_value, within
from figures.explaining.support import Case, judge, widened, widening_apart
from figures.tables.routing import RoutingTables


def weights(run: str, tables: RoutingTables, router: str) -> str | None:
    """Which tasks lean most and least on which experts."""
    level, experts = tables.level, tables.experts(router)
    table = tables.at_end(tables.weights, router)
    table = table[table["level"] == level]
    if experts < 2 or table.empty:
        return None
    even = 1 / experts
    found = judge(
        table,
        ["name", "expert"],
        even,
        tables.interval_level,
        value="weight",
        null_name=f"the even share {number(even)}",
    )
    if not found.cases:
        return None
    clauses = [_leaning(case, "most on") for case in found.above[:1]]
    clauses += [_leaning(case, "least on") for case in found.below[:1]]
    return within(
        [f"{_where(run, tables)} {clauses[0]}", *clauses[1:]], f"; {found.basis}", " and ", f"; {found.brief}"
    )


def information(run: str, tables: RoutingTables, router: str) -> str | None:
    """Whether the router tells tasks apart better than by chance."""
    found = _informed(tables, router)
    if found is None:
        return None
    row, tests = found
    level = str(row["level"])
    labels = tables.weights.loc[tables.weights["level"] == level, "name"].nunique()
    fewest = min(labels, tables.experts(router))
    if fewest < 2:
        return None
    most = log2(fewest)
    text = (
        f"{_where(run, tables)} the router tells {level}s apart: {level} and expert share "
        f"{interval(row['value'], row['low'], row['high'])} bits, of at most {number(most)}, where shuffled labels "
        f"stay under {number(row['null_high'])} ({p_value(min(1.0, row['p_value'] * tests))}"
        f"{f', adjusted for {tests:,} routers' if tests > 1 else ''})"
    )
    return within([text])


def divergence(run: str, tables: RoutingTables, router: str) -> str | None:
    """Which tasks are routed furthest apart."""
    table = tables.at_end(tables.divergence, router)
    if table.empty or _informed(tables, router) is None:
        return None
    # A divergence is symmetric: each pair counts once, under the names in their order.
    table = table[(table["level"] == tables.level) & (table["row"] < table["column"])]
    if len(table) < 2:
        return None
    ordered = table.sort_values(["value", "row", "column"])
    closest, furthest = ordered.iloc[0], ordered.iloc[-1]
    comparisons = len(ordered) * (len(ordered) - 1) // 2
    low, high = widened(
        ordered["value"], ordered["low"], ordered["high"], widening_apart(tables.interval_level, comparisons)
    )
    if not low.iloc[-1] > high.iloc[0]:
        return None
    text = (
        f"{_where(run, tables)} {furthest['row']} and {furthest['column']} are routed further apart "
        f"({interval(furthest['value'], furthest['low'], furthest['high'])} bits) than {closest['row']} and "
        f"{closest['column']} ({interval(closest['value'], closest['low'], closest['high'])} bits; single "
        f"{tables.interval_level:.0%} intervals, apart even when widened for all pairs)"
    )
    return within([text])


def switched_off(run: str, tables: RoutingTables, router: str) -> str | None:
    """Which task misses which expert."""
    table = tables.at_end(tables.switched_off, router)
    if len(table):
        table = table[table["level"] == tables.level]
    found = judge(table, ["expert", "name"], 0.0, tables.interval_level, value="change")
    if not found.cases:
        return None
    clauses = [
        f"{case.names[1]} {verb} most clearly without expert {case.names[0]} (loss {_signed(case)})"
        for cases, verb in ((found.above, "suffers"), (found.below, "gains"))
        for case in cases[:1]
    ]
    return within(
        [f"{_where(run, tables)} {clauses[0]}", *clauses[1:]], f"; {found.basis}", " and ", f"; {found.brief}"
    )


def _leaning(case: Case, how: str) -> str:
    return f"{case.names[0]} leans {how} expert {case.names[1]} ({interval(case.value, case.low, case.high)})"


def _informed(tables: RoutingTables, router: str) -> tuple[pd.Series, int] | None:
    """Information at the last checkpoint if it is above its null after adjustment, and the number of tests."""
    if tables.information is None:
        return None
    last = tables.information["checkpoint"] == tables.last
    table = tables.information[last & (tables.information["level"] == tables.level)]
    tests = len(table)
    table = table[table["router"] == router]
    if table.empty:
        return None
    row = table.iloc[0]
    sure = row["p_value"] * tests <= 0.05 and row["value"] > row["null_high"]
    return (row, tests) if sure else None


def _signed(case: Case) -> str:
    sign = "+" if case.value > 0 else ""
    return sign + interval(case.value, case.low, case.high)


def _where(run: str, tables: RoutingTables) -> str:
    return f"In run {run}, {tables.labels[tables.last]},"
