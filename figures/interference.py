"""The tug-of-war as heat maps of GD and GM, as in the paper's Figure 2."""

from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import palette, style
from figures.heat import colour_bar, fade, heat, name_square
from figures.palette import GD_BOUND


def interference_heatmap(
    gd: pd.DataFrame,
    gm: pd.DataFrame,
    tasks: Mapping[str, str] | None = None,
    title: str | None = None,
    uncertain: Collection[str] = (),
    look: str = "paper",
) -> Figure:
    """GD (eq. 2) and GM (eq. 3) as two annotated heat maps, as in the paper's Figure 2.

    Args:
        gd: square, row interfered with, column interfering.
        gm: square, the same names.
        tasks: task of each dataset, which orders and colours them; not needed when the names are tasks.
        title: text above both panels.
        uncertain: names whose row of GD is marked and pale, as not to be trusted (the sign of its denominator).
        look: ``paper`` or ``talk``.

    Returns:
        A figure of text width; GD on a diverging map centred at 0, GM on a sequential one. More than 16 names are
        numbered, and the columns go by the numbers.
    """
    tasks = tasks or {}
    names = palette.order_by_task(list(gd.index), tasks)
    # The lowest row of names that fit under their columns takes as much as before; numbered ones need a line each.
    cells = min(max(0.3 * len(names), 1.5), 5.0)
    with style.print_style(look):
        figure = style.new_figure(style.TEXT_WIDTH, 1.8 + cells, look)
        left, right = figure.subplots(1, 2, sharey=True)
        room = (2.9, cells)
        heat(left, gd.loc[names, names], "RdBu", (-GD_BOUND, GD_BOUND), room)
        doubtful = np.isin(names, list(uncertain))[:, np.newaxis]
        fade(left, np.broadcast_to(doubtful, (len(names), len(names))))
        heat(right, gm.loc[names, names], "Blues", (0.0, 1.0), room)
        name_square(left, names, tasks, room, uncertain)
        name_square(right, names, tasks, room, rows=False)
        for axes in (left, right):
            axes.set_xlabel("interfering")
        left.set_ylabel("interfered with")
        right.tick_params(axis="y", length=0, labelleft=False)
        _add_colour_bars(figure, left, right)
        note = "† pale: sign of the denominator uncertain" if set(uncertain) & set(names) else None
        style.below(figure, style.task_handles(names, tasks), note)
        style.head(figure, title)
    return figure


def _add_colour_bars(figure: Figure, left: Axes, right: Axes) -> None:
    # Arrows say that values beyond the bounds take the colour at the end.
    label = f"Gradient direction GD (colours end at ±{GD_BOUND:g})"
    colour_bar(figure, left.images[0], left, label, extend="both", ticks=[-1, -0.5, 0, 0.5, 1])
    label = "Gradient magnitude similarity GM"
    colour_bar(figure, right.images[0], right, label, ticks=[0, 0.25, 0.5, 0.75, 1])
