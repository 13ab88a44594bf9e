"""How interference and routing change during training: small panels with lines and bands."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures import palette, style
from figures.labels import shortened

_PLAIN = "#4D4D4D"
# An index may have an interval without end; beyond these the panels end.
WIDEST_INDEX = (-3.0, 8.0)
WIDEST_GD = (-1.5, 2.0)


def index_over_steps(
    index: pd.DataFrame,
    tasks: Mapping[str, str] | None = None,
    title: str | None = None,
    look: str = "paper",
) -> Figure:
    """Tug-of-war indexes (eq. 4) over training, a small panel per dataset or task.

    Args:
        index: ``step``, ``name``, ``index``, and where there are intervals ``index_low``, ``index_high``.
        tasks: task of each name, which orders and colours them.
        title: text above the panels.
        look: ``paper`` or ``talk``.

    Returns:
        Lines with bands about a line at 1, the index of a dataset that none pulls.
    """
    tasks = tasks or {}
    names = palette.order_by_task(list(dict.fromkeys(index["name"])), tasks)
    with style.print_style(look):
        figure, panels = _grid(names, look, "index")
        for name, axes in panels.items():
            here = index[index["name"] == name].sort_values("step")
            colour = _colour(name, tasks)
            _line(axes, here, "index", colour, ("index_low", "index_high"))
            axes.axhline(1.0, color="#777777", lw=style.points(0.7), ls="--", zorder=1)
        columns = [name for name in ("index", "index_low", "index_high") if name in index]
        _limit(next(iter(panels.values())), index[columns], WIDEST_INDEX)
        _finish(
            figure,
            "tug-of-war index by step (dashed: 1, pulled by none)",
            style.known_task_handles(names, tasks),
            title,
        )
    return figure


def gd_over_steps(
    gd: pd.DataFrame,
    tasks: Mapping[str, str] | None = None,
    title: str | None = None,
    look: str = "paper",
) -> Figure:
    """GD (eq. 2) over training, a small panel per row of it.

    Args:
        gd: ``step``, ``row``, ``column``, ``value``.
        tasks: task of each name, which orders and colours them.
        title: text above the panels.
        look: ``paper`` or ``talk``.

    Returns:
        A thin line per interfering name, in its task's colour, and their mean in black, about a line at 0.
    """
    tasks = tasks or {}
    others = gd[gd["row"] != gd["column"]]
    names = palette.order_by_task(list(dict.fromkeys(others["row"])), tasks)
    with style.print_style(look):
        figure, panels = _grid(names, look, "GD")
        for name, axes in panels.items():
            here = others[others["row"] == name]
            for column, line in here.groupby("column", sort=False):
                ordered = line.sort_values("step")
                axes.plot(
                    ordered["step"],
                    ordered["value"],
                    color=_colour(str(column), tasks),
                    lw=style.points(0.6),
                    alpha=0.8,
                )
            mean = here.groupby("step")["value"].mean()
            axes.plot(mean.index, mean, color="black", lw=style.points(1.5))
            axes.axhline(0.0, color="#777777", lw=style.points(0.7), ls="--", zorder=1)
        _limit(next(iter(panels.values())), others[["value"]], WIDEST_GD)
        handles: list[Artist] = [Line2D([], [], color="black", lw=style.points(1.5), label="mean of the others")]
        handles += style.known_task_handles(names, tasks)
        _finish(figure, "GD of the panel's name with each other, by step", handles, title)
    return figure


def routing_over_steps(routing: pd.DataFrame, title: str | None = None, look: str = "paper") -> Figure:
    """Mean weights of the experts over training, a small panel per task.

    Args:
        routing: ``step``, ``stage``, ``task``, ``expert``, ``weight``.
        title: text above the panels.
        look: ``paper`` or ``talk``.

    Returns:
        A line per expert; the warm-up is shaded, the even share dashed.
    """
    names = palette.order_by_task(list(dict.fromkeys(routing["task"])), {})
    experts = sorted(routing["expert"].unique())
    marks = palette.series_marks([str(expert) for expert in experts])
    warm = routing.loc[routing["stage"] == "warmup", "step"]
    with style.print_style(look):
        figure, panels = _grid(names, look, "weight")
        for name, axes in panels.items():
            here = routing[routing["task"] == name]
            if len(warm):
                axes.axvspan(0, warm.max(), color="#EFEFEF", lw=0, zorder=0)
            for expert in experts:
                line = here[here["expert"] == expert].sort_values("step")
                mark = marks[str(expert)]
                few = mark.marker if len(line) <= 12 else ""
                axes.plot(
                    line["step"],
                    line["weight"],
                    color=mark.colour,
                    lw=style.points(1),
                    marker=few,
                    ms=style.points(2.5),
                )
            axes.axhline(1 / len(experts), color="#777777", lw=style.points(0.7), ls="--", zorder=1)
        next(iter(panels.values())).set_ylim(0, min(1.0, 1.1 * float(routing["weight"].max())))
        handles: list[Artist] = [
            Line2D(
                [], [], color=marks[str(e)].colour, marker=marks[str(e)].marker, ms=style.points(3), label=f"expert {e}"
            )
            for e in experts
        ]
        _finish(figure, "mean weight by step (dashed: even share; shaded: warm-up)", handles, title)
    return figure


def _grid(names: Sequence[str], look: str, label: str) -> tuple[Figure, dict[str, Axes]]:
    """Small panels on one scale, up to five side by side, eight where there are more than 20."""
    columns = max(2, style.side_by_side(len(names), 5 if len(names) <= 20 else 8))
    lines = -(-len(names) // columns)
    each = 1.05 if columns <= 5 else 0.8
    figure = style.new_figure(style.TEXT_WIDTH, 0.9 + lines * (each + 0.25), look)
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    labels = shortened(names, max(8, 100 // columns))
    for number, axes in enumerate(grid.ravel()):
        axes.set_visible(number < len(names))
        axes.tick_params(labelbottom=number + columns >= len(names), labelleft=number % columns == 0)
        axes.locator_params(axis="x", nbins=3)
        axes.locator_params(axis="y", nbins=4)
    for axes in grid[:, 0]:
        axes.set_ylabel(label)
    panels = dict(zip(names, grid.ravel(), strict=False))
    for label, axes in zip(labels, panels.values(), strict=True):
        axes.set_title(label, fontsize=style.points(7 if columns <= 5 else style.SMALLEST))
    return figure, panels


def _line(axes: Axes, table: pd.DataFrame, value: str, colour: str, ends: tuple[str, str]) -> None:
    few = "o" if len(table) <= 12 else ""
    if ends[0] in table:
        axes.fill_between(table["step"], table[ends[0]], table[ends[1]], color=colour, alpha=0.25, lw=0)
    axes.plot(table["step"], table[value], color=colour, lw=style.points(1.2), marker=few, ms=style.points(2.5))


def _limit(axes: Axes, values: pd.DataFrame, widest: tuple[float, float]) -> None:
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    margin = 0.05 * (high - low) + 0.02
    axes.set_ylim(max(low - margin, widest[0]), min(high + margin, widest[1]))


def _colour(name: str, tasks: Mapping[str, str]) -> str:
    return palette.TASK_COLOURS.get(tasks.get(name, name), _PLAIN)


def _finish(figure: Figure, label: str, handles: Sequence[Artist], title: str | None) -> None:
    style.below(figure, handles, label)
    style.head(figure, title)
