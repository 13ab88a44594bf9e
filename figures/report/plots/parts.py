"""What the page's figures are made of: labels of names, points with intervals, lines; in plotly's form.

Colours are either fixed (tasks, series) or names of the page's own (``var(--ink)``), which page.js looks up, so that
one figure serves light, dark and paper.
"""

import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from figures.labels import shortened
from figures.palette import TASK_COLOURS, order_by_task, task_marks
from figures.report.chart import Chosen, Figure
from figures.report.safety import plot_text

INK, MUTED = "var(--ink)", "var(--muted)"
WIDE_LABEL, NARROW_LABEL = 30, 15
# More bands than this over one another show nothing.
MOST_BANDS = 8
FEW_BANDS = 3
# A point is astray that lies further outside the middle half of all points than so many times its width.
FAR = 3.0
Hover = Sequence[tuple[str, str, str]]
"""Per line of a hover text: what stands before the number, its column, its format (empty for names)."""
UPPER = "to"


@dataclass(frozen=True, eq=False)
class Series:
    """Points that belong together.

    Attributes:
        label: in the legend.
        chosen: rows, one per point.
        colour: of all, or one per point.
        symbol: plotly's name, of all or one per point.
    """

    label: str
    chosen: Chosen
    colour: str | list[str] = INK
    symbol: str | list[str] = "circle"


def in_order(frame: pd.DataFrame, orders: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Rows sorted by columns, each in an order of its own; rows that an order does not have are left out."""
    ranks = {column: {name: number for number, name in enumerate(names)} for column, names in orders.items()}
    kept = frame[np.logical_and.reduce([frame[column].isin(names) for column, names in orders.items()])]
    keys = [kept[column].map(ranks[column]).to_numpy() for column in orders]
    return kept.iloc[np.lexsort(keys[::-1])]


def names_in(frame: pd.DataFrame, column: str, tasks: Mapping[str, str]) -> list[str]:
    """The different names in a column, in the order of tasks, ``all`` first."""
    names = order_by_task(list(dict.fromkeys(frame[column].astype(str))), tasks)
    return ["all"] * ("all" in names) + [name for name in names if name != "all"]


def ticks(
    names: Sequence[str], tasks: Mapping[str, str], marked: Collection[str] = (), width: int = WIDE_LABEL
) -> dict[str, Any]:
    """Places and labels of names on an axis: the task's colour, the name shortened, a mark on those to beware of."""
    labels, marks = [], task_marks(list(tasks.values()) or list(TASK_COLOURS))
    for name, label in zip(names, shortened(names, width), strict=True):
        mark = marks.get(tasks.get(name, name))
        square = f'<span style="color:{mark.colour}">■</span> ' if mark else ""
        labels.append(f"{square}{plot_text(label)}{' †' if name in marked else ''}")
    return {"tickmode": "array", "tickvals": list(range(len(names))), "ticktext": labels}


def hover_text(lines: Hover) -> str:
    """Plotly's template for rows of ``customdata`` with these columns."""
    text = ""
    for number, (label, _, form) in enumerate(lines):
        value = f"%{{customdata[{number}]{':' + form if form else ''}}}"
        # The upper end of an interval stands beside the lower one.
        text += " " if label == UPPER else "<br>" if text else ""
        text += f"{label} {value}" if form else f"{label}<b>{value}</b>"
    return text + "<extra></extra>"


def interval_lines(frame: pd.DataFrame) -> list[tuple[str, str, str]]:
    """The lines of a hover text about intervals: those of which a table has the columns."""
    wanted = [("interval", "low"), (UPPER, "high"), ("of all together", "simultaneous_low")]
    wanted += [(UPPER, "simultaneous_high"), ("adjusted p", "p_value")]
    return [(label, column, ".3~g") for label, column in wanted if column in frame and frame[column].notna().any()]


def both_ticks(
    names: Sequence[str], tasks: Mapping[str, str], marked: Collection[str] = ()
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Ticks for a screen, and for a phone."""
    return ticks(names, tasks, marked), ticks(names, tasks, marked, NARROW_LABEL)


@dataclass(frozen=True, eq=False)
class Points:
    """How points with intervals are drawn.

    Attributes:
        names: one line each, from the top.
        column: of the table that says which name a row is of.
        value: column of the points.
        low: column of the lower ends of intervals; empty for none.
        high: of the upper ends.
        outer: whether there are simultaneous intervals to draw as thin lines.
        axis: what the numbers are.
        hover: lines of the hover text.
        reference: a line at this value; None for none.
        bars: from the reference to the points.
        tasks: task of each name.
        marked: names to beware of.
        also: columns of numbers that the caller draws too, such as what chance would give.
    """

    names: Sequence[str]
    column: str
    value: str
    low: str
    high: str
    axis: str
    hover: Hover
    outer: bool = False
    reference: float | None = 0.0
    bars: bool = False
    tasks: Mapping[str, str] = field(default_factory=dict)
    marked: Collection[str] = ()
    also: Sequence[str] = ()


def points(series: Sequence[Series], form: Points) -> Figure:
    """Points with their intervals, one line per name, series above one another within it."""
    place = {name: number for number, name in enumerate(form.names)}
    step = 0.64 / len(series)
    data: list[dict[str, Any]] = []
    heights = []
    for number, one in enumerate(series):
        shift = (number - (len(series) - 1) / 2) * step
        at = [round(place[name] + shift, 4) for name in one.chosen.frame[form.column].astype(str)]
        heights.append(at)
        if form.bars:
            bar = {"type": "bar", "orientation": "h", "x": one.chosen.column(form.value), "y": at, "hoverinfo": "skip"}
            style = {"width": step * 0.92, "marker": {"color": one.colour, "opacity": 0.35}, "showlegend": False}
            data.append(bar | style | {"legendgroup": str(number)})
        data += _intervals(one, form, at, str(number))
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": plot_text(one.label),
                "legendgroup": str(number),
                "showlegend": len(series) > 1,
                "x": one.chosen.column(form.value),
                "y": at,
                "marker": {"color": one.colour, "symbol": one.symbol, "size": 9, "line": _edge()},
                "customdata": one.chosen.zipped([column for _, column, _ in form.hover]),
                "hovertemplate": hover_text(form.hover),
            }
        )
    wide, narrow = both_ticks(form.names, form.tasks, form.marked)
    limits = _limits([one.chosen.frame for one in series], form)
    arrows = [
        arrow for number, one in enumerate(series) for arrow in _arrows(one, form, heights[number], limits, number)
    ]
    data += arrows
    title = f"{form.axis} (◂ ▸: beyond the axis)" if arrows else form.axis
    rows = len(form.names) * max(26, 12 * len(series) + 8)
    layout = {
        "height": 130 + rows + (30 if len(series) > 1 else 0),
        "margin": {"t": 20, "r": 16, "b": 60, "l": 60},
        "xaxis": {"title": {"text": title, "standoff": 10}, "range": limits, "zeroline": False},
        "yaxis": {**wide, "range": [len(form.names) - 0.4, -0.6], "zeroline": False, **_apart()},
        "shapes": _rule(form.reference, "x"),
        "barmode": "overlay",
    }
    if len(series) > 1:
        layout |= {"legend": above_legend(), "margin": {"t": 44, "r": 16, "b": 60, "l": 60}}
    # A title that is wider than a phone would be cut at both ends.
    below = {"yaxis": narrow, "xaxis": {"title": {"text": "<br>".join(textwrap.wrap(title, 28))}}}
    return {"data": data, "layout": layout, "narrow": {"layout": below}, "widest": 980}


def _apart() -> dict[str, Any]:
    """Ticks that nobody sees keep labels away from arrows at the edge of the plot."""
    return {"ticks": "outside", "ticklen": 8, "tickcolor": "rgba(0,0,0,0)"}


def above_legend() -> dict[str, Any]:
    """A legend in one line above the plot."""
    return {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "yref": "paper", "itemsizing": "constant"}


def lines(
    series: Sequence[Series],
    x: str,
    value: str,
    ends: tuple[str, str] | None,
    axes: tuple[str, str],
    hover: Hover,
    reference: float | None = None,
) -> Figure:
    """Lines over steps, one per series, with intervals as bands; colours are ``#RRGGBB``."""
    data: list[dict[str, Any]] = []
    for number, one in enumerate(series):
        steps = one.chosen.column(x)
        if ends and len(series) <= MOST_BANDS:
            data += _band(one, steps, ends, str(number), 0.16 if len(series) <= FEW_BANDS else 0.09)
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": plot_text(shortened([one.label], 28)[0]),
                "legendgroup": str(number),
                "showlegend": len(series) > 1,
                "x": steps,
                "y": one.chosen.column(value),
                "line": {"color": one.colour, "width": 2},
                "marker": {"symbol": one.symbol, "size": 8, "color": one.colour, "line": _edge()},
                "customdata": one.chosen.zipped([column for _, column, _ in hover]),
                "hovertemplate": hover_text(hover),
            }
        )
    frames = [one.chosen.frame for one in series]
    form = Points((), "", value, *(ends or ("", "")), axis="", hover=hover, reference=reference)
    limits = _limits(frames, form)
    for number, one in enumerate(series):
        data += _points_beyond(one, x, form, limits, number)
    # One line of the legend holds about five names; plotly puts it above the plot and grows downwards from there.
    layout = {
        "height": 440 + 20 * (len(series) // 5),
        "margin": {"t": 30, "r": 16, "b": 60, "l": 64},
        "xaxis": {"title": {"text": axes[0], "standoff": 10}, "zeroline": False},
        "yaxis": {"title": {"text": axes[1], "standoff": 8}, "range": limits, "zeroline": False},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "shapes": _rule(reference, "y"),
    }
    below = {"legend": {"orientation": "h", "x": 0, "y": -0.24, "yanchor": "top"}, "height": 460 + 22 * len(series)}
    return {"data": data, "layout": layout, "narrow": {"layout": below}, "widest": 980}


def _band(
    one: Series, steps: dict[str, Any], ends: tuple[str, str], group: str, opacity: float
) -> list[dict[str, Any]]:
    """Intervals over steps as a surface about the line."""
    assert isinstance(one.colour, str)
    red, green, blue = (int(one.colour[place : place + 2], 16) for place in (1, 3, 5))
    quiet = {"hoverinfo": "skip", "legendgroup": group, "showlegend": False, "line": {"width": 0}}
    edge = {"type": "scatter", "mode": "lines", "x": steps} | quiet
    surface = {"fill": "tonexty", "fillcolor": f"rgba({red},{green},{blue},{opacity})"}
    return [edge | {"y": one.chosen.column(ends[0])}, edge | {"y": one.chosen.column(ends[1])} | surface]


def _intervals(one: Series, form: Points, at: Sequence[float], group: str) -> list[dict[str, Any]]:
    pairs = [(form.low, form.high, 3.0)] if form.low else []
    if form.outer:
        pairs.insert(0, (f"simultaneous_{form.low}", f"simultaneous_{form.high}", 1.0))
    gaps = [place for position in at for place in (position, position, None)]
    colour = one.colour if isinstance(one.colour, str) else MUTED
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "x": one.chosen.ends(low, high),
            "y": gaps,
            "line": {"color": colour, "width": width},
            "opacity": 0.55 if width > 1 else 0.8,
            "hoverinfo": "skip",
            "legendgroup": group,
            "showlegend": False,
        }
        for low, high, width in pairs
    ]


def _arrows(
    one: Series, form: Points, at: Sequence[float], limits: Sequence[float], group: int
) -> list[dict[str, Any]]:
    """A mark at the edge of the plot for every interval or point that lies beyond it."""
    columns, frame = ([form.value], [form.value]), one.chosen.frame
    for low, high in _ends(form):
        columns[0].append(low)
        columns[1].append(high)
    found = []
    for place, symbol, side in ((0, "triangle-left", -1), (1, "triangle-right", 1)):
        ends = side * frame[columns[place]].to_numpy(dtype=float)
        beyond = np.asarray((ends > side * limits[place]).any(axis=1))
        if beyond.any():
            marks = {"x": [limits[place]] * int(beyond.sum()), "y": np.asarray(at)[beyond].tolist()}
            found.append({**marks, **_edge_marks(one, beyond, form, symbol, group)})
    return found


def _points_beyond(one: Series, x: str, form: Points, limits: Sequence[float], group: int) -> Iterator[dict[str, Any]]:
    """A mark at the edge of the plot for every point of a line that lies beyond it."""
    values = one.chosen.frame[form.value].to_numpy(dtype=float)
    for limit, symbol, side in ((limits[0], "triangle-down", -1), (limits[1], "triangle-up", 1)):
        beyond = np.asarray(side * values > side * limit)
        if beyond.any():
            steps = one.chosen.frame[x].to_numpy()[beyond].tolist()
            yield {"x": steps, "y": [limit] * len(steps), **_edge_marks(one, beyond, form, symbol, group)}


def _edge_marks(one: Series, beyond: np.ndarray, form: Points, symbol: str, group: int) -> dict[str, Any]:
    """Marks at the edge of a plot, whose hover text has the numbers that are beyond it."""
    colour = one.colour if isinstance(one.colour, str) else MUTED
    part = Chosen(one.chosen.table, one.chosen.positions[beyond])
    return {
        "type": "scatter",
        "mode": "markers",
        "marker": {"symbol": symbol, "size": 9, "color": colour},
        "cliponaxis": False,
        "showlegend": False,
        "legendgroup": str(group),
        "customdata": part.zipped([column for _, column, _ in form.hover]),
        "hovertemplate": hover_text(form.hover),
    }


def _ends(form: Points) -> list[tuple[str, str]]:
    pairs = [(form.low, form.high)] if form.low else []
    return pairs + ([(f"simultaneous_{form.low}", f"simultaneous_{form.high}")] if form.outer else [])


def _limits(frames: Sequence[pd.DataFrame], form: Points) -> list[float]:
    """Limits of an axis; an interval without end is cut by them, or it would press all others flat."""
    every = pd.concat([frame.reset_index(drop=True) for frame in frames], ignore_index=True)
    values = every[form.value].to_numpy(dtype=float)
    kept = values[np.isfinite(values) & ~_astray(every, form)]
    also = every[[column for column in form.also if column in every]].to_numpy(dtype=float).ravel()
    core = np.concatenate([kept, also[np.isfinite(also)], [] if form.reference is None else [form.reference]])
    if not len(core):
        return [0.0, 1.0]
    low, high = float(core.min()), float(core.max())
    room = max(high - low, 0.02 * max(abs(low), abs(high)), 1e-9)
    both = np.concatenate([np.empty((0, 2)), *(every[list(pair)].to_numpy(dtype=float) for pair in _ends(form))])
    both = both[np.isfinite(both).all(axis=1)]
    lowest, highest = (float(both[:, 0].min()), float(both[:, 1].max())) if len(both) else (low, high)
    start, stop = max(min(low, lowest), low - room), min(max(high, highest), high + room)
    pad = 0.04 * max(stop - start, 1e-9)
    return [start - pad, stop + pad]


def _astray(frame: pd.DataFrame, form: Points) -> np.ndarray:
    """Points far from all others that say nothing, their interval spanning the reference: not worth an axis."""
    if form.reference is None or not form.low or len(frame) < 4:
        return np.zeros(len(frame), dtype=bool)
    values, low, high = (frame[column].to_numpy(dtype=float) for column in (form.value, form.low, form.high))
    quarter, most = np.nanpercentile(values, [25, 75]) if np.isfinite(values).any() else (0.0, 0.0)
    reach = FAR * (most - quarter)
    far = (values < quarter - reach) | (values > most + reach)
    return far & (low <= form.reference) & (form.reference <= high) & (reach > 0)


def _rule(value: float | None, axis: str) -> list[dict[str, Any]]:
    if value is None:
        return []
    other = "y" if axis == "x" else "x"
    line = {"type": "line", f"{axis}0": value, f"{axis}1": value, f"{other}0": 0, f"{other}1": 1}
    return [line | {f"{other}ref": "paper", "line": {"color": MUTED, "width": 1, "dash": "dash"}, "layer": "below"}]


def _edge() -> dict[str, Any]:
    # A thin rim in the page's own colour keeps marks apart that lie on one another.
    return {"color": "var(--surface)", "width": 1}
