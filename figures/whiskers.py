"""Estimates as dots with their intervals as lines, in small panels that share their rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures import palette, style
from figures.heat import names_on
from figures.labels import shortened

PLAIN = "#4D4D4D"
# Marker and face of each of several series: shades only, so that no colour has two meanings.
SERIES = (("o", "#262626"), ("s", "white"), ("^", "#8C8C8C"), ("D", "white"), ("v", "#262626"), ("P", "#BFBFBF"))


@dataclass(frozen=True)
class Panels:
    """How dots are laid out.

    Attributes:
        panels: value of the column ``panel`` for each panel, in order, with its title.
        rows: values of the column ``row``, from top to bottom.
        label: of the horizontal axis.
        tasks: task of each row, for its colour; None draws all dots alike.
        reference: where nothing is to be seen, a line.
        limits: what the horizontal axis shows at most; what lies beyond ends in an arrow.
        series: values of the column ``series``, in order; none where the table has no such column.
        columns: most panels side by side.
        line: inches of a row in print.
    """

    panels: Mapping[str, str]
    rows: Sequence[str]
    label: str
    tasks: Mapping[str, str] | None = None
    reference: float | None = None
    limits: tuple[float, float] | None = None
    series: Sequence[str] = ()
    columns: int = 5
    line: float = 0.12


def dot_panels(table: pd.DataFrame, layout: Panels, title: str | None = None, look: str = "paper") -> Figure:
    """Dots with intervals, one small panel after another.

    Args:
        table: ``panel``, ``row``, (``series``,) ``value``; where there are intervals ``low`` and ``high`` (thick),
            ``simultaneous_low`` and ``simultaneous_high`` (thin); ``chance``, a tick where luck alone would be;
            ``sure``, False for a hollow dot.
        layout: panels and rows.
        title: text above.
        look: ``paper`` or ``talk``.

    Returns:
        A figure of text width, or of column width for a single panel with few rows.
    """
    columns = style.side_by_side(len(layout.panels), layout.columns)
    lines = -(-len(layout.panels) // columns)
    # Tasks without a colour of their own would all be drawn in one that says nothing.
    pitch = layout.line * (1 + 0.45 * max(len(layout.series) - 1, 0))
    each = max(0.5, min(pitch * len(layout.rows), 8.2 / lines))
    width = style.TEXT_WIDTH if columns > 1 else style.COLUMN_WIDTH
    with style.print_style(look):
        figure = style.new_figure(width, 0.95 + lines * (each + 0.3), look)
        grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
        every_axes = list(grid.ravel())
        characters = 30 if columns == 1 else (105 if columns <= 5 else 130) // columns
        titles = shortened(list(layout.panels.values()), max(8, characters))
        for axes, panel, heading in zip(every_axes, layout.panels, titles, strict=False):
            _panel(axes, table[table["panel"] == panel], layout)
            axes.set_title(heading, fontsize=style.points(7 if columns <= 5 else style.SMALLEST))
        for axes in every_axes[len(layout.panels) :]:
            axes.set_visible(False)
        _label_outside(grid, layout, each)
        handles = [*_series_handles(layout.series), *_task_handles(layout), *_kinds(table)]
        style.below(figure, handles, layout.label or None)
        style.head(figure, title)
    return figure


def whiskers(axes: Axes, table: pd.DataFrame, heights: np.ndarray, colours: Sequence[str], marker: str = "o") -> None:
    """Dots at ``heights`` with thick lines for intervals and thin ones for simultaneous intervals.

    Args:
        axes: the axes; intervals are not cut.
        table: as that of ``dot_panels``.
        heights: vertical place of each row.
        colours: of each row.
        marker: matplotlib's name of the dots' shape.
    """
    for low, high, thick in (("simultaneous_low", "simultaneous_high", 0.5), ("low", "high", 1.5)):
        if low in table:
            axes.hlines(heights, table[low], table[high], colors=list(colours), lw=style.points(thick), zorder=2)
    if "chance" in table:
        size = style.points(5)
        axes.plot(table["chance"], heights, "|", color="#C00000", ms=size, mew=style.points(0.9), zorder=2.5)
    sure = table["sure"].to_numpy(dtype=bool) if "sure" in table else np.ones(len(table), dtype=bool)
    faces = [colour if filled else "white" for colour, filled in zip(colours, sure, strict=True)]
    axes.scatter(
        table["value"], heights, s=style.points(3.2) ** 2, c=faces, edgecolors=list(colours), marker=marker,
        linewidths=style.points(0.7), zorder=3,
    )  # fmt: skip


def _panel(axes: Axes, table: pd.DataFrame, layout: Panels) -> None:
    places = {name: place for place, name in enumerate(layout.rows)}
    table = table[table["row"].isin(layout.rows)]
    if layout.limits:
        axes.set_xlim(*layout.limits)
    if layout.reference is not None:
        axes.axvline(layout.reference, color="#777777", lw=style.points(0.7), ls="--", zorder=1)
    for number, series in enumerate(layout.series or [""]):
        part = table[table["series"] == series] if layout.series else table
        shift = 0.7 * ((number + 0.5) / max(len(layout.series), 1) - 0.5)
        heights = part["row"].map(places).to_numpy(dtype=float) + shift
        _clipped(axes, part, heights, layout, number)
    axes.set_ylim(len(layout.rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", color="#EEEEEE", lw=style.points(0.5), zorder=0)
    axes.set_axisbelow(True)


def _clipped(axes: Axes, table: pd.DataFrame, heights: np.ndarray, layout: Panels, number: int) -> None:
    colours = [_colour(row, layout) for row in table["row"]]
    if not layout.series:
        whiskers(axes, table, heights, colours)
    else:
        marker, face = SERIES[number % len(SERIES)]
        filled = table.assign(sure=face != "white")
        whiskers(axes, filled, heights, [PLAIN if face == "white" else face] * len(table), marker)
    if layout.limits is None:
        return
    # A dot that lies outside the panel is told by an arrow at its edge.
    for outside, edge, arrow in (
        (table["value"] < layout.limits[0], layout.limits[0], "<"),
        (table["value"] > layout.limits[1], layout.limits[1], ">"),
    ):
        if outside.any():
            places = heights[outside.to_numpy()]
            axes.plot(np.full(len(places), edge), places, arrow, color="#C00000", ms=style.points(3.5), clip_on=False)


def _colour(row: str, layout: Panels) -> str:
    if layout.tasks is None:
        return PLAIN
    task = layout.tasks.get(row, row)
    return palette.TASK_COLOURS.get(task, PLAIN)


def _label_outside(grid: np.ndarray, layout: Panels, room: float) -> None:
    for axes in grid[:, 0]:
        names_on(axes, layout.rows, "y", room, width={1: 20, 2: 32, 3: 32}.get(grid.shape[1], 24))
    # The last panel of each column carries the numbers, also where the row below has none.
    for number, axes in enumerate(grid.ravel()):
        axes.tick_params(axis="x", labelbottom=number + grid.shape[1] >= len(layout.panels))
        axes.tick_params(axis="y", labelleft=number % grid.shape[1] == 0)
        axes.locator_params(axis="x", nbins=3 if grid.shape[1] > 3 else 5)


def _series_handles(series: Sequence[str]) -> list[Artist]:
    return [
        Line2D(
            [], [], ls="none", marker=SERIES[n % 6][0], mfc=SERIES[n % 6][1], mec=PLAIN, ms=style.points(4), label=name
        )
        for n, name in enumerate(shortened(series, 32))
    ]


def _task_handles(layout: Panels) -> list[Artist]:
    if layout.tasks is None or layout.series:
        return []
    return list(style.known_task_handles(layout.rows, layout.tasks))


def _kinds(table: pd.DataFrame) -> list[Artist]:
    """Legend entries for the lines and ticks that the table has."""
    dot = {"color": PLAIN, "marker": "o", "ms": style.points(3)}
    found: list[Artist] = []
    if "simultaneous_low" in table:
        found.append(Line2D([], [], lw=style.points(1.5), label="interval", **dot))  # type: ignore[arg-type]
        thin = Line2D([], [], lw=style.points(0.5), label="simultaneous interval", **dot)  # type: ignore[arg-type]
        found.append(thin)
    if "sure" in table and not table["sure"].all():
        hollow = dot | {"mfc": "white", "ls": "none"}
        found.append(Line2D([], [], label="not sure", **hollow))  # type: ignore[arg-type]
    if "chance" in table:
        tick = {"ls": "none", "marker": "|", "color": "#C00000", "ms": style.points(5), "mew": style.points(0.9)}
        found.append(Line2D([], [], label="chance", **tick))  # type: ignore[arg-type]
    return found
