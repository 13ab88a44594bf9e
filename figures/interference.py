"""The tug-of-war in two pictures: heat maps of GD and GM (Figure 2), indexes of several runs (Figure 4a)."""

from collections.abc import Collection, Mapping, Sequence
from typing import cast

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from figures import style

# GD is drawn on one scale in every picture, so that pictures can be compared; see the colour bar's label.
GD_BOUND = 1.0
# An index whose denominator may have either sign has an interval without end; drawn whole it would press
# every other bar flat. It is cut here and ends in an arrow.
INDEX_FLOOR = -1.0


def interference_heatmap(
    gd: pd.DataFrame,
    gm: pd.DataFrame,
    tasks: Mapping[str, str] | None = None,
    title: str | None = None,
    uncertain: Collection[str] = (),
) -> Figure:
    """GD (eq. 2) and GM (eq. 3) as two annotated heat maps, as in the paper's Figure 2.

    Args:
        gd: square, row interfered with, column interfering.
        gm: square, the same names.
        tasks: task of each dataset, which orders and colours them; not needed when the names are tasks.
        title: text above both panels.
        uncertain: names whose row of GD is marked as not to be trusted (the sign of its denominator).

    Returns:
        A figure of text width; GD on a diverging map centred at 0, GM on a sequential one.
    """
    tasks = tasks or {}
    names = style.order_by_task(list(gd.index), tasks)
    height = 1.8 + min(max(0.3 * len(names), 1.5), 5.0)
    with style.print_style():
        figure = style.new_figure(style.TEXT_WIDTH, height)
        left, right = figure.subplots(1, 2, sharey=True)
        _panel(left, gd.loc[names, names], "RdBu", (-GD_BOUND, GD_BOUND))
        _panel(right, gm.loc[names, names], "Blues", (0.0, 1.0))
        labels = [f"{name} †" if name in uncertain else name for name in names]
        left.set_yticks(range(len(names)), labels)
        left.set_ylabel("interfered with")
        for axes in (left, right):
            style.mark_tasks(axes, names, tasks, "x")
        style.mark_tasks(left, names, tasks, "y")
        right.tick_params(axis="y", length=0, labelleft=False)
        _add_colour_bars(figure, left, right)
        handles = style.task_handles(names, tasks)
        note = "† sign of the denominator uncertain" if set(uncertain) & set(names) else None
        if handles or note:
            figure.legend(handles=handles, loc="outside lower center", ncols=max(1, len(handles)), title=note)
        if title:
            figure.suptitle(title, fontsize=9)
    return figure


def index_comparison(
    runs: Mapping[str, pd.DataFrame],
    task_runs: Mapping[str, pd.DataFrame] | None = None,
    tasks: Mapping[str, str] | None = None,
    title: str | None = None,
) -> Figure:
    """Max-normalised tug-of-war indexes (eq. 4) of several runs side by side, as in the paper's Figure 4a.

    Args:
        runs: per run name, a table by dataset with ``index_normalised`` and, where there are intervals,
            ``index_normalised_low`` and ``index_normalised_high``.
        task_runs: the same by task, for a second panel.
        tasks: task of each dataset, which orders and colours them.
        title: text above the panels.

    Returns:
        A figure of text width, one group of bars per dataset (and task), one bar per run.
    """
    panels = [("Datasets", runs)] + ([("Tasks", task_runs)] if task_runs else [])
    widths = [max(3, len(_names(tables, tasks or {}))) for _, tables in panels]
    with style.print_style():
        figure = style.new_figure(style.TEXT_WIDTH, 2.9)
        every_axes = figure.subplots(1, len(panels), squeeze=False, width_ratios=widths, sharey=True)[0]
        for axes, (label, tables) in zip(every_axes, panels, strict=True):
            _bars(axes, tables, _names(tables, tasks or {}), tasks or {})
            axes.set_title(label)
        every_axes[0].set_ylabel("tug-of-war index / maximum")
        every_axes[0].set_ylim(bottom=max(every_axes[0].get_ylim()[0], 1.1 * INDEX_FLOOR))
        handles = [*every_axes[0].get_legend_handles_labels()[0]]
        handles += style.task_handles(_names(runs, tasks or {}), tasks or {})
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 8))
        if title:
            figure.suptitle(title, fontsize=9)
    return figure


def _panel(axes: Axes, values: pd.DataFrame, colours: str, bounds: tuple[float, float]) -> None:
    matrix = values.to_numpy(dtype=float)
    image = axes.imshow(matrix, aspect="auto", cmap=colours, vmin=bounds[0], vmax=bounds[1])
    axes.set_xticks(range(len(values)), list(values.columns), rotation=45, ha="right", rotation_mode="anchor")
    axes.set_xlabel("interfering")
    axes.spines[:].set_visible(False)
    size = 7 if len(values) <= 6 else 5.5 if len(values) <= 11 else 4
    for (row, column), value in np.ndenumerate(matrix):
        red, green, blue, _ = image.cmap(image.norm(value))
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
        ink = "white" if dark else "black"
        axes.text(column, row, _short(value), ha="center", va="center", fontsize=size, color=ink)


def _short(value: float) -> str:
    """Two decimals, with a true minus sign and without a minus before 0.00."""
    text = f"{value:.2f}"
    return "0.00" if text == "-0.00" else text.replace("-", "−")


def _add_colour_bars(figure: Figure, left: Axes, right: Axes) -> None:
    # Above the panels, where they take no width from the cells; arrows say that values beyond the bounds
    # take the colour at the end.
    bars = [
        figure.colorbar(left.images[0], ax=left, location="top", extend="both", ticks=[-1, -0.5, 0, 0.5, 1]),
        figure.colorbar(right.images[0], ax=right, location="top", ticks=[0, 0.25, 0.5, 0.75, 1]),
    ]
    labels = (f"Gradient direction GD (colours end at ±{GD_BOUND:g})", "Gradient magnitude similarity GM")
    for bar, label in zip(bars, labels, strict=True):
        bar.set_label(label, fontsize=8)
        cast(Patch, bar.outline).set_visible(False)


def _names(tables: Mapping[str, pd.DataFrame], tasks: Mapping[str, str]) -> list[str]:
    names = list(dict.fromkeys(name for table in tables.values() for name in table.index))
    return style.order_by_task(names, tasks)


def _bars(axes: Axes, tables: Mapping[str, pd.DataFrame], names: Sequence[str], tasks: Mapping[str, str]) -> None:
    width = 0.8 / len(tables)
    for number, (run, table) in enumerate(tables.items()):
        ordered = table.reindex(list(names))
        positions = np.arange(len(names)) + (number - (len(tables) - 1) / 2) * width
        shade = style.RUN_SHADES[number % len(style.RUN_SHADES)]
        hatch = style.RUN_HATCHES[number % len(style.RUN_HATCHES)]
        heights = ordered["index_normalised"]
        axes.bar(positions, heights, width * 0.92, label=run, color=shade, hatch=hatch, ec="#333333", lw=0.4)
        if "index_normalised_low" in ordered:
            _error_bars(axes, positions, ordered, width)
    axes.axhline(0, color="black", lw=0.6)
    axes.set_xticks(range(len(names)), list(names), rotation=45, ha="right", rotation_mode="anchor")
    axes.set_xlim(-0.6, len(names) - 0.4)
    style.mark_tasks(axes, names, tasks, "x")


def _error_bars(axes: Axes, positions: np.ndarray, table: pd.DataFrame, width: float) -> None:
    # Drawn end to end, because a percentile interval is not centred and may leave out its own estimate.
    low, high = table["index_normalised_low"], table["index_normalised_high"]
    shown = low.clip(lower=INDEX_FLOOR)
    half = (high.clip(lower=INDEX_FLOOR) - shown) / 2
    cap = min(3, 12 * width)
    axes.errorbar(positions, shown + half, yerr=half, fmt="none", ecolor="#C00000", elinewidth=1.0, capsize=cap)
    cut = (low < INDEX_FLOOR).to_numpy()
    if cut.any():
        axes.plot(positions[cut], np.full(cut.sum(), INDEX_FLOOR), "v", color="#C00000", ms=4)
