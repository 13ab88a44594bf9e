"""Interference on groups of parameters: per layer, expert and router."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from figures import palette, style
from figures.heat import colour_bar, fade, heat, names_on
from figures.intervals import MAPS_FROM
from figures.palette import GD_BOUND
from figures.whiskers import Panels, cut_to, dot_panels

# Indexes are coloured about that of a dataset alone, 1.
INDEX_BOUNDS = (-1.0, 3.0)
WIDEST_INDEX = (-2.0, 6.0)


def block_maps(
    index: pd.DataFrame,
    gd: pd.DataFrame,
    tasks: Mapping[str, str] | None = None,
    title: str | None = None,
    look: str = "paper",
) -> Figure:
    """Index (eq. 4) and mean GD (eq. 2) with the others, by group of parameters, as heat maps.

    Args:
        index: ``block``, ``name``, ``index``, ``sign_uncertain``.
        gd: ``block``, ``row``, ``column``, ``value``.
        tasks: task of each name, which orders and colours them.
        title: text above both panels.
        look: ``paper`` or ``talk``.

    Returns:
        A figure of text width: blocks from top to bottom, names from left to right; the right panel shows the mean
        of a name's row of GD without itself, and is absent where there is one name only. Cells are pale where the sign
        of the denominator of both is uncertain.
    """
    tasks = tasks or {}
    blocks = list(dict.fromkeys(index["block"]))
    names = palette.order_by_task(list(dict.fromkeys(index["name"])), tasks)
    pulls = mean_direction(gd)
    panels = 1 if pulls.empty else 2
    cells = min(max(0.22 * len(blocks), 0.6), 6.0)
    room = (5.2 / panels, cells)
    with style.print_style(look):
        figure = style.new_figure(style.TEXT_WIDTH, 2.0 + cells, look)
        every_axes = figure.subplots(1, panels, squeeze=False, sharey=True)[0]
        table, doubtful = (
            index.pivot(index="block", columns="name", values=column).reindex(index=blocks, columns=names)
            for column in ("index", "sign_uncertain")
        )
        doubtful = doubtful.fillna(False).astype(bool)
        image = heat(every_axes[0], table, "PuOr", INDEX_BOUNDS, room)
        label = "Tug-of-war index (white: 1, as if alone)"
        colour_bar(figure, image, every_axes[0], label, extend="both", ticks=[-1, 0, 1, 2, 3])
        if panels == 2:
            table = pulls.pivot(index="block", columns="name", values="value").reindex(index=blocks, columns=names)
            image = heat(every_axes[1], table, "RdBu", (-GD_BOUND, GD_BOUND), room)
            colour_bar(figure, image, every_axes[1], "Mean GD with the others", extend="both", ticks=[-1, 0, 1])
            every_axes[1].tick_params(axis="y", length=0, labelleft=False)
        names_on(every_axes[0], blocks, "y", cells)
        for axes in every_axes:
            fade(axes, doubtful.to_numpy())
            names_on(axes, names, "x", room[0], tasks)
        note = "pale: sign of the denominator uncertain" if doubtful.any(axis=None) else None
        style.below(figure, style.task_handles(names, tasks), note)
        style.head(figure, title)
    return figure


def block_intervals(
    index: pd.DataFrame,
    tasks: Mapping[str, str] | None = None,
    title: str | None = None,
    look: str = "paper",
) -> Figure:
    """Index (eq. 4) by group of parameters with intervals, a panel per dataset or task.

    Args:
        index: ``block``, ``name``, ``index``, ``low``, ``high``, ``sign_uncertain``.
        tasks: task of each name, which orders them.
        title: text above the panels.
        look: ``paper`` or ``talk``.

    Returns:
        Dots with intervals, hollow where the sign of a denominator is uncertain; from 13 names on the panels are the
        blocks and the rows the names.
    """
    tasks = tasks or {}
    names = palette.order_by_task(list(dict.fromkeys(index["name"])), tasks)
    blocks = list(dict.fromkeys(index["block"]))
    table = index.rename(columns={"index": "value"}).assign(sure=~index["sign_uncertain"].astype(bool))
    by_name = len(names) < MAPS_FROM
    panels, rows = (names, blocks) if by_name else (blocks, names)
    keys = {"name": "panel", "block": "row"} if by_name else {"block": "panel", "name": "row"}
    layout = Panels(
        panels={name: name for name in panels},
        rows=rows,
        label="tug-of-war index on the parameters of each group (line: 1, as if alone)",
        tasks=None if by_name else tasks,
        reference=1.0,
        limits=cut_to(table, WIDEST_INDEX, 1.0),
        hollow="sign of the denominator uncertain",
    )
    return dot_panels(table.rename(columns=keys), layout, title, look)


def mean_direction(gd: pd.DataFrame) -> pd.DataFrame:
    """Mean of each row of GD without itself: ``block``, ``name``, ``value``."""
    others = gd[gd["row"] != gd["column"]]
    means = others.groupby(["block", "row"], sort=False)["value"].mean().reset_index()
    return means.rename(columns={"row": "name"})
