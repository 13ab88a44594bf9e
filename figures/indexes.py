"""Tug-of-war indexes of several runs side by side, as in the paper's Figure 4a."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures import palette, style
from figures.heat import names_on
from figures.labels import shortened
from figures.palette import INDEX_FLOOR

INTERVAL_COLOUR = "#C00000"
# Datasets from which on those and the tasks stand one above the other.
STACKED_FROM = 21


def index_comparison(
    runs: Mapping[str, pd.DataFrame],
    task_runs: Mapping[str, pd.DataFrame] | None = None,
    tasks: Mapping[str, str] | None = None,
    title: str | None = None,
    look: str = "paper",
) -> Figure:
    """Max-normalised tug-of-war indexes (eq. 4) of several runs side by side, as in the paper's Figure 4a.

    Args:
        runs: per run name, a table by dataset with ``index_normalised`` and, where there are intervals,
            ``index_normalised_low`` and ``index_normalised_high``; a dataset that a run lacks has no bar.
        task_runs: the same by task, for a second panel.
        tasks: task of each dataset, which orders and colours them.
        title: text above the panels.
        look: ``paper`` or ``talk``.

    Returns:
        A figure of text width, one group of bars per dataset (and task), one bar per run.
    """
    tasks = tasks or {}
    panels = [("Datasets", runs)] + ([("Tasks", task_runs)] if task_runs else [])
    names = [_names(tables, tasks) for _, tables in panels]
    stacked = len(names[0]) >= STACKED_FROM
    widths = [max(3, len(group)) for group in names]
    with style.print_style(look):
        every_axes = _axes(widths, stacked, look)
        figure = every_axes[0].get_figure()
        assert isinstance(figure, Figure)
        for axes, (label, tables), group, width in zip(every_axes, panels, names, widths, strict=True):
            room = 6.0 * (1 if stacked else width / sum(widths))
            _bars(axes, tables, group, room)
            names_on(axes, group, "x", room, tasks)
            axes.set_title(label)
        for axes in every_axes if stacked else every_axes[:1]:
            axes.set_ylabel("tug-of-war index / maximum")
        every_axes[0].set_ylim(bottom=max(every_axes[0].get_ylim()[0], 1.1 * INDEX_FLOOR))
        # Few ticks: those with more decimals would come after the layout had made room for shorter ones.
        every_axes[0].locator_params(axis="y", nbins=5)
        handles: list[Artist] = [*every_axes[0].get_legend_handles_labels()[0]]
        if any("index_normalised_low" in table for _, tables in panels for table in tables.values()):
            handles.append(Line2D([], [], color=INTERVAL_COLOUR, lw=style.points(1.0), label="interval"))
        style.below(figure, [*handles, *style.task_handles(names[0], tasks)])
        style.head(figure, title)
    return figure


def _axes(widths: Sequence[int], stacked: bool, look: str) -> list[Axes]:
    if stacked:
        figure = style.new_figure(style.TEXT_WIDTH, 1.0 + 2.0 * len(widths), look)
        return list(figure.subplots(len(widths), 1, squeeze=False, sharey=True)[:, 0])
    figure = style.new_figure(style.TEXT_WIDTH, 2.9, look)
    return list(figure.subplots(1, len(widths), squeeze=False, width_ratios=widths, sharey=True)[0])


def _names(tables: Mapping[str, pd.DataFrame], tasks: Mapping[str, str]) -> list[str]:
    names = list(dict.fromkeys(name for table in tables.values() for name in table.index))
    return palette.order_by_task(names, tasks)


def _bars(axes: Axes, tables: Mapping[str, pd.DataFrame], names: Sequence[str], room: float) -> None:
    width = 0.8 / len(tables)
    labels = shortened(list(tables), 32)
    for number, (label, table) in enumerate(zip(labels, tables.values(), strict=True)):
        there = np.array([name in table.index for name in names])
        ordered = table.loc[[name for name in names if name in table.index]]
        positions = np.arange(len(names))[there] + (number - (len(tables) - 1) / 2) * width
        shade = palette.RUN_SHADES[number % len(palette.RUN_SHADES)]
        hatch = palette.RUN_HATCHES[number % len(palette.RUN_HATCHES)]
        heights = ordered["index_normalised"]
        axes.bar(positions, heights, width * 0.92, label=label, color=shade, hatch=hatch, ec="#333333", lw=0.4)
        if "index_normalised_low" in ordered:
            _error_bars(axes, positions, ordered, style.pitch(room, len(names)) * width)
    axes.axhline(0, color="black", lw=style.points(0.6))
    axes.set_xlim(-0.6, len(names) - 0.4)


def _error_bars(axes: Axes, positions: np.ndarray, table: pd.DataFrame, points: float) -> None:
    # Drawn end to end, because a percentile interval is not centred and may leave out its own estimate.
    low, high = table["index_normalised_low"], table["index_normalised_high"]
    shown = low.clip(lower=INDEX_FLOOR)
    half = (high.clip(lower=INDEX_FLOOR) - shown) / 2
    # Of bars as thin as lines the caps would cover the neighbours.
    cap, thick = style.points(min(3, 0.3 * points)), style.points(min(1.0, 0.3 * points))
    axes.errorbar(positions, shown + half, yerr=half, fmt="none", ecolor=INTERVAL_COLOUR, elinewidth=thick, capsize=cap)
    cut = (low < INDEX_FLOOR).to_numpy()
    if cut.any():
        ends = np.full(cut.sum(), INDEX_FLOOR)
        axes.plot(positions[cut], ends, "v", color=INTERVAL_COLOUR, ms=style.points(4))
