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
OUTSIDE = "#C00000"
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
        limits: what the horizontal axis shows, of all panels or of each; what lies beyond ends in an arrow.
        series: values of the column ``series``, in order; none where the table has no such column.
        columns: most panels side by side.
        line: inches of a row in print.
        hollow: what a hollow dot says.
    """

    panels: Mapping[str, str]
    rows: Sequence[str]
    label: str
    tasks: Mapping[str, str] | None = None
    reference: float | None = None
    limits: tuple[float, float] | Mapping[str, tuple[float, float]] | None = None
    series: Sequence[str] = ()
    columns: int = 5
    line: float = 0.12
    hollow: str = "not sure"

    def limits_of(self, panel: str) -> tuple[float, float] | None:
        """What the horizontal axis of a panel shows; None for all that there is."""
        return self.limits[panel] if isinstance(self.limits, Mapping) else self.limits


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
        shared = not isinstance(layout.limits, Mapping)
        grid = figure.subplots(lines, columns, squeeze=False, sharex=shared, sharey=True)
        every_axes = list(grid.ravel())
        characters = 30 if columns == 1 else (105 if columns <= 5 else 130) // columns
        titles = shortened(list(layout.panels.values()), max(8, characters))
        for axes, panel, heading in zip(every_axes, layout.panels, titles, strict=False):
            _panel(axes, table[table["panel"] == panel], layout, layout.limits_of(panel))
            axes.set_title(heading, fontsize=style.points(7 if columns <= 5 else style.SMALLEST))
        for axes in every_axes[len(layout.panels) :]:
            axes.set_visible(False)
        _label_outside(grid, layout, each)
        handles = [*_series_handles(layout.series), *_task_handles(layout), *_kinds(table, layout)]
        style.below(figure, handles, layout.label or None)
        style.head(figure, title)
    return figure


def cut_to(table: pd.DataFrame, widest: tuple[float, float], reference: float = 0.0) -> tuple[float, float]:
    """Limits that show all estimates, intervals and the reference of a table, but nothing beyond the widest."""
    ends = [name for name in table if name in ("value", "low", "high", "simultaneous_low", "simultaneous_high")]
    margin = 0.03 * (widest[1] - widest[0])
    low, high = float(np.nanmin(table[ends])), float(np.nanmax(table[ends]))
    return max(widest[0], min(low, reference) - margin), min(widest[1], max(high, reference) + margin)


def whiskers(
    axes: Axes,
    table: pd.DataFrame,
    heights: np.ndarray,
    colours: Sequence[str],
    marker: str = "o",
    limits: tuple[float, float] | None = None,
) -> None:
    """Dots at ``heights`` with thick lines for intervals and thin ones for simultaneous intervals.

    Args:
        axes: the axes.
        table: as that of ``dot_panels``.
        heights: vertical place of each row.
        colours: of each row.
        marker: matplotlib's name of the dots' shape.
        limits: of the axis; intervals that go on beyond them end in arrows, and a dot out there is an arrow.
    """
    for low, high, thick in (("simultaneous_low", "simultaneous_high", 0.5), ("low", "high", 1.5)):
        if low in table:
            axes.hlines(heights, table[low], table[high], colors=list(colours), lw=style.points(thick), zorder=2)
    if "chance" in table:
        size = style.points(5)
        axes.plot(table["chance"], heights, "|", color="#C00000", ms=size, mew=style.points(0.9), zorder=2.5)
    sure = table["sure"].to_numpy(dtype=bool) if "sure" in table else np.ones(len(table), dtype=bool)
    faces = [colour if filled else "white" for colour, filled in zip(colours, sure, strict=True)]
    if limits is not None:
        _arrows(axes, table, heights, colours, limits)
    inside = table["value"].between(*(limits or (-np.inf, np.inf)))
    axes.scatter(
        table["value"].where(inside), heights, s=style.points(3.2) ** 2, c=faces, edgecolors=list(colours),
        marker=marker, linewidths=style.points(0.7), zorder=3, clip_on=limits is None,
    )  # fmt: skip


def _arrows(
    axes: Axes, table: pd.DataFrame, heights: np.ndarray, colours: Sequence[str], limits: tuple[float, float]
) -> None:
    for side, arrow in enumerate("<>"):
        cut, outside = _beyond(table, limits, side)
        for places, shades, size in (
            (heights[cut & ~outside], np.asarray(colours)[cut & ~outside], 2.5),
            (heights[outside], [OUTSIDE] * int(outside.sum()), 3.5),
        ):
            if not len(places):
                continue
            axes.scatter(
                np.full(len(places), limits[side]), places, s=style.points(size) ** 2, c=list(shades), marker=arrow,
                linewidths=0, zorder=3.5, clip_on=False,
            )  # fmt: skip


def _beyond(table: pd.DataFrame, limits: tuple[float, float], side: int) -> tuple[np.ndarray, np.ndarray]:
    """Of which rows an interval, and of which the dot itself, lies beyond the lower (0) or upper (1) limit."""
    sign, end = (-1, "low") if side == 0 else (1, "high")
    ends = [name for name in (end, f"simultaneous_{end}") if name in table]
    cut = (sign * table[ends] > sign * limits[side]).any(axis=1)
    return cut.to_numpy(dtype=bool), (sign * table["value"] > sign * limits[side]).to_numpy(dtype=bool)


def _panel(axes: Axes, table: pd.DataFrame, layout: Panels, limits: tuple[float, float] | None) -> None:
    places = {name: place for place, name in enumerate(layout.rows)}
    table = table[table["row"].isin(layout.rows)]
    if limits:
        axes.set_xlim(*limits)
    if layout.reference is not None:
        axes.axvline(layout.reference, color="#777777", lw=style.points(0.7), ls="--", zorder=1)
    for number, series in enumerate(layout.series or [""]):
        part = table[table["series"] == series] if layout.series else table
        shift = 0.7 * ((number + 0.5) / max(len(layout.series), 1) - 0.5)
        heights = part["row"].map(places).to_numpy(dtype=float) + shift
        _dots(axes, part, heights, layout, number, limits)
    axes.set_ylim(len(layout.rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", color="#EEEEEE", lw=style.points(0.5), zorder=0)
    axes.set_axisbelow(True)


def _dots(
    axes: Axes,
    table: pd.DataFrame,
    heights: np.ndarray,
    layout: Panels,
    number: int,
    limits: tuple[float, float] | None,
) -> None:
    if not layout.series:
        whiskers(axes, table, heights, [_colour(row, layout) for row in table["row"]], limits=limits)
        return
    marker, face = SERIES[number % len(SERIES)]
    filled = table.assign(sure=face != "white")
    whiskers(axes, filled, heights, [PLAIN if face == "white" else face] * len(table), marker, limits)


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
        own = isinstance(layout.limits, Mapping)
        axes.tick_params(axis="x", labelbottom=own or number + grid.shape[1] >= len(layout.panels))
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


def _kinds(table: pd.DataFrame, layout: Panels) -> list[Artist]:
    """Legend entries for the lines, ticks and arrows that the table has."""
    dot = {"color": PLAIN, "marker": "o", "ms": style.points(3)}
    found: list[Artist] = []
    if "low" in table:
        found.append(Line2D([], [], lw=style.points(1.5), label="interval", **dot))  # type: ignore[arg-type]
    if "simultaneous_low" in table:
        thin = Line2D([], [], lw=style.points(0.5), label="simultaneous interval", **dot)  # type: ignore[arg-type]
        found.append(thin)
    if "sure" in table and not table["sure"].all():
        hollow = dot | {"mfc": "white", "ls": "none"}
        found.append(Line2D([], [], label=layout.hollow, **hollow))  # type: ignore[arg-type]
    if "chance" in table:
        tick = {"ls": "none", "marker": "|", "color": "#C00000", "ms": style.points(5), "mew": style.points(0.9)}
        found.append(Line2D([], [], label="chance", **tick))  # type: ignore[arg-type]
    cut, outside = _anything_beyond(table, layout)
    for there, colour, size, label in (
        (cut, PLAIN, 2.5, "interval goes on"),
        (outside, OUTSIDE, 3.5, "value beyond the axis"),
    ):
        if there:
            found.append(Line2D([], [], ls="none", marker=">", color=colour, ms=style.points(size), label=label))
    return found


def _anything_beyond(table: pd.DataFrame, layout: Panels) -> tuple[bool, bool]:
    cut = outside = False
    for panel in layout.panels:
        here, limits = table[(table["panel"] == panel) & table["row"].isin(layout.rows)], layout.limits_of(panel)
        if limits is None:
            continue
        for side in (0, 1):
            intervals, dots = _beyond(here, limits, side)
            cut, outside = cut or bool((intervals & ~dots).any()), outside or bool(dots.any())
    return cut, outside
