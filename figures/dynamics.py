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
from figures.whiskers import OUTSIDE, PLAIN

# Steps up to which each has a mark and whiskers; a band between a few would show what nobody measured.
FEW_STEPS = 12
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
        index: ``step``, ``name``, ``index``, and where there are intervals ``index_low``, ``index_high``, and
            ``sign_uncertain``.
        tasks: task of each name, which orders and colours them.
        title: text above the panels.
        look: ``paper`` or ``talk``.

    Returns:
        Lines about one at 1, the index of a dataset alone, with whiskers at up to 12 steps and bands at more; hollow
        where the sign of a denominator is uncertain; arrows where an interval or a value lies beyond the panel.
    """
    tasks = tasks or {}
    names = palette.order_by_task(list(dict.fromkeys(index["name"])), tasks)
    with style.print_style(look):
        figure, panels = _grid(names, look, "index")
        columns = [name for name in ("index", "index_low", "index_high") if name in index]
        limits = _limits(index[columns], WIDEST_INDEX)
        for name, axes in panels.items():
            here = index[index["name"] == name].sort_values("step")
            _estimates(axes, here, _colour(name, tasks), limits)
            axes.axhline(1.0, color="#777777", lw=style.points(0.7), ls="--", zorder=1)
        next(iter(panels.values())).set_ylim(*limits)
        handles = [*style.known_task_handles(names, tasks), *_kinds(index, limits)]
        _finish(figure, "tug-of-war index by step of training (dashed: 1, as if alone)", handles, title)
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
        limits = _limits(others[["value"]], WIDEST_GD)
        for name, axes in panels.items():
            here = others[others["row"] == name]
            for column, line in here.groupby("column", sort=False):
                ordered, colour = line.sort_values("step"), _colour(str(column), tasks)
                few = "." if len(ordered) <= FEW_STEPS else ""
                thin = {"lw": style.points(0.6), "marker": few, "ms": style.points(2.0), "alpha": 0.8}
                axes.plot(ordered["step"], ordered["value"], color=colour, **thin)  # type: ignore[arg-type]
                _edge_arrows(axes, ordered["step"], ordered["value"], limits, colour)
            mean = here.groupby("step")["value"].mean()
            axes.plot(mean.index, mean, color="black", lw=style.points(1.5))
            _edge_arrows(axes, mean.index.to_series(), mean, limits, "black")
            axes.axhline(0.0, color="#777777", lw=style.points(0.7), ls="--", zorder=1)
        next(iter(panels.values())).set_ylim(*limits)
        handles: list[Artist] = [Line2D([], [], color="black", lw=style.points(1.5), label="mean of the others")]
        handles += style.known_task_handles(names, tasks)
        handles += _arrow("value beyond the axis", PLAIN) if _beyond(others["value"], limits).any() else []
        _finish(
            figure, "GD of the panel's name (interfered with) with each other one, by step of training", handles, title
        )
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
    few = routing["step"].nunique() <= FEW_STEPS
    with style.print_style(look):
        figure, panels = _grid(names, look, "weight")
        for name, axes in panels.items():
            here = routing[routing["task"] == name]
            if len(warm):
                axes.axvspan(0, warm.max(), color="#EFEFEF", lw=0, zorder=0)
            for expert in experts:
                line = here[here["expert"] == expert].sort_values("step")
                mark = marks[str(expert)]
                shape = {"marker": mark.marker if few else "", "ms": style.points(2.5)}
                width = style.points(1 if few else 0.8)
                axes.plot(line["step"], line["weight"], color=mark.colour, lw=width, **shape)  # type: ignore[arg-type]
            axes.axhline(1 / len(experts), color="#777777", lw=style.points(0.7), ls="--", zorder=1)
        next(iter(panels.values())).set_ylim(0, min(1.0, 1.1 * float(routing["weight"].max())))
        handles: list[Artist] = [
            Line2D(
                [],
                [],
                color=marks[str(e)].colour,
                marker=marks[str(e)].marker if few else "",
                ms=style.points(3),
                label=f"expert {e}",
            )
            for e in experts
        ]
        _finish(figure, "mean weight by step of training (dashed: even share; shaded: warm-up)", handles, title)
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


def _estimates(axes: Axes, table: pd.DataFrame, colour: str, limits: tuple[float, float]) -> None:
    steps, few = table["step"], len(table) <= FEW_STEPS
    axes.plot(steps, table["index"], color=colour, lw=style.points(1.0 if few else 1.2), zorder=2)
    if "index_low" in table and not few:
        axes.fill_between(steps, table["index_low"], table["index_high"], color=colour, alpha=0.25, lw=0)
    if "index_low" in table and few:
        axes.vlines(steps, table["index_low"], table["index_high"], colors=colour, lw=style.points(1.0), zorder=2)
        for end in ("index_low", "index_high"):
            _edge_arrows(axes, steps, table[end], limits, colour)
    if few:
        doubtful = table["sign_uncertain"].astype(bool) if "sign_uncertain" in table else [False] * len(table)
        inside = ~_beyond(table["index"], limits)
        faces = ["white" if hollow else colour for hollow in doubtful]
        axes.scatter(
            steps, table["index"].where(inside), s=style.points(3.0) ** 2, c=faces, edgecolors=colour,
            linewidths=style.points(0.7), zorder=3,
        )  # fmt: skip
    _edge_arrows(axes, steps, table["index"], limits, OUTSIDE, 3.5)


def _edge_arrows(
    axes: Axes, steps: pd.Series, values: pd.Series, limits: tuple[float, float], colour: str, size: float = 2.5
) -> None:
    """Arrows at the edges of a panel where values lie beyond it."""
    for edge, arrow, there in ((limits[0], "v", values < limits[0]), (limits[1], "^", values > limits[1])):
        if not there.any():
            continue
        axes.scatter(
            steps[there], np.full(int(there.sum()), edge), s=style.points(size) ** 2, color=colour, marker=arrow,
            linewidths=0, zorder=3.5, clip_on=False,
        )  # fmt: skip


def _beyond(values: pd.Series, limits: tuple[float, float]) -> pd.Series:
    return (values < limits[0]) | (values > limits[1])


def _kinds(index: pd.DataFrame, limits: tuple[float, float]) -> list[Artist]:
    """Legend entries for hollow marks and arrows, where there are any."""
    if index["step"].nunique() > FEW_STEPS:
        return []
    found: list[Artist] = []
    if "sign_uncertain" in index and index["sign_uncertain"].astype(bool).any():
        hollow = {"marker": "o", "ls": "none", "mfc": "white", "color": PLAIN, "ms": style.points(3)}
        found.append(Line2D([], [], label="sign of the denominator uncertain", **hollow))  # type: ignore[arg-type]
    if "index_low" in index and (_beyond(index["index_low"], limits) | _beyond(index["index_high"], limits)).any():
        found += _arrow("interval goes on", PLAIN)
    return found + (_arrow("value beyond the axis", OUTSIDE, 3.5) if _beyond(index["index"], limits).any() else [])


def _arrow(label: str, colour: str, size: float = 2.5) -> list[Artist]:
    return [Line2D([], [], ls="none", marker="^", color=colour, ms=style.points(size), label=label)]


def _limits(values: pd.DataFrame, widest: tuple[float, float]) -> tuple[float, float]:
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    margin = 0.05 * (high - low) + 0.02
    return max(low - margin, widest[0]), min(high + margin, widest[1])


def _colour(name: str, tasks: Mapping[str, str]) -> str:
    return palette.TASK_COLOURS.get(tasks.get(name, name), PLAIN)


def _finish(figure: Figure, label: str, handles: Sequence[Artist], title: str | None) -> None:
    style.below(figure, handles, label)
    style.head(figure, title)
