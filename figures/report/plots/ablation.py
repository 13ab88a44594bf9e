"""How good each arm of an ablation is: Delta over its baseline."""

from collections.abc import Sequence

import pandas as pd

from figures.explaining import ablation as explain
from figures.palette import order_by_task
from figures.report.chart import Picture, Table, View
from figures.report.plots.parts import Points, Series, points
from figures.tables.ablation import TOTAL, AblationTables


def pictures(ablations: Sequence[AblationTables]) -> list[Picture]:
    """One forest of all tables; none where there are no tables."""
    if not ablations:
        return []
    parts = [
        pd.concat([pd.DataFrame({"table": one.name}, index=one.deltas.index), one.deltas], axis=1) for one in ablations
    ]
    table = Table(pd.concat(parts, ignore_index=True).sort_values(["table", "group"], kind="stable"))
    views = []
    for one in ablations:
        text, here = explain.forest(one), table.rows(table=one.name)
        groups = [group for group in dict.fromkeys(here.frame["group"]) if group != TOTAL]
        for group in [*([TOTAL] if TOTAL in set(here.frame["group"]) else []), *order_by_task(groups, {})]:
            rows = here & table.rows(group=group)
            known = bool(rows.frame["low"].notna().any())
            hover = [("", "arm", ""), ("Δ %", "value", ".3~f"), ("seeds", "seeds", "d"), ("over ", "baseline", "")]
            hover[2:2] = [("interval", "low", ".3~f"), ("to", "high", ".3~f")] if known else []
            form = Points(
                names=list(dict.fromkeys(rows.frame["arm"])),
                column="arm",
                value="value",
                low="low" if known else "",
                high="high" if known else "",
                axis="Δ: mean relative gain over the baseline, in %",
                hover=hover,
            )
            figure = points([Series(group, rows)], form)
            views.append(View((one.name, group), figure, text, table, rows.span))
    return [Picture("forest", ("Table", "Gain on"), views)]
