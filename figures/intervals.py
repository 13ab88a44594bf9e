"""How sure each cell of GD and GM is: the second panel of the heat maps."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from figures import palette, style
from figures.heat import colour_bar, heat, name_square
from figures.palette import GD_BOUND
from figures.whiskers import Panels, cut_to, dot_panels

# Names from which on a dot for every cell cannot be told from its neighbours.
MAPS_FROM = 13
# Where GD and GM say nothing about interference, and the widest axis that is drawn.
REFERENCE = {"GD": 0.0, "GM": 1.0}
WIDEST = {"GD": (-2.0, 2.0), "GM": (0.0, 1.05)}
SURE = 0.05


def interval_forest(
    intervals: pd.DataFrame,
    measure: str = "GD",
    tasks: Mapping[str, str] | None = None,
    title: str | None = None,
    look: str = "paper",
) -> Figure:
    """Every cell of GD (eq. 2) or GM (eq. 3) with its interval, a panel per row of the heat map.

    Args:
        intervals: ``row``, ``column``, ``value``, ``low``, ``high``, ``simultaneous_low``, ``simultaneous_high``,
            ``p_value`` (adjusted for all cells).
        measure: ``GD`` or ``GM``.
        tasks: task of each name, which orders and colours them.
        title: text above the panels.
        look: ``paper`` or ``talk``.

    Returns:
        Dots with thick single and thin simultaneous intervals, hollow where the adjusted p-value is above 0.05; from
        13 names on two maps instead: the cells that are sure, and the width of every cell's own interval.
    """
    tasks = tasks or {}
    names = palette.order_by_task(list(dict.fromkeys(intervals["row"])), tasks)
    if len(names) >= MAPS_FROM:
        return _maps(intervals, measure, names, tasks, title, look)
    cells = intervals[intervals["row"] != intervals["column"]]
    table = cells.rename(columns={"row": "panel", "column": "row"}).assign(sure=cells["p_value"] <= SURE)
    widest = WIDEST[measure]
    limits = cut_to(table, widest, REFERENCE[measure]) if len(table) else widest
    layout = Panels(
        panels={name: name for name in names},
        rows=names,
        label=f"{measure} of the panel's name (interfered with) with the name on the left (interfering)",
        tasks=tasks,
        reference=REFERENCE[measure],
        limits=limits,
        columns=5 if len(names) > 6 else max(2, len(names)),
        hollow=f"not surely different from {REFERENCE[measure]:g}",
    )
    return dot_panels(table, layout, title, look)


def _maps(
    intervals: pd.DataFrame, measure: str, names: list[str], tasks: Mapping[str, str], title: str | None, look: str
) -> Figure:
    value, low, high, p_value = (
        intervals.pivot(index="row", columns="column", values=column).loc[names, names]
        for column in ("value", "low", "high", "p_value")
    )
    sure = value.where(p_value <= SURE)
    width = high - low
    cells = min(0.3 * len(names), 5.0)
    room = (2.9, cells)
    with style.print_style(look):
        figure = style.new_figure(style.TEXT_WIDTH, 1.8 + cells, look)
        left, right = figure.subplots(1, 2, sharey=True)
        colours, bounds = ("RdBu", (-GD_BOUND, GD_BOUND)) if measure == "GD" else ("Blues", (0.0, 1.0))
        left.set_facecolor("#E8E8E8")
        heat(left, sure, colours, bounds, room)
        heat(right, width, "Greys", (0.0, float(min(np.nanmax(width), 2.0)) or 1.0), room)
        name_square(left, names, tasks, room)
        name_square(right, names, tasks, room, rows=False)
        right.tick_params(axis="y", length=0, labelleft=False)
        for axes in (left, right):
            axes.set_xlabel("interfering")
        left.set_ylabel("interfered with")
        label = f"{measure} where surely not {REFERENCE[measure]:g} (grey: not sure)"
        colour_bar(figure, left.images[0], left, label, extend="both" if measure == "GD" else "neither")
        colour_bar(figure, right.images[0], right, f"Width of the interval of {measure}", extend="max")
        style.below(figure, style.task_handles(names, tasks))
        style.head(figure, title)
    return figure
