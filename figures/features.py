"""What the connector does to features: t-SNE pictures before and after, as in the paper's Figure 5."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures import palette, style
from figures.labels import shortened
from figures.palette import Mark

COLOURINGS = ("task", "dataset")


def feature_map(
    runs: Mapping[str, pd.DataFrame],
    tasks: Mapping[str, str] | None = None,
    colouring: str = "task",
    title: str | None = None,
    look: str = "paper",
) -> Figure:
    """t-SNE of features, a row per run and a column per stage, in two or three dimensions.

    Args:
        runs: per run name ``stage``, ``dataset``, ``x``, ``y`` and for three dimensions ``z``, of one seed.
        tasks: task of each dataset.
        colouring: ``task``, coloured by task with a marker for each dataset of it, or ``dataset``, in colours of
            their own.
        title: text above the panels.
        look: ``paper`` or ``talk``.

    Returns:
        A figure of text width. t-SNE has no units: places of different panels cannot be compared, only neighbours.
    """
    tasks = tasks or {}
    stages = list(dict.fromkeys(stage for table in runs.values() for stage in table["stage"]))
    names = palette.order_by_task(list(dict.fromkeys(n for table in runs.values() for n in table["dataset"])), tasks)
    marks = palette.dataset_marks(names, tasks) if colouring == "task" else palette.series_marks(names)
    deep = all("z" in table for table in runs.values())
    each = 2.9 if len(runs) <= 2 else 2.2
    with style.print_style(look):
        figure = style.new_figure(style.TEXT_WIDTH, 0.7 + len(runs) * each + 0.13 * _lines(names), look)
        grid = figure.subplots(len(runs), len(stages), squeeze=False, subplot_kw={"projection": "3d"} if deep else {})
        for row, (run, table) in zip(grid, runs.items(), strict=True):
            label = shortened([run], 30)[0]
            for axes, stage in zip(row, stages, strict=True):
                _points(axes, table[table["stage"] == stage], names, marks, deep)
                axes.set_title(f"{label}: {stage}")
        style.below(figure, _handles(names, marks, tasks, colouring))
        style.head(figure, title)
    return figure


def _points(axes: Axes, table: pd.DataFrame, names: Sequence[str], marks: Mapping[str, Mark], deep: bool) -> None:
    # Smaller and fainter the more there are, so that a crowd stays a cloud.
    size = style.points(min(4.0, max(1.6, 60 / max(len(table), 1) ** 0.5))) ** 2
    for name in names:
        here = table[table["dataset"] == name]
        places = [here[axis] for axis in ("xyz" if deep else "xy")]
        mark = marks[name]
        depth: dict[str, Any] = {"depthshade": False} if deep else {}
        cast(Any, axes).scatter(
            *places, s=size, c=mark.colour, marker=mark.marker, alpha=0.75, linewidths=0, label=name,
            rasterized=len(table) > 1500, **depth,
        )  # fmt: skip
    if deep:
        solid = cast(Any, axes)  # Axes3D has no type stubs
        for axis in (solid.xaxis, solid.yaxis, solid.zaxis):
            axis.set_ticklabels([])
            axis.set_pane_color((0.97, 0.97, 0.97))
        axes.tick_params(length=0)
        # The box leaves much of its panel empty otherwise.
        solid.set_box_aspect(None, zoom=1.2)
    else:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(True)
        axes.spines[:].set_color("#BBBBBB")
        axes.set_aspect("equal", adjustable="datalim")


def _handles(names: Sequence[str], marks: Mapping[str, Mark], tasks: Mapping[str, str], colouring: str) -> list[Artist]:
    labels = shortened(names, 24 if len(names) <= 12 else 18)
    return [
        Line2D(
            [], [], ls="none", marker=marks[name].marker, color=marks[name].colour, ms=style.points(4),
            label=f"{label} ({tasks[name]})" if colouring == "task" and name in tasks else label,
        )
        for name, label in zip(names, labels, strict=True)
    ]  # fmt: skip


def _lines(names: Sequence[str]) -> int:
    return -(-len(names) // 4)
