"""Per-token routing weights over the images that they belong to, strips drawn as strips."""

import base64
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from figures.explaining import routing as explain
from figures.report.chart import Chosen, Figure, Picture, Table, View
from figures.report.plots.parts import hover_text
from figures.report.plots.routing import stage_labels, stages
from figures.tables.routing import RoutingTables
from figures.tables.runs import Run

# Rows of the table in one page: about 50 bytes each.
MOST_ROWS = 50_000
# Clear where there is no weight, so that the image stays what it is, in the dark too.
GLOW = [[0.0, "rgba(255, 190, 60, 0)"], [0.5, "rgba(245, 130, 20, 0.38)"], [1.0, "rgba(214, 40, 10, 0.62)"]]
ALONE = "the image alone"
HOVER = (("expert ", "expert", ""), ("weight", "weight", ".4~f"), ("token", "token", "d"))
PLACES = ("left", "top", "right", "bottom")


def pictures(runs: Sequence[Run]) -> list[Picture]:
    """The picture of weights on images; none where no run has tokens with their images."""
    every = [(run, run.routing, _shown(run.routing)) for run in runs if run.routing is not None]
    routed = [(run, routing, tokens) for run, routing, tokens in every if tokens is not None]
    if not routed:
        return []
    tables, left_out = _within(MOST_ROWS, [tokens for _, _, tokens in routed])
    parts, images = [], {}
    for (run, routing, _), tokens in zip(routed, tables, strict=True):
        labelled = tokens.assign(checkpoint=tokens["checkpoint"].map(stage_labels(routing)))
        parts.append(pd.concat([pd.DataFrame({"run": run.name}, index=labelled.index), labelled], axis=1))
        for image in dict.fromkeys(tokens["image"]):
            images[f"{run.name}/{image}"] = _data_uri(routing.images[image])
    order = ["run", "router", "checkpoint", "image", "expert", "top", "left"]
    table = Table(pd.concat(parts, ignore_index=True).sort_values(order, kind="stable").astype({"expert": str}))
    views = []
    for run, routing, _ in routed:
        for router in routing.routers:
            views += _views(run, router, routing, table)
    notes = (f"{left_out} more images are in routing/tokens.csv; the page would be too large with them.",)
    pickers = ("Run", "Router", "Checkpoint", "Image", "Weights of")
    return [Picture("tokens", pickers, views, images, notes if left_out else (), _busiest(views, table))]


def _busiest(views: Sequence[View], table: Table) -> int:
    """The expert of the first image that has most weight there: one without any would show the image alone."""
    same = [view for view in views if view.at[:-1] == views[0].at[:-1] and view.at[-1] != ALONE]
    weights = [float(table.frame["weight"].iloc[slice(*view.rows or (0, 0))].mean()) for view in same]
    return views.index(same[weights.index(max(weights))])


def _shown(routing: RoutingTables) -> pd.DataFrame | None:
    """Tokens whose image is there."""
    if routing.tokens is None:
        return None
    kept = routing.tokens[routing.tokens["image"].isin(list(routing.images))]
    return None if kept.empty else kept


def _within(limit: int, tables: Sequence[pd.DataFrame]) -> tuple[list[pd.DataFrame], int]:
    """The first images of each table, as many as there is room for, and how many are left out."""
    share, kept, left_out = limit // len(tables), [], 0
    for tokens in tables:
        sizes = tokens.groupby("image", sort=False).size()
        wanted = list(sizes.index[sizes.cumsum() <= share]) or [sizes.index[0]]
        left_out += len(sizes) - len(wanted)
        kept.append(tokens[tokens["image"].isin(wanted)])
    return kept, left_out


def _views(run: Run, router: str, routing: RoutingTables, table: Table) -> list[View]:
    text, views = explain.tokens(run, router), []
    mine = table.rows(run=run.name, router=router)
    for stage in stages(routing):
        here = mine & table.rows(checkpoint=stage)
        for image in dict.fromkeys(here.frame["image"]):
            rows = here & table.rows(image=image)
            highest = float(rows.frame["weight"].max())
            ratio = _ratio(routing.images[image])
            source = {"$image": f"{run.name}/{image}"}
            at = (run.name, router, stage, image)
            for expert in sorted(set(rows.frame["expert"]), key=int):
                part = rows & table.rows(expert=expert)
                figure = _overlay(part, source, ratio, highest)
                views.append(View((*at, f"expert {expert}"), figure, text, table, part.span))
            alone = _canvas([], source, ratio)
            views.append(View((*at, ALONE), alone, text, table, rows.span))
    return views


def _overlay(tokens: Chosen, source: dict[str, str], ratio: float, highest: float) -> Figure:
    hover = {"customdata": tokens.zipped([column for _, column, _ in HOVER]), "hovertemplate": hover_text(HOVER)}
    frame = tokens.frame
    across = sorted({*frame["left"], *frame["right"]})
    down = sorted({*frame["top"], *frame["bottom"]})
    colours = {"colorscale": GLOW, "showscale": True, "colorbar": _bar()}
    if (len(across) - 1) * (len(down) - 1) == len(frame):
        width = len(across) - 1
        grid = {"type": "heatmap", "z": tokens.grid("weight", width), "x": across, "y": down}
        hover["customdata"] = tokens.zipped([column for _, column, _ in HOVER], width)
        return _canvas([{**grid, **hover, **colours, "zmin": 0, "zmax": highest, "xgap": 1, "ygap": 1}], source, ratio)
    # Tokens that do not tile the image are marked at their centres.
    middles = {
        "x": ((frame["left"] + frame["right"]) / 2).tolist(),
        "y": ((frame["top"] + frame["bottom"]) / 2).tolist(),
    }
    marker = {"color": tokens.column("weight"), "cmin": 0, "cmax": highest, "size": 14, "symbol": "square", **colours}
    return _canvas([{"type": "scatter", "mode": "markers", **middles, **hover, "marker": marker}], source, ratio)


def _bar() -> dict[str, Any]:
    return {"title": {"text": "weight", "side": "right"}, "thickness": 10, "outlinewidth": 0}


def _canvas(data: list[dict[str, Any]], source: dict[str, str], ratio: float) -> Figure:
    hidden = {"showgrid": False, "zeroline": False, "showticklabels": False, "ticks": "", "fixedrange": True}
    picture = {"source": source, "xref": "x", "yref": "y", "x": 0, "y": 0, "sizex": 1, "sizey": 1}
    layout = {
        "height": 440,
        "margin": {"t": 12, "r": 12, "b": 12, "l": 12},
        "xaxis": {**hidden, "range": [0, 1], "constrain": "domain"},
        "yaxis": {**hidden, "range": [1, 0], "scaleanchor": "x", "scaleratio": ratio, "constrain": "domain"},
        "images": [picture | {"sizing": "stretch", "layer": "below"}],
    }
    # A figure without any trace has no axes to put an image on.
    empty = [{"type": "scatter", "x": [None], "y": [None], "hoverinfo": "skip", "showlegend": False}]
    # On a phone the scale stands below, where it takes no width from the image.
    below = {"orientation": "h", "x": 0.5, "xanchor": "center", "y": 0, "yanchor": "top", "nticks": 5}
    bar = {"colorbar": below | {"title": {"text": "weight", "side": "bottom"}}}
    marked = [{"marker": bar} if "marker" in trace else bar for trace in data]
    narrow = {"layout": {"height": 390, "margin": {"b": 60}}, "data": marked}
    return {"data": data or empty, "layout": layout, "narrow": narrow, "widest": 560}


def _ratio(image: Path) -> float:
    """Height of a PNG over its width, from its header."""
    with image.open("rb") as file:
        width, height = struct.unpack(">II", file.read(24)[16:24])
    return height / width


def _data_uri(image: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(image.read_bytes()).decode("ascii")
