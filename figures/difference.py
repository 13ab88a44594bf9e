"""What changed from one run to another, and which of it surely."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from figures import palette, style
from figures.heat import colour_bar, fade, heat, name_square
from figures.labels import shortened
from figures.whiskers import Panels, cut_to, dot_panels

NOT_SURE = "not sure"
_INDEX_PANELS = {"index": "Index", "index_normalised": "Index / maximum"}
# An index may have an interval without end; divided by its maximum it is at most 1.
WIDEST = {"index": (-5.0, 5.0), "index_normalised": (-2.0, 2.0)}


def difference_maps(
    gd: pd.DataFrame,
    gm: pd.DataFrame,
    tasks: Mapping[str, str] | None = None,
    title: str | None = None,
    look: str = "paper",
) -> Figure:
    """Differences of GD (eq. 2) and GM (eq. 3) between two runs as heat maps.

    Args:
        gd: ``row``, ``column``, ``difference``, ``verdict``.
        gm: the same.
        tasks: task of each name, which orders and colours them.
        title: text above both panels.
        look: ``paper`` or ``talk``.

    Returns:
        A figure of text width; what changed surely is in full colour with an outline, the rest faint.
    """
    tasks = tasks or {}
    names = palette.order_by_task(list(dict.fromkeys(gd["row"])), tasks)
    cells = min(max(0.3 * len(names), 1.5), 5.0)
    room = (2.9, cells)
    with style.print_style(look):
        figure = style.new_figure(style.TEXT_WIDTH, 1.8 + cells, look)
        every_axes = figure.subplots(1, 2, sharey=True)
        for axes, table, measure in zip(every_axes, (gd, gm), ("GD", "GM"), strict=True):
            change, verdict = (
                table.pivot(index="row", columns="column", values=column).reindex(index=names, columns=names)
                for column in ("difference", "verdict")
            )
            bound = _bound(change)
            image = heat(axes, change, "PuOr", (-bound, bound), room)
            _mark_sure(axes, verdict, style.points(min(1.2, 0.12 * style.pitch(room[0], len(names)))))
            name_square(axes, names, tasks, room, rows=measure == "GD")
            axes.set_xlabel("interfering")
            extend = "both" if np.nanmax(np.abs(change)) > bound else "neither"
            colour_bar(figure, image, axes, f"Difference of {measure}", extend=extend, ticks=MaxNLocator(5))
        every_axes[0].set_ylabel("interfered with")
        every_axes[1].tick_params(axis="y", length=0, labelleft=False)
        outline = Patch(facecolor="white", edgecolor="black", lw=style.points(1.2), label="changed surely")
        style.below(figure, [outline, *style.task_handles(names, tasks)])
        style.head(figure, title)
    return figure


def difference_indexes(
    index: pd.DataFrame,
    tasks: Mapping[str, str] | None = None,
    title: str | None = None,
    look: str = "paper",
) -> Figure:
    """Differences of tug-of-war indexes (eq. 4) between two runs.

    Args:
        index: ``measure`` (``index``, ``index_normalised``), ``name``, ``difference``, ``low``, ``high``,
            ``simultaneous_low``, ``simultaneous_high``, ``verdict``.
        tasks: task of each name, which orders and colours them.
        title: text above the panels.
        look: ``paper`` or ``talk``.

    Returns:
        Dots with single and simultaneous intervals about a line at 0, hollow where nothing changed surely.
    """
    tasks = tasks or {}
    table = index.rename(columns={"measure": "panel", "name": "row", "difference": "value"})
    table = table.assign(sure=table["verdict"] != NOT_SURE)
    panels = {name: heading for name, heading in _INDEX_PANELS.items() if (table["panel"] == name).any()}
    layout = Panels(
        panels=panels,
        rows=palette.order_by_task(list(dict.fromkeys(table["row"])), tasks),
        label="change from the first run to the second",
        tasks=tasks,
        reference=0.0,
        limits={name: cut_to(table[table["panel"] == name], WIDEST[name]) for name in panels},
        line=0.16,
        hollow="not surely changed",
    )
    return dot_panels(table, layout, title, look)


def difference_scores(scores: pd.DataFrame, a: str, b: str, title: str | None = None, look: str = "paper") -> Figure:
    """Differences of the shares of parameters by statistics score (eq. 5) between two runs.

    Args:
        scores: ``interval_low``, ``interval_high``, ``difference``, ``low``, ``high``.
        a: name of the run that is taken away.
        b: name of the other.
        title: text above.
        look: ``paper`` or ``talk``.

    Returns:
        A figure of column width: a bar with its interval per tenth of the score; faint where the interval holds 0.
    """
    low, high = scores["interval_low"].to_numpy(), scores["interval_high"].to_numpy()
    sure = ((scores["low"] > 0) | (scores["high"] < 0)).to_numpy()
    first, second = shortened([a, b], 40)
    with style.print_style(look):
        figure = style.new_figure(style.COLUMN_WIDTH, 2.4, look)
        axes = figure.subplots()
        bars = axes.bar(
            (low + high) / 2, scores["difference"], 0.86 * (high - low), color="#7F7F7F", ec="#333333", lw=0.4
        )
        for bar, certain in zip(bars, sure, strict=True):
            bar.set_facecolor("#7F7F7F" if certain else "#E6E6E6")
        axes.vlines((low + high) / 2, scores["low"], scores["high"], colors="#C00000", lw=style.points(1.0), zorder=3)
        axes.axhline(0, color="black", lw=style.points(0.6))
        axes.set_xticks(np.linspace(0, 1, 11))
        axes.set_xlabel("statistics score (0: torn, 1: all pull alike)")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}".replace("-", "−")))
        axes.set_ylabel("difference, percentage points")
        style.below(figure, [], f"{second} minus {first} (pale: the interval holds 0)")
        style.head(figure, title)
    return figure


def _bound(change: pd.DataFrame) -> float:
    """Where the colours end: at the largest difference, but not beyond 1, which is as much as GD and GM span."""
    return min(float(np.nanmax(np.abs(change))) or 1.0, 1.0)


def _mark_sure(axes: Axes, verdict: pd.DataFrame, width: float) -> None:
    sure = ((verdict != NOT_SURE) & verdict.notna()).to_numpy()
    fade(axes, ~sure)
    for row, column in np.argwhere(sure):
        corner = (column - 0.5, row - 0.5)
        axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="black", lw=width, zorder=3, clip_on=False))
