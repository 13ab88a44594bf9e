"""How interference changes during training: indexes, GD and GM, routing, and the loss, over steps."""

from collections.abc import Sequence

import pandas as pd

from figures.explaining import dynamics as explain
from figures.palette import Mark, dataset_marks, order_by_task, series_marks, task_marks
from figures.report.chart import Picture, Table, View
from figures.report.plots.parts import Series, interval_lines, lines
from figures.tables.dynamics import DynamicsTables
from figures.tables.runs import Run

EVERY = "all together"
PLAIN = "as it is"
# Cells of every step in one page: about 60 bytes each.
MOST_ROWS = 60_000

Moving = Sequence[tuple[Run, DynamicsTables]]


def pictures(runs: Sequence[Run]) -> list[Picture]:
    """The pictures over steps; none where they were not measured."""
    moving = [(run, run.dynamics) for run in runs if run.dynamics is not None]
    found = [_index(moving)] if any(tables.index for _, tables in moving) else []
    found += [_cells(moving)] if any(tables.gd for _, tables in moving) else []
    routed = [(run, tables) for run, tables in moving if tables.routing is not None]
    found += [_routing(routed)] if routed else []
    lost = [(run, tables) for run, tables in moving if tables.loss is not None]
    return found + ([_loss(lost)] if lost else [])


def _marks(names: Sequence[str], tasks: dict[str, str]) -> dict[str, Mark]:
    return dataset_marks(names, tasks) if set(names) & set(tasks) else task_marks(names)


def _index(moving: Moving) -> Picture:
    parts = []
    for run, tables in moving:
        for level, frame in tables.index.items():
            for scale, stem in ((PLAIN, "index"), ("divided by the maximum of its step", "index_normalised")):
                if stem in frame:
                    bounds = {f"{stem}_{end}": end for end in ("low", "high")}
                    columns = {"step": "step", "name": "name", "batches": "batches", stem: "value"} | bounds
                    kept = [column for column in columns if column in frame]
                    about = pd.DataFrame({"run": run.name, "level": level, "index": scale}, index=frame.index)
                    # A step at which no index is positive has no maximum to divide by.
                    part = pd.concat([about, frame[kept].rename(columns=columns)], axis=1)
                    parts.append(part[pd.to_numeric(part["value"], errors="coerce").notna()])
    table = Table(pd.concat(parts, ignore_index=True).astype({"value": float}))
    views = []
    for run, tables in moving:
        for level in sorted(tables.index, key=("task", "dataset").index):
            text = explain.index(run, level)
            for scale in dict.fromkeys(table.frame["index"]):
                rows = table.rows(run=run.name, level=level, index=scale)
                if not len(rows):
                    continue
                names = order_by_task(list(dict.fromkeys(rows.frame["name"])), run.tasks)
                marks = _marks(names, run.tasks)
                hover = [("", "name", ""), ("step", "step", "d"), ("index", "value", ".4~g")]
                hover += interval_lines(rows.frame)
                bounded = "low" in rows.frame and bool(rows.frame["low"].notna().all())
                series = {
                    name: Series(name, rows & table.rows(name=name), marks[name].colour, marks[name].symbol)
                    for name in names
                }
                choices = {EVERY: list(series.values())} | {name: [one] for name, one in series.items()}
                for label, chosen in choices.items():
                    figure = lines(
                        chosen,
                        "step",
                        "value",
                        ("low", "high") if bounded else None,
                        ("step", "tug-of-war index"),
                        hover,
                        1.0 if scale == PLAIN else 0.0,
                    )
                    views.append(View((run.name, level, scale, label), figure, text, table, rows.span))
    return Picture("dynamics-index", ("Run", "Level", "Index", "Show"), views)


def _cells(moving: Moving) -> Picture:
    parts, left_out = [], []
    budget = MOST_ROWS
    for run, tables in moving:
        for measure, levels in (("GD", tables.gd), ("GM", tables.gm)):
            for level in sorted(levels, key=("task", "dataset").index):
                frame = levels[level]
                # One's own row is 1 at every step.
                other = frame[frame["row"] != frame["column"]]
                if len(other) > budget:
                    left_out.append(f"{measure} between {level}s of {run.name}")
                    continue
                budget -= len(other)
                about = pd.DataFrame({"run": run.name, "level": level, "measure": measure}, index=other.index)
                parts.append(pd.concat([about, other], axis=1))
    views: list[View] = []
    table = Table(pd.concat(parts, ignore_index=True)) if parts else Table(pd.DataFrame({"run": [], "level": []}))
    for run, tables in moving:
        for level in sorted(tables.gd, key=("task", "dataset").index):
            text = explain.gd(run, level)
            for measure in ("GD", "GM"):
                rows = table.rows(run=run.name, level=level, measure=measure)
                hover = [("interfered with: ", "row", ""), ("interfering: ", "column", ""), ("step", "step", "d")]
                hover += [(measure, "value", ".4~g"), *interval_lines(rows.frame)]
                for row in order_by_task(list(dict.fromkeys(rows.frame["row"])), run.tasks):
                    part = rows & table.rows(row=row)
                    others = order_by_task(list(dict.fromkeys(part.frame["column"])), run.tasks)
                    marks = _marks(others, run.tasks)
                    series = [
                        Series(name, part & table.rows(column=name), marks[name].colour, marks[name].symbol)
                        for name in others
                    ]
                    rule = 0.0 if measure == "GD" else 1.0
                    figure = lines(series, "step", "value", ("low", "high"), ("step", measure), hover, rule)
                    views.append(View((run.name, level, measure, row), figure, text, table, part.span))
    notes = (f"Too large for one page, hence in the tables of the run alone: {', '.join(left_out)}.",)
    return Picture(
        "dynamics-gd", ("Run", "Level", "Measure", "Interfered with"), views, notes=notes if left_out else ()
    )


def _routing(moving: Moving) -> Picture:
    parts = [
        pd.concat([pd.DataFrame({"run": run.name}, index=tables.routing.index), tables.routing], axis=1)
        for run, tables in moving
        if tables.routing is not None
    ]
    table = Table(pd.concat(parts, ignore_index=True).astype({"expert": str}))
    views = []
    for run, _ in moving:
        text, rows = explain.routing(run), table.rows(run=run.name)
        experts = sorted(set(rows.frame["expert"]), key=int)
        marks = series_marks(experts)
        hover = [("", "task", ""), ("expert ", "expert", ""), ("step", "step", "d"), ("weight", "weight", ".4~f")]
        for task in order_by_task(list(dict.fromkeys(rows.frame["task"])), {}):
            part = rows & table.rows(task=task)
            series = [
                Series(f"expert {one}", part & table.rows(expert=one), marks[one].colour, marks[one].symbol)
                for one in experts
            ]
            figure = lines(
                [one for one in series if len(one.chosen)],
                "step",
                "weight",
                None,
                ("step", "mean routing weight"),
                [*hover, ("stage ", "stage", "")],
            )
            views.append(View((run.name, task), figure, text, table, part.span))
    return Picture("dynamics-routing", ("Run", "Task"), views)


def _loss(moving: Moving) -> Picture:
    parts = [
        pd.concat([pd.DataFrame({"run": run.name}, index=tables.loss.index), tables.loss], axis=1)
        for run, tables in moving
        if tables.loss is not None
    ]
    table = Table(pd.concat(parts, ignore_index=True))
    views = []
    for run, _ in moving:
        text, rows = explain.loss(run), table.rows(run=run.name)
        names = order_by_task(list(dict.fromkeys(rows.frame["dataset"])), run.tasks)
        marks = _marks(names, run.tasks)
        series = {
            name: Series(name, rows & table.rows(dataset=name), marks[name].colour, marks[name].symbol)
            for name in names
        }
        hover = [("", "dataset", ""), ("step", "step", "d"), ("loss", "loss", ".4~g")]
        for label, chosen in ({EVERY: list(series.values())} | {name: [one] for name, one in series.items()}).items():
            figure = lines(chosen, "step", "loss", None, ("step", "mean loss"), hover)
            views.append(View((run.name, label), figure, text, table, rows.span))
    return Picture("dynamics-loss", ("Run", "Show"), views)
