"""How many parameters are torn: the distribution of statistics scores, of several runs and by block."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from figures.explaining import scores as explain
from figures.report.chart import Chosen, Figure, Picture, Table, View
from figures.report.plots.marks import run_marks
from figures.report.plots.parts import MUTED, above_legend, hover_text
from figures.report.safety import plot_text
from figures.tables.gradients import LEVELS, GradientTables

ALL_RUNS = "all runs"
NULLS = {
    "null_signs": ("if signs were independent", "dot"),
    "null_no_conflict": ("if there were no conflict", "dash"),
}
_HOVER = (("", "run", ""), ("score from", "interval_low", ".1f"), ("to", "interval_high", ".1f"))
HOVER = (*_HOVER, ("share", "share", ".4~f"), ("interval", "low", ".4~f"), ("to", "high", ".4~f"))


def pictures(runs: Sequence[GradientTables]) -> list[Picture]:
    """The pictures of statistics scores; none where they were not counted."""
    counted = [run for run in runs if any(tables.scores is not None for tables in run.levels.values())]
    found = [_distribution(counted)] if counted else []
    levels = [(run, level) for run in runs for level, tables in run.levels.items() if tables.score_blocks is not None]
    return found + ([_blocks(levels)] if levels else [])


def _distribution(runs: Sequence[GradientTables]) -> Picture:
    parts = [
        tables.scores.assign(run=run.name, level=level)
        for level in LEVELS
        for run in runs
        for tables in [run.levels.get(level)]
        if tables is not None and tables.scores is not None
    ]
    table = Table(_leading(pd.concat(parts, ignore_index=True), ("run", "level")))
    marks = run_marks([run.name for run in runs])
    views = []
    for level in LEVELS:
        chosen = {run.name: table.rows(run=run.name, level=level) for run in runs if level in run.levels}
        chosen = {name: rows for name, rows in chosen.items() if len(rows)}
        if not chosen:
            continue
        text = explain.distribution([run for run in runs if run.name in chosen], level)
        if len(chosen) > 1:
            views.append(View((level, ALL_RUNS), _bars(chosen, marks), text, table, table.rows(level=level).span))
        for name, rows in chosen.items():
            views.append(View((level, name), _bars({name: rows}, marks), text, table, rows.span))
    return Picture("scores", ("Level", "Run"), views)


def _blocks(levels: Sequence[tuple[GradientTables, str]]) -> Picture:
    parts = [run.levels[level].score_blocks.assign(run=run.name, level=level) for run, level in levels]  # type: ignore[union-attr]
    table = Table(_leading(pd.concat(parts, ignore_index=True), ("run", "level", "block")))
    marks = run_marks(list(dict.fromkeys(run.name for run, _ in levels)))
    views = []
    for run, level in levels:
        text = explain.blocks(run, level)
        here = table.rows(run=run.name, level=level)
        for block in dict.fromkeys(here.frame["block"]):
            rows = here & table.rows(block=block)
            views.append(View((run.name, level, block), _bars({run.name: rows}, marks), text, table, rows.span))
    return Picture("score-blocks", ("Run", "Level", "Parameters"), views)


def _leading(frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    return frame[[*columns, *(column for column in frame if column not in columns)]]


def _bars(runs: dict[str, Chosen], marks: dict[str, tuple[str, str]]) -> Figure:
    data: list[dict[str, Any]] = []
    step = 0.084 / len(runs)
    for number, (name, rows) in enumerate(runs.items()):
        colour, _ = marks[name]
        group = {"legendgroup": str(number)}
        # The middle of each tenth, moved aside for the runs beside it; the shares themselves are references.
        shift = (number - (len(runs) - 1) / 2) * step
        middles = [round(float(low) + 0.05 + shift, 5) for low in rows.frame["interval_low"]]
        bar = {"type": "bar", "name": plot_text(name), "x": middles, "y": rows.column("share"), "width": step * 0.92}
        hover = {"customdata": rows.zipped([column for _, column, _ in HOVER]), "hovertemplate": hover_text(HOVER)}
        data.append(bar | group | hover | {"marker": {"color": colour, "line": {"width": 0}}})
        if "low" in rows.frame:
            ends = [place for middle in middles for place in (middle, middle, None)]
            line = {"type": "scatter", "mode": "lines", "x": ends, "y": rows.ends("low", "high")}
            data.append(line | group | {"line": {"color": "var(--interval)", "width": 2}} | _silent())
        for column, (label, dash) in NULLS.items():
            if column in rows.frame:
                # More than two runs together would be a thicket of lines: their nulls are for the views of one run.
                only, few = len(runs) == 1, len(runs) <= 2
                line = {"type": "scatter", "mode": "lines+markers", "x": middles, "y": rows.column(column)}
                style = {"line": {"color": "var(--ink)" if only else colour, "dash": dash, "width": 1.5}}
                shown = {"name": label if only else plot_text(f"{name}: {label}"), "marker": {"size": 5}}
                data.append(line | style | shown | {"visible": True if few else "legendonly"} | {"hoverinfo": "y+name"})
    layout = {
        "height": 430 + (0 if len(runs) == 1 else 24 * len(runs)),
        "margin": {"t": 40, "r": 16, "b": 60, "l": 64},
        "barmode": "overlay",
        "xaxis": {"title": {"text": "statistics score"}, "range": [0, 1], "dtick": 0.1, "zeroline": False},
        "yaxis": {"title": {"text": "share of parameters"}, "rangemode": "tozero", "tickformat": ".0%"},
        "legend": above_legend(),
    }
    below = {"legend": {"orientation": "h", "x": 0, "y": -0.24, "yanchor": "top"}, "xaxis": {"dtick": 0.2}}
    return {"data": data, "layout": layout, "narrow": {"layout": below}, "widest": 900, "ink": MUTED}


def _silent() -> dict[str, Any]:
    return {"hoverinfo": "skip", "showlegend": False, "opacity": 0.9}
