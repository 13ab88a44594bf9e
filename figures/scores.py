"""How many parameters are torn: statistics scores in ten intervals, as in the paper's Figure 4b."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures import palette, style
from figures.indexes import INTERVAL_COLOUR
from figures.labels import shortened

NULLS = {"null_signs": ("random signs", (0, (4, 1.5))), "null_no_conflict": ("no conflict", (0, (1, 1)))}
# One colour per null, dark enough to be seen across light and dark bars.
NULL_COLOURS = {"null_signs": "#0072B2", "null_no_conflict": "#009E73"}


def score_distribution(runs: Mapping[str, pd.DataFrame], title: str | None = None, look: str = "paper") -> Figure:
    """Share of parameters in each tenth of the statistics score (eq. 5), with both nulls.

    Args:
        runs: per run name ``interval_low``, ``interval_high``, ``share``, ``low``, ``high``, ``null_signs``,
            ``null_no_conflict``.
        title: text above.
        look: ``paper`` or ``talk``.

    Returns:
        A figure of text width: a group of bars per interval, one bar per run; both nulls of each run as steps.
    """
    with style.print_style(look):
        figure = style.new_figure(style.TEXT_WIDTH, 2.7, look)
        axes = figure.subplots()
        _grouped(axes, runs)
        axes.set_xlabel("statistics score (0: torn, 1: all pull alike)")
        axes.set_ylabel("share of parameters")
        axes.set_ylim(bottom=0)
        whose = f"nulls: {shortened(list(runs), 32)[0]} in full colour, the others pale" if len(runs) > 1 else None
        style.below(figure, [*axes.get_legend_handles_labels()[0], *_null_handles()], whose)
        style.head(figure, title)
    return figure


def score_blocks(blocks: pd.DataFrame, title: str | None = None, look: str = "paper") -> Figure:
    """Share of parameters in each tenth of the statistics score (eq. 5), a small panel per block.

    Args:
        blocks: ``block`` and the columns of ``score_distribution``.
        title: text above the panels.
        look: ``paper`` or ``talk``.

    Returns:
        A figure of text width with up to six panels side by side, on one scale.
    """
    names = list(dict.fromkeys(blocks["block"]))
    columns = max(2, style.side_by_side(len(names), 5 if len(names) <= 20 else 8))
    lines = -(-len(names) // columns)
    each = min(0.95, 7.5 / lines)
    with style.print_style(look):
        figure = style.new_figure(style.TEXT_WIDTH, 0.9 + lines * (each + 0.2), look)
        grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
        labels = shortened(names, (130 if columns > 4 else 100) // columns)
        for axes, name, label in zip(grid.ravel(), names, labels, strict=False):
            _grouped(axes, {name: blocks[blocks["block"] == name]})
            axes.set_title(label, fontsize=style.points(style.SMALLEST if columns > 4 else 7))
        # Once all panels have said how high they are.
        grid[0, 0].set_ylim(bottom=0)
        _show_tenths(grid, len(names))
        for axes in grid[:, 0]:
            axes.set_ylabel("share of\nparameters")
        style.below(figure, _null_handles(), "statistics score (0: torn, 1: all pull alike)")
        style.head(figure, title)
    return figure


def _show_tenths(grid: np.ndarray, count: int) -> None:
    for number, axes in enumerate(grid.ravel()):
        axes.set_visible(number < count)
        axes.set_xticks([0, 0.5, 1], ["0", ".5", "1"])
        axes.tick_params(labelbottom=number + grid.shape[1] >= count, labelleft=number % grid.shape[1] == 0)


def _grouped(axes: Axes, runs: Mapping[str, pd.DataFrame]) -> None:
    labels = shortened(list(runs), 32)
    for number, (label, table) in enumerate(zip(labels, runs.values(), strict=True)):
        low, high = table["interval_low"].to_numpy(), table["interval_high"].to_numpy()
        width = 0.86 * (high - low) / len(runs)
        places = (low + high) / 2 + (number - (len(runs) - 1) / 2) * width
        shade = palette.RUN_SHADES[number % len(palette.RUN_SHADES)]
        hatch = palette.RUN_HATCHES[number % len(palette.RUN_HATCHES)]
        axes.bar(places, table["share"], width * 0.94, color=shade, hatch=hatch, ec="#333333", lw=0.4, label=label)
        axes.vlines(places, table["low"], table["high"], colors=INTERVAL_COLOUR, lw=style.points(0.9), zorder=3)
        _steps(axes, table, number)
    axes.set_xlim(-0.01, 1.01)
    axes.set_xticks(np.linspace(0, 1, 11))
    # Few ticks: those with more decimals would come after the layout had made room for shorter ones.
    axes.locator_params(axis="y", nbins=4)


def _steps(axes: Axes, table: pd.DataFrame, number: int) -> None:
    edges = np.append(table["interval_low"].to_numpy(), table["interval_high"].iloc[-1])
    for null, (_, dashes) in NULLS.items():
        if null in table:
            # Of several runs the later ones are fainter, since their nulls nearly coincide.
            axes.stairs(
                table[null], edges, color=NULL_COLOURS[null], ls=dashes, lw=style.points(0.9), baseline=None,
                alpha=1.0 if number == 0 else 0.5, zorder=2.5,
            )  # fmt: skip


def _null_handles() -> Sequence[Line2D]:
    return [
        Line2D([], [], color=NULL_COLOURS[null], ls=dashes, lw=style.points(0.9), label=f"null: {label}")
        for null, (label, dashes) in NULLS.items()
    ]
