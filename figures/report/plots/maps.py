"""Cells in the colours of their values: one map, or two side by side."""

from dataclasses import dataclass
from typing import Any

from figures.report.chart import Chosen, Figure
from figures.report.plots.parts import Hover, hover_text

PLACES = (0.0, 0.25, 0.5, 0.75, 1.0)
COLOURS = ("var(--low-2)", "var(--low-1)", "var(--middle)", "var(--high-1)", "var(--high-2)")
DIVERGING = [[place, colour] for place, colour in zip(PLACES, COLOURS, strict=True)]
SEQUENTIAL = [[0.0, "var(--middle)"], [0.5, "var(--high-1)"], [1.0, "var(--high-2)"]]
# More cells than this in a row leave no room for their numbers; hovering shows them.
MOST_WRITTEN, MOST_WRITTEN_NARROW = 14, 6
MOST_WRITTEN_BESIDE = 10
# Names of more columns than this stand upright and are small.
MOST_TILTED = 20
# On a phone names of more columns than this stand upright.
MOST_STEEP = 8


@dataclass(frozen=True)
class Scale:
    """Colours of a map.

    Attributes:
        title: of the colour bar.
        low: value at its lower end.
        high: value at its upper end.
        diverging: two colours about the middle, or one from the lower end.
        harm_above: the colour of harm is that of values above the middle, not below it.
    """

    title: str
    low: float
    high: float
    diverging: bool = False
    harm_above: bool = False

    @property
    def colours(self) -> list[list[Any]]:
        """In plotly's form."""
        if not self.diverging:
            return SEQUENTIAL
        if not self.harm_above:
            return DIVERGING
        return [[1.0 - place, colour] for place, colour in zip(PLACES[::-1], COLOURS[::-1], strict=True)]


def heat_map(
    chosen: Chosen,
    value: str,
    scale: Scale,
    rows: tuple[str, dict[str, Any], dict[str, Any]],
    columns: tuple[str, dict[str, Any], dict[str, Any]],
    hover: Hover,
    written: str = ".2f",
) -> Figure:
    """Cells in the colours of their values.

    Args:
        chosen: cells row by row.
        value: column of the values.
        scale: colours.
        rows: what they are, their ticks, their ticks on a phone.
        columns: likewise.
        hover: lines of the hover text.
        written: format of the numbers in the cells, where there is room.

    Returns:
        A figure.
    """
    width, height = len(columns[1]["tickvals"]), len(rows[1]["tickvals"])
    template = f"%{{z:{written}}}"
    # Numbers of experts need no room; names do.
    tilt = 0 if max(map(len, columns[1]["ticktext"])) <= 3 else -40
    steep = (-60 if width <= MOST_STEEP else -90) if tilt else 0
    if width > MOST_TILTED:
        tilt = -90
    data = {
        "type": "heatmap",
        "z": chosen.grid(value, width),
        "x": columns[1]["tickvals"],
        "y": rows[1]["tickvals"],
        "customdata": chosen.zipped([column for _, column, _ in hover], width),
        "hovertemplate": hover_text(hover),
        "texttemplate": template if width <= MOST_WRITTEN else "",
        "textfont": {"size": 12},
        "zmin": scale.low,
        "zmax": scale.high,
        "colorscale": scale.colours,
        "xgap": 2 if width <= MOST_WRITTEN else 0,
        "ygap": 2 if height <= MOST_WRITTEN else 0,
        "colorbar": _colour_bar(scale),
    }
    plain = {"showgrid": False, "zeroline": False, "ticks": ""}
    across = {**plain, **columns[1], "title": {"text": columns[0], "standoff": 14}, "tickangle": tilt}
    tall = 190 + max(34 * min(height, 12), 20 * height)
    layout = {
        "height": tall,
        "margin": {"t": 20, "r": 12, "b": 40, "l": 40},
        "xaxis": across | ({"tickfont": {"size": 9}} if width > MOST_TILTED else {}),
        "yaxis": {**plain, **rows[1], "title": {"text": rows[0], "standoff": 10}, "autorange": "reversed"},
    }
    # On a phone the names of many columns are left to the table, and to who touches a cell.
    named = {"showticklabels": width <= MOST_WRITTEN}
    written_there = template if width <= MOST_WRITTEN_NARROW else ""
    narrow = {
        "layout": {
            # Upright names take more room than tilted ones, and a title of several lines than one of one line.
            "height": tall + (60 if steep == -90 else 0) + 14 * _phone_title(scale).count("<br>"),
            "xaxis": {**columns[2], **named, "tickangle": steep},
            "yaxis": {**rows[2], "title": {"text": ""}},
        },
        "data": [{"texttemplate": written_there, "textfont": {"size": 10}, "colorbar": narrow_bar(scale)}],
    }
    return {"data": [data], "layout": layout, "narrow": narrow, "widest": 330 + 74 * width}


def _colour_bar(scale: Scale) -> dict[str, Any]:
    place = {"orientation": "h", "x": 0.5, "xanchor": "center", "y": 1.0, "yanchor": "bottom", "ypad": 4}
    title = {"text": scale.title, "side": "top", "font": {"size": 12}}
    return place | {"title": title, "len": 1.0, "thickness": 10, "outlinewidth": 0} | _colour_ticks(scale, 5)


def narrow_bar(scale: Scale) -> dict[str, Any]:
    """What is otherwise about the bar of colours on a phone: fewer ticks, and a title of several lines."""
    return {"title": {"text": _phone_title(scale)}} | _colour_ticks(scale, 3)


def _phone_title(scale: Scale) -> str:
    return scale.title.replace(", ", ",<br>").replace(" (", "<br>(")


def _colour_ticks(scale: Scale, number: int) -> dict[str, Any]:
    """Colours about a middle have ticks at their ends and at the middle, whatever numbers these are."""
    if not scale.diverging:
        return {"nticks": number}
    step = (scale.high - scale.low) / (number - 1)
    return {"tickvals": [scale.low + place * step for place in range(number)], "tickformat": ".2~g"}


def beside(left: Figure, right: Figure) -> Figure:
    """Two maps with the same rows, side by side; one above the other on a phone."""
    first, second = dict[str, Any](left["data"][0]), dict[str, Any](right["data"][0])
    first["colorbar"] = first["colorbar"] | {"x": 0.24, "len": 0.5}
    second |= {"xaxis": "x2", "yaxis": "y2", "colorbar": second["colorbar"] | {"x": 0.76, "len": 0.5}}
    one, other = left["layout"], right["layout"]
    layout = one | {
        "xaxis": one["xaxis"] | {"domain": [0.0, 0.485]},
        "xaxis2": other["xaxis"] | {"domain": [0.515, 1.0], "anchor": "y2"},
        "yaxis2": other["yaxis"] | {"anchor": "x2", "showticklabels": False, "title": {"text": ""}},
    }
    above, below = left["narrow"]["layout"], right["narrow"]["layout"]
    # Between the maps there must be room for the labels of the one and the colours of the other.
    height = above["height"] + below["height"] + 60
    middle = 250 / height
    lower, upper = (1 - middle) / 2, (1 + middle) / 2
    narrow = {
        "height": height,
        "xaxis": above["xaxis"] | {"domain": [0.0, 1.0], "title": {"text": ""}},
        "xaxis2": below["xaxis"] | {"domain": [0.0, 1.0]},
        "yaxis": above["yaxis"] | {"domain": [upper, 1.0]},
        "yaxis2": below["yaxis"] | {"domain": [0.0, lower], "showticklabels": True},
    }
    data = [dict[str, Any](figure["narrow"]["data"][0]) for figure in (left, right)]
    for cells, y in zip(data, (1.0, lower), strict=True):
        cells["colorbar"] = cells["colorbar"] | {"x": 0.5, "len": 1.0, "y": y}
    few = len(one["xaxis"]["tickvals"]) <= MOST_WRITTEN_BESIDE
    for cells in (first, second):
        cells |= {"texttemplate": cells["texttemplate"] if few else "", "textfont": {"size": 11}}
    return {"data": [first, second], "layout": layout, "narrow": {"layout": narrow, "data": data}, "widest": 1080}
