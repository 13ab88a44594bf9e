"""What the connector does to features: t-SNE before and after it, how well groups separate, alignment, stability."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from figures.explaining import features as explain
from figures.labels import shortened
from figures.palette import Mark, dataset_marks, order_by_task, task_marks
from figures.report.chart import Chosen, Figure, Picture, Table, View
from figures.report.plots.marks import run_marks
from figures.report.plots.parts import (
    Points,
    Series,
    above_legend,
    hover_text,
    in_order,
    interval_lines,
    names_in,
    points,
)
from figures.report.safety import plot_text
from figures.tables.features import DIMENSIONS
from figures.tables.runs import Run

STAGES = {"before": "before the connector", "after": "after the connector"}
SEVERAL = "all, side by side"
# Points of one picture in the page: about 45 bytes each.
MOST_ROWS = 40_000
# From here on points are drawn by the graphics card.
MANY = 2000
MEASURES = {"silhouette": "silhouette", "knn_purity": "kNN purity"}
STABILITY = {"neighbour_overlap": "overlap of neighbours between seeds", "trustworthiness": "trustworthiness"}


def pictures(runs: Sequence[Run]) -> list[Picture]:
    """The pictures of features; none where they were not measured."""
    shown = [run for run in runs if run.features is not None]
    found = []
    for dimensions in DIMENSIONS:
        embedded = [run for run in shown if run.features is not None and dimensions in run.features.embeddings]
        found += [_embedding(embedded, dimensions)] if embedded else []
    for make, name in ((_separation, "separation"), (_alignment, "alignment"), (_stability, "stability")):
        having = [run for run in shown if getattr(run.features, name) is not None]
        found += [make(having)] if having else []
    return found


def _embedding(runs: Sequence[Run], dimensions: int) -> Picture:
    parts = []
    for run in runs:
        assert run.features is not None
        frame = run.features.embeddings[dimensions]
        names = order_by_task(list(dict.fromkeys(frame["dataset"])), run.tasks)
        ordered = in_order(frame, {"stage": list(STAGES), "dataset": names}).sort_values("seed", kind="stable")
        parts.append(pd.concat([pd.DataFrame({"run": run.name}, index=ordered.index), ordered], axis=1))
    every, notes = _fitting(pd.concat(parts, ignore_index=True))
    table = Table(every)
    views: list[View] = []
    choices = ([(SEVERAL, list(runs))] if len(runs) > 1 else []) + [(run.name, [run]) for run in runs]
    # The views of all runs together come first where they still fit on a screen.
    for label, chosen in choices:
        text = explain.embedding(chosen, dimensions)
        rows = table.rows() if len(chosen) > 1 else table.rows(run=chosen[0].name)
        for by in ("task", "dataset") if any(run.tasks for run in chosen) else ("dataset",):
            for seed in sorted(set(rows.frame["seed"])):
                part = rows & table.rows(seed=seed)
                figure = _clouds(part, chosen, by, dimensions)
                views.append(View((label, f"by {by}", str(seed)), figure, text, table, part.span))
    return Picture(f"features-{dimensions}d", ("Run", "Colours", "Seed"), views, notes=notes)


def _fitting(every: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """As many points as a page has room for: one seed first, then every second, third … sample of each dataset."""
    notes = []
    seeds = sorted(set(every["seed"]))
    if len(every) > MOST_ROWS and len(seeds) > 1:
        every = every[every["seed"] == seeds[0]]
        notes.append(f"Only seed {seeds[0]} is in this page, which would be too large with all of them.")
    if len(every) > MOST_ROWS:
        one_in, whole = -(-len(every) // MOST_ROWS), len(every)
        # Both stages hold the same samples in the same order, so that the same are kept before and after.
        numbers = every.groupby(["run", "stage", "seed", "dataset"], sort=False).cumcount()
        every = every[numbers % one_in == 0]
        notes.append(f"{len(every):,} of {whole:,} points are in this page, one in {one_in} of every dataset.")
    return every, (f"{' '.join(notes)} All are in features/.",) if notes else ()


def _clouds(points_: Chosen, runs: Sequence[Run], by: str, dimensions: int) -> Figure:
    table = points_.table
    tasks = {name: task for run in runs for name, task in run.tasks.items()}
    names = order_by_task(list(dict.fromkeys(points_.frame["dataset"])), tasks)
    marks = task_marks([tasks.get(name, name) for name in names]) if by == "task" else dataset_marks(names, tasks)
    panels = [(run, stage) for run in runs for stage in STAGES]
    data, shown = [], set[str]()
    for number, (run, stage) in enumerate(panels, start=1):
        here = points_ & table.rows(run=run.name, stage=stage)
        for name in names:
            part = here & table.rows(dataset=name)
            if len(part):
                group = tasks.get(name, name) if by == "task" else name
                legend, crowd = group not in shown, len(points_) // len(panels)
                data.append(_cloud(part, group, marks[group], number, legend, dimensions, crowd))
                shown.add(group)
    titles = [f"{run.name}: {STAGES[stage]}" if len(runs) > 1 else STAGES[stage] for run, stage in panels]
    layout = _panels(titles, 2, dimensions)
    narrow = _panels(titles, 1, dimensions)
    rows = len(shown) // 4
    layout["legend"]["y"], narrow["legend"]["y"] = -0.02, -0.02
    layout["height"] += 24 * rows
    narrow["height"] += 30 * len(shown) // 2
    return {"data": data, "layout": layout, "narrow": {"layout": narrow}, "widest": 1080}


def _cloud(
    part: Chosen, group: str, mark: Mark, panel: int, legend: bool, dimensions: int, crowd: int
) -> dict[str, Any]:
    hover = [("", "dataset", ""), ("sample", "sample", "")]
    if "task" in part.frame and bool(part.frame["task"].notna().all()):
        hover.insert(1, ("", "task", ""))
    solid = dimensions == 3
    suffix = "" if panel == 1 else str(panel)
    place = {"scene": f"scene{suffix}"} if solid else {"xaxis": f"x{suffix}", "yaxis": f"y{suffix}"}
    marker: dict[str, Any] = {"color": mark.colour, "symbol": _solid(mark.symbol) if solid else mark.symbol}
    marker |= {
        "size": _size(crowd, solid),
        "opacity": 0.85,
        "line": {"width": 0 if solid else 0.5, "color": "var(--surface)"},
    }
    return {
        "type": "scatter3d" if solid else "scattergl" if crowd > MANY else "scatter",
        "mode": "markers",
        "name": plot_text(shortened([group], 28)[0]),
        "legendgroup": plot_text(group),
        "showlegend": legend,
        **{axis: part.column(axis) for axis in ("x", "y", "z")[:dimensions]},
        **place,
        "marker": marker,
        "customdata": part.zipped([column for _, column, _ in hover]),
        "hovertemplate": hover_text([(label, column, form) for label, column, form in hover]),
    }


def _size(crowd: int, solid: bool) -> float:
    """Width of a point in pixels: the more there are in a panel, the smaller."""
    width = 6.5 if crowd <= 200 else 5.0 if crowd <= 1000 else 3.5
    return width - 1.5 if solid else width


def _solid(symbol: str) -> str:
    # In three dimensions plotly has fewer marks.
    known = {"circle": "circle", "square": "square", "diamond": "diamond", "cross": "cross", "x": "x"}
    others = {"triangle-up": "diamond-open", "triangle-down": "square-open", "triangle-left": "circle-open"}
    return (known | others).get(symbol, "circle-open")


def _panels(titles: Sequence[str], columns: int, dimensions: int) -> dict[str, Any]:
    """Layout of panels, row by row, each with its title above it."""
    rows = -(-len(titles) // columns)
    height = 400 if columns > 1 else 340
    total = rows * height
    head, gap = 34 / total, 0.03
    layout: dict[str, Any] = {"annotations": []}
    for number, title in enumerate(titles):
        row, column = divmod(number, columns)
        x = [column / columns + gap / 2 * (column > 0), (column + 1) / columns - gap / 2 * (column < columns - 1)]
        y = [1 - (row + 1) / rows + 0.02 / rows, 1 - row / rows - head]
        suffix = "" if number == 0 else str(number + 1)
        layout["annotations"].append(_title(title, x, y[1]))
        if dimensions == 3:
            layout[f"scene{suffix}"] = {"domain": {"x": x, "y": y}, **_scene()}
        else:
            layout[f"xaxis{suffix}"] = {**_frame(), "domain": x, "anchor": f"y{suffix}"}
            square = {"scaleanchor": f"x{suffix}", "scaleratio": 1, "anchor": f"x{suffix}"}
            layout[f"yaxis{suffix}"] = {**_frame(), "domain": y, **square}
    legend = {"orientation": "h", "x": 0, "yanchor": "top", "itemsizing": "constant"}
    return layout | {"height": total + 70, "margin": {"t": 8, "r": 8, "b": 40, "l": 8}, "legend": legend}


def _title(text: str, x: Sequence[float], y: float) -> dict[str, Any]:
    place = {"xref": "paper", "yref": "paper", "x": sum(x) / 2, "y": y, "xanchor": "center", "yanchor": "bottom"}
    return place | {"text": f"<b>{plot_text(shortened([text], 44)[0])}</b>", "showarrow": False, "font": {"size": 13}}


def _frame() -> dict[str, Any]:
    # Coordinates of t-SNE have no unit and no meaning of their own.
    bare = {"showticklabels": False, "ticks": "", "showgrid": False, "zeroline": False, "title": {"text": ""}}
    return bare | {"showline": True, "mirror": True, "linecolor": "var(--line)"}


def _scene() -> dict[str, Any]:
    axis = {"showticklabels": False, "title": {"text": ""}, "showspikes": False, "zeroline": False}
    axis |= {"gridcolor": "var(--line)", "linecolor": "var(--line)", "showbackground": False}
    return {"xaxis": axis, "yaxis": axis, "zaxis": axis, "aspectmode": "cube", "dragmode": "orbit"}


def _with_run(runs: Sequence[Run], name: str) -> Iterator[pd.DataFrame]:
    for run in runs:
        frame = getattr(run.features, name)
        yield pd.concat([pd.DataFrame({"run": run.name}, index=frame.index), frame], axis=1)


def _separation(runs: Sequence[Run]) -> Picture:
    frame = pd.concat(_with_run(runs, "separation"), ignore_index=True)
    table = Table(frame.sort_values(["label", "measure"], kind="stable"))
    text = explain.separation(runs)
    tasks = {name: task for run in runs for name, task in run.tasks.items()}
    marks = run_marks([f"{run.name} {stage}" for run in runs for stage in STAGES])
    views = []
    for label in ("task", "dataset"):
        for measure, title in MEASURES.items():
            rows = table.rows(label=label, measure=measure)
            if not len(rows):
                continue
            series = []
            for number, run in enumerate(runs):
                for stage in STAGES:
                    part = rows & table.rows(run=run.name, stage=stage)
                    legend = f"{run.name}, {stage}" if len(runs) > 1 else STAGES[stage]
                    symbol = marks[f"{run.name} {stage}"][1].removesuffix("-open")
                    colour = f"var(--run-{number % 4 + 1})"
                    # Hollow before, filled after: what the connector did is the way from one to the other.
                    series.append(Series(legend, part, colour, f"{symbol}-open" if stage == "before" else symbol))
            form = _form(rows.frame, title, ("", "stage", ""), tasks)
            figure = points([one for one in series if len(one.chosen)], form)
            _chance(figure, rows, form, series)
            views.append(View((f"of {label}s", title), figure, text, table, rows.span))
    return Picture("separation", ("Groups", "Measure"), views)


def _form(frame: pd.DataFrame, title: str, about: tuple[str, str, str], tasks: Mapping[str, str]) -> Points:
    hover = [("", "name", ""), ("", "run", ""), about, (title, "value", ".4~f"), *interval_lines(frame)]
    hover += [("chance", "chance", ".3~f")] if "chance" in frame else []
    return Points(
        names=names_in(frame, "name", tasks),
        column="name",
        value="value",
        low="low",
        high="high",
        axis=title,
        hover=hover,
        reference=None,
        tasks=tasks,
        also=("chance",),
    )


def _chance(figure: Figure, rows: Chosen, form: Points, series: Sequence[Series]) -> None:
    """A tick on each line where chance alone would put the points."""
    if "chance" not in rows.frame:
        return
    first = next(one.chosen for one in series if len(one.chosen))
    figure["layout"] |= {"legend": above_legend(), "margin": {"t": 44, "r": 16, "b": 60, "l": 60}}
    places = {name: number for number, name in enumerate(form.names)}
    figure["data"].append(
        {
            "type": "scatter",
            "mode": "markers",
            "name": "by chance",
            "x": first.column("chance"),
            "y": [places[name] for name in first.frame["name"]],
            "marker": {"symbol": "line-ns-open", "size": 16, "color": "var(--muted)", "line": {"width": 2}},
            "hoverinfo": "x+name",
        }
    )


def _alignment(runs: Sequence[Run]) -> Picture:
    table = Table(pd.concat(_with_run(runs, "alignment"), ignore_index=True))
    tasks = {name: task for run in runs for name, task in run.tasks.items()}
    marks = run_marks([run.name for run in runs])
    series = [Series(run.name, table.rows(run=run.name), *marks[run.name]) for run in runs]
    form = _form(table.frame, "linear CKA of before and after", ("samples ", "samples", ""), tasks)
    return Picture("alignment", (), [View((), points(series, form), explain.alignment(runs), table)])


def _stability(runs: Sequence[Run]) -> Picture:
    frame = pd.concat(_with_run(runs, "stability"), ignore_index=True)
    pairs = [f"{run}: {STAGES.get(stage, stage)}" for run, stage in zip(frame["run"], frame["stage"], strict=True)]
    table = Table(frame.assign(name=pairs).sort_values(["dimensions", "measure"], kind="stable"))
    text = explain.stability(runs)
    views = []
    for dimensions in DIMENSIONS:
        for measure, title in STABILITY.items():
            rows = table.rows(dimensions=dimensions, measure=measure)
            if not len(rows):
                continue
            hover = [("", "name", ""), ("seed", "seed", "d"), ("and", "other_seed", "d"), (title, "value", ".4~f")]
            names = list(dict.fromkeys(rows.frame["name"]))
            hover.append(("chance", "chance", ".3~f"))
            form = Points(names, "name", "value", "", "", title, hover, reference=None, also=("chance",))
            series = [Series("one pair of seeds each" if measure == "neighbour_overlap" else "one seed each", rows)]
            figure = points(series, form)
            _chance(figure, rows, form, series)
            views.append(View((f"{dimensions}-D", title), figure, text, table, rows.span))
    return Picture("stability", ("Dimensions", "Measure"), views)
