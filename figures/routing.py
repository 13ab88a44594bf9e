"""How a router divides the work: maps of task by expert, as in the paper's Figure 4c, and measures of it."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import palette, style
from figures.heat import colour_bar, heat, name_square, names_on
from figures.labels import shortened
from figures.whiskers import Panels, dot_panels

# From the coarsest to the finest.
LEVELS = ("all", "task", "dataset")
_HEADINGS = {"utilisation_entropy": "Entropy of mean weights", "token_entropy": "Mean entropy of a token"}
_ROW = 0.17


def routing_maps(
    weights: pd.DataFrame,
    checkpoints: Mapping[str, str],
    tasks: Mapping[str, str] | None = None,
    title: str | None = None,
    look: str = "paper",
) -> Figure:
    """Mean weight of every expert by task and dataset, a map per checkpoint, as in the paper's Figure 4c.

    Args:
        weights: of one router: ``checkpoint``, ``level``, ``name``, ``expert``, ``weight``.
        checkpoints: name of each checkpoint to what it is called, in the order of training.
        tasks: task of each dataset, which orders and colours them.
        title: text above the maps.
        look: ``paper`` or ``talk``.

    Returns:
        A figure of text width; all maps on one scale from 0, the even share in the colour bar's label.
    """
    tasks = tasks or {}
    found = _levels(weights, tasks)
    experts = sorted(weights["expert"].unique())
    top = float(weights["weight"].max())
    heights = [len(names) for names in found.values()]
    cells = min(_ROW * sum(heights), 6.5)
    room = 5.4 / len(checkpoints)
    with style.print_style(look):
        figure = style.new_figure(style.TEXT_WIDTH, 1.6 + cells + 0.1 * len(found), look)
        grid = figure.subplots(len(found), len(checkpoints), squeeze=False, sharex=True, height_ratios=heights)
        for column, (checkpoint, label) in enumerate(checkpoints.items()):
            for row, (level, names) in enumerate(found.items()):
                axes = grid[row, column]
                here = weights[(weights["checkpoint"] == checkpoint) & (weights["level"] == level)]
                table = here.pivot(index="name", columns="expert", values="weight")
                table = table.reindex(index=names, columns=experts)
                high = cells * len(names) / sum(heights)
                image = heat(axes, table, "Blues", (0.0, top), (room, high))
                names_on(axes, names, "y", high, tasks)
                axes.tick_params(axis="y", labelleft=column == 0)
                axes.tick_params(axis="both", length=0)
            _expert_ticks(grid[-1, column], experts, room)
            grid[0, column].set_title(shortened([label], 80 // len(checkpoints))[0])
        even = 1 / len(experts)
        label = f"mean weight (even: {even:.2f})"
        colour_bar(figure, image, list(grid.ravel()), label, location="right", aspect=40, fraction=0.05)
        style.below(figure, style.task_handles(found.get("dataset", found.get("task", [])), tasks))
        style.head(figure, title)
    return figure


def routing_measures(
    measures: pd.DataFrame,
    checkpoints: Mapping[str, str],
    tasks: Mapping[str, str] | None = None,
    title: str | None = None,
    look: str = "paper",
) -> Figure:
    """Entropies of a router's weights by task and dataset.

    Args:
        measures: of one router: ``checkpoint``, ``level``, ``name``, ``measure`` (``utilisation_entropy``,
            ``token_entropy``), ``value``, ``low``, ``high``.
        checkpoints: name of each checkpoint to what it is called, in the order of training.
        tasks: task of each dataset, which orders them.
        title: text above.
        look: ``paper`` or ``talk``.

    Returns:
        Dots with intervals, a panel per measure, a series per checkpoint.
    """
    layout = Panels(
        panels=_HEADINGS,
        rows=[name for names in _levels(measures, tasks or {}).values() for name in names],
        label="0: one expert alone, 1: all experts alike",
        tasks=tasks,
        series=_series(checkpoints),
    )
    table = measures.rename(columns={"name": "row", "measure": "panel", "checkpoint": "series"})
    return dot_panels(table.replace({"series": dict(checkpoints)}), layout, title, look)


def routing_information(
    information: pd.DataFrame, checkpoints: Mapping[str, str], title: str | None = None, look: str = "paper"
) -> Figure:
    """Mutual information of expert and task or dataset, with what shuffled labels reach.

    Args:
        information: of one router: ``checkpoint``, ``level``, ``value``, ``low``, ``high``, ``null_high``.
        checkpoints: name of each checkpoint to what it is called, in the order of training.
        title: text above.
        look: ``paper`` or ``talk``.

    Returns:
        A small figure: dots with intervals, a tick at the 95 % point under shuffled labels.
    """
    table = information.assign(panel="bits", row=information["level"] + " and expert")
    layout = Panels(
        panels={"bits": "Mutual information, bits"},
        rows=sorted(table["row"].unique(), reverse=True),
        label="chance: 95 % of shuffled labels stay below",
        reference=0.0,
        series=_series(checkpoints),
        line=0.25,
    )
    table = table.rename(columns={"checkpoint": "series", "null_high": "chance"})
    return dot_panels(table.replace({"series": dict(checkpoints)}), layout, title, look)


def expert_load(
    load: pd.DataFrame,
    checkpoints: Mapping[str, str],
    tasks: Mapping[str, str] | None = None,
    title: str | None = None,
    look: str = "paper",
) -> Figure:
    """Share of tokens whose largest weight each expert has, with intervals, a panel per expert.

    Args:
        load: of one router: ``checkpoint``, ``level``, ``name``, ``expert``, ``load``, ``low``, ``high``, ``dead``.
        checkpoints: name of each checkpoint to what it is called, in the order of training.
        tasks: task of each dataset, which orders and colours them.
        title: text above the panels.
        look: ``paper`` or ``talk``.

    Returns:
        Dots with intervals about a line at the even share; experts that are dead at the last checkpoint say so.
    """
    tasks = tasks or {}
    rows = [name for names in _levels(load, tasks).values() for name in names]
    experts = sorted(load["expert"].unique())
    last = load[(load["checkpoint"] == list(checkpoints)[-1]) & (load["level"] == "all")]
    dead = set(last.loc[last["dead"].astype(bool), "expert"])
    table = load.rename(columns={"expert": "panel", "name": "row", "load": "value", "checkpoint": "series"})
    layout = Panels(
        panels={expert: f"expert {expert}" + (" (dead)" if expert in dead else "") for expert in experts},
        rows=rows,
        label="share of tokens whose largest weight is this expert's (line: even)",
        tasks=tasks,
        reference=1 / len(experts),
        series=_series(checkpoints),
        columns=min(len(experts), 8),
    )
    return dot_panels(table.replace({"series": dict(checkpoints)}), layout, title, look)


def routing_divergence(
    divergence: pd.DataFrame,
    checkpoints: Mapping[str, str],
    tasks: Mapping[str, str] | None = None,
    title: str | None = None,
    look: str = "paper",
) -> Figure:
    """Jensen-Shannon divergence of mean weights, a map per level and checkpoint.

    Args:
        divergence: of one router: ``checkpoint``, ``level``, ``row``, ``column``, ``value`` in bits, 0 to 1.
        checkpoints: name of each checkpoint to what it is called, in the order of training.
        tasks: task of each dataset, which orders and colours them.
        title: text above the maps.
        look: ``paper`` or ``talk``.

    Returns:
        A figure of text width, all maps on one scale from 0 to the largest divergence.
    """
    tasks = tasks or {}
    named = divergence.rename(columns={"row": "name"})
    found = {level: names for level, names in _levels(named, tasks).items() if len(names) > 1}
    top = max(float(divergence["value"].max()), 1e-3)
    columns = max(len(checkpoints), 2)
    width = 5.0 / columns
    heights = [min(max(0.18 * len(names) + 0.1, 0.9), 3.4) for names in found.values()]
    with style.print_style(look):
        figure = style.new_figure(style.TEXT_WIDTH, 1.4 + sum(heights) + 0.8 * len(found), look)
        grid = figure.subplots(len(found), len(checkpoints), squeeze=False, height_ratios=heights)
        for row, ((level, names), height) in enumerate(zip(found.items(), heights, strict=True)):
            for column, (checkpoint, label) in enumerate(checkpoints.items()):
                axes = grid[row, column]
                here = divergence[(divergence["checkpoint"] == checkpoint) & (divergence["level"] == level)]
                table = here.pivot(index="row", columns="column", values="value").reindex(index=names, columns=names)
                image = heat(axes, table, "Purples", (0.0, top), (width, height))
                name_square(axes, names, tasks, (width, height), rows=column == 0)
                if column:
                    axes.tick_params(axis="y", length=0, labelleft=False)
                axes.set_title(shortened([f"{label}, {level}s"], 80 // len(checkpoints))[0])
        label = "JS divergence, bits"
        colour_bar(figure, image, list(grid.ravel()), label, location="right", aspect=40, fraction=0.05)
        style.below(figure, style.task_handles(found.get("dataset", found.get("task", [])), tasks))
        style.head(figure, title)
    return figure


def switched_off_experts(
    changes: pd.DataFrame,
    tasks: Mapping[str, str] | None = None,
    title: str | None = None,
    look: str = "paper",
) -> Figure:
    """What the loss gains when an expert is switched off, a panel per expert.

    Args:
        changes: of one router at one checkpoint: ``expert``, ``level``, ``name``, ``change``, ``low``, ``high``.
        tasks: task of each dataset, which orders and colours them.
        title: text above the panels.
        look: ``paper`` or ``talk``.

    Returns:
        Dots with intervals about a line at 0.
    """
    tasks = tasks or {}
    experts = sorted(changes["expert"].unique())
    layout = Panels(
        panels={expert: f"expert {expert} off" for expert in experts},
        rows=[name for names in _levels(changes, tasks).values() for name in names],
        label="change of the mean loss (right of 0: the expert is missed)",
        tasks=tasks,
        reference=0.0,
        columns=min(len(experts), 8),
    )
    table = changes.rename(columns={"expert": "panel", "name": "row", "change": "value"})
    return dot_panels(table, layout, title, look)


def _levels(table: pd.DataFrame, tasks: Mapping[str, str]) -> dict[str, list[str]]:
    """Names of each level that a table has, in the order of tasks."""
    return {
        level: palette.order_by_task(list(dict.fromkeys(table.loc[table["level"] == level, "name"])), tasks)
        for level in LEVELS
        if (table["level"] == level).any()
    }


def _expert_ticks(axes: Axes, experts: Sequence[int], room: float) -> None:
    every = max(1, int(np.ceil(12 / style.pitch(room, len(experts)))))
    axes.set_xticks(range(0, len(experts), every), [str(expert) for expert in experts[::every]])
    axes.tick_params(axis="x", labelbottom=True)
    axes.set_xlabel("expert")


def _series(checkpoints: Mapping[str, str]) -> Sequence[str]:
    return list(checkpoints.values()) if len(checkpoints) > 1 else ()
