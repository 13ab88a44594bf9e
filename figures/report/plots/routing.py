"""How routers divide the work: weights, entropies, information, divergence, and experts switched off."""

from collections.abc import Sequence

import pandas as pd

from figures.explaining import routing as explain
from figures.report.chart import Chosen, Picture, Table, View
from figures.report.plots.cells import Cells, map_and_rows
from figures.report.plots.maps import Scale
from figures.report.plots.marks import run_marks
from figures.report.plots.parts import Points, Series, interval_lines, names_in, points
from figures.tables.routing import RoutingTables
from figures.tables.runs import Run

LEVELS = ("task", "dataset", "all")
ENTROPIES = {
    "utilisation_entropy": "utilisation entropy",
    "token_entropy": "per-token entropy",
}
INFORMATION = "mutual information"
_WHERE = ("Run", "Router", "Level")


def pictures(runs: Sequence[Run]) -> list[Picture]:
    """The pictures of routing weights; none where no run has a router."""
    routed = [(run, run.routing) for run in runs if run.routing is not None]
    if not routed:
        return []
    found = [_weights(routed), _measures(routed)]
    divergent = [(run, routing) for run, routing in routed if routing.divergence is not None]
    switched = [(run, routing) for run, routing in routed if routing.switched_off is not None]
    found += [_divergence(divergent)] if divergent else []
    return found + ([_switched_off(switched)] if switched else [])


Routed = Sequence[tuple[Run, RoutingTables]]


def _weights(routed: Routed) -> Picture:
    parts = []
    for run, routing in routed:
        for measure, frame, column in (("mean weight", routing.weights, "weight"), ("load", routing.load, "load")):
            kept = ["checkpoint", "router", "level", "name", "expert", column, "low", "high"]
            kept += ["dead"] if column == "load" else ["samples", "tokens"]
            named = frame[[name for name in kept if name in frame]].rename(columns={column: "value"})
            parts.append(_about(named, run, routing, measure=measure))
    order = ["run", "router", "level", "measure", "checkpoint"]
    table = Table(_experts(pd.concat(parts, ignore_index=True)).sort_values(order, kind="stable"))
    views = []
    for run, routing in routed:
        for router in routing.routers:
            texts = {"mean weight": explain.weights(run, router), "load": explain.load(run, router)}
            here = table.rows(run=run.name, router=router)
            for level in _levels(here.frame):
                for measure in ("mean weight", "load"):
                    for label in stages(routing):
                        chosen = here & table.rows(level=level, checkpoint=label, measure=measure)
                        if not len(chosen):
                            continue
                        names = names_in(chosen.frame, "name", routing.tasks)
                        experts = _numbers(chosen.frame["expert"])
                        title = "mean routing weight" if measure == "mean weight" else "share of tokens"
                        top = max(0.01, float(chosen.frame["value"].max()))
                        cells = Cells(
                            rows=names,
                            columns=experts,
                            row_title=level if level != "all" else "",
                            column_title="expert",
                            measure=measure,
                            scale=Scale(title, 0.0, top),
                            row="name",
                            column="expert",
                            reference=1 / len(experts),
                            tasks=routing.tasks,
                        )
                        at = (run.name, router, level, measure, label)
                        views += map_and_rows(chosen, cells, at, texts[measure])
    return Picture("routing", (*_WHERE, "Measure", "Checkpoint", "Show"), views)


def _measures(routed: Routed) -> Picture:
    entropies = pd.concat([_about(routing.measures, run, routing) for run, routing in routed], ignore_index=True)
    information = [
        _about(routing.information, run, routing, measure=INFORMATION)
        for run, routing in routed
        if routing.information is not None
    ]
    entropy_table = Table(entropies.sort_values(["run", "router", "measure", "level"], kind="stable"))
    information_table = Table(pd.concat(information, ignore_index=True)) if information else None
    views = []
    for run, routing in routed:
        for router in routing.routers:
            text = explain.measures(run, router)
            for measure, title in ENTROPIES.items():
                here = entropy_table.rows(run=run.name, router=router, measure=measure)
                for level in _levels(here.frame):
                    rows = here & entropy_table.rows(level=level)
                    series = _by_checkpoint(entropy_table, rows, routing)
                    hover = [("", "name", ""), ("", "checkpoint", ""), (title, "value", ".4~f")]
                    form = Points(
                        names=names_in(rows.frame, "name", routing.tasks),
                        column="name",
                        value="value",
                        low="low",
                        high="high",
                        axis=f"{title} (1: all experts alike)",
                        hover=[*hover, *interval_lines(rows.frame)],
                        reference=1.0,
                        tasks=routing.tasks,
                    )
                    views.append(
                        View((run.name, router, title, level), points(series, form), text, entropy_table, rows.span)
                    )
            if information_table is not None:
                views += _information(run, router, routing, information_table)
    return Picture("routing-measures", ("Run", "Router", "Measure", "Level"), views)


def _information(run: Run, router: str, routing: RoutingTables, table: Table) -> list[View]:
    rows = table.rows(run=run.name, router=router)
    if not len(rows):
        return []
    hover = [("expert and ", "level", ""), ("", "checkpoint", ""), ("bits", "value", ".4~g")]
    hover += [*interval_lines(rows.frame), ("95 % point if labels said nothing", "null_high", ".4~g")]
    form = Points(
        names=_levels(rows.frame),
        column="level",
        value="value",
        low="low",
        high="high",
        axis="mutual information in bits (open marks: 95 % point under shuffled labels)",
        hover=[*hover, ("p", "p_value", ".3~g")],
        reference=0.0,
        also=("null_high",),
    )
    series = _by_checkpoint(table, rows, routing)
    figure = points(series, form)
    step = 0.64 / len(series)
    for number, one in enumerate(series):
        shift = (number - (len(series) - 1) / 2) * step
        at = [round(form.names.index(level) + shift, 4) for level in one.chosen.frame["level"]]
        mark = {"color": one.colour, "symbol": "line-ns-open", "size": 14, "line": {"width": 2}}
        null = {"type": "scatter", "mode": "markers", "x": one.chosen.column("null_high"), "y": at, "marker": mark}
        figure["data"].append(null | {"legendgroup": str(number), "showlegend": False, "hoverinfo": "x"})
    text = explain.information(run, router)
    return [View((run.name, router, INFORMATION, "task and dataset"), figure, text, table, rows.span)]


def _divergence(routed: Routed) -> Picture:
    parts = [_about(routing.divergence, run, routing) for run, routing in routed if routing.divergence is not None]
    order = ["run", "router", "level", "checkpoint"]
    table = Table(pd.concat(parts, ignore_index=True).sort_values(order, kind="stable"))
    views = []
    for run, routing in routed:
        for router in routing.routers:
            text = explain.divergence(run, router)
            here = table.rows(run=run.name, router=router)
            top = max(1e-3, float(here.frame["value"].max())) if len(here) else 1.0
            for level in _levels(here.frame):
                for label in stages(routing):
                    chosen = here & table.rows(level=level, checkpoint=label)
                    names = names_in(chosen.frame, "row", routing.tasks)
                    if not names:
                        continue
                    scale = Scale("Jensen-Shannon divergence in bits", 0.0, top)
                    cells = Cells(
                        names, names, level, f"other {level}", "divergence", scale, reference=0.0, tasks=routing.tasks
                    )
                    views += map_and_rows(chosen, cells, (run.name, router, level, label), text)
    return Picture("routing-divergence", (*_WHERE, "Checkpoint", "Show"), views)


def _switched_off(routed: Routed) -> Picture:
    parts = [_about(routing.switched_off, run, routing) for run, routing in routed if routing.switched_off is not None]
    order = ["run", "router", "level", "checkpoint"]
    table = Table(_experts(pd.concat(parts, ignore_index=True)).sort_values(order, kind="stable"))
    views = []
    for run, routing in routed:
        for router in routing.routers:
            text = explain.switched_off(run, router)
            here = table.rows(run=run.name, router=router)
            top = max(1e-3, float(here.frame["change"].abs().max())) if len(here) else 1.0
            for level in _levels(here.frame):
                for label in stages(routing):
                    chosen = here & table.rows(level=level, checkpoint=label)
                    if not len(chosen):
                        continue
                    cells = Cells(
                        rows=names_in(chosen.frame, "name", routing.tasks),
                        columns=_numbers(chosen.frame["expert"]),
                        row_title=level if level != "all" else "",
                        column_title="expert switched off",
                        measure="change of the loss",
                        scale=Scale("loss gained without the expert", -top, top, diverging=True, harm_above=True),
                        row="name",
                        column="expert",
                        value="change",
                        reference=0.0,
                        tasks=routing.tasks,
                    )
                    views += map_and_rows(chosen, cells, (run.name, router, level, label), text)
    return Picture("switched-off", (*_WHERE, "Checkpoint", "Show"), views)


def _about(frame: pd.DataFrame | None, run: Run, routing: RoutingTables, **about: str) -> pd.DataFrame:
    """A table with the run in front and checkpoints under the names that pictures give them."""
    assert frame is not None
    labelled = frame.assign(checkpoint=frame["checkpoint"].map(stage_labels(routing)))
    leading = pd.DataFrame({"run": run.name, **about}, index=frame.index)
    return pd.concat([leading, labelled.drop(columns=list(about), errors="ignore")], axis=1)


def stage_labels(routing: RoutingTables) -> dict[str, str]:
    """What each checkpoint is called; its own name too where two would be called alike."""
    labels = routing.labels
    doubled = len(set(labels.values())) < len(labels)
    return {name: f"{label} ({name})" if doubled and label != name else label for name, label in labels.items()}


def stages(routing: RoutingTables) -> list[str]:
    """Labels of the checkpoints, the last of training first: it is what most readers came for."""
    entries = list(enumerate(routing.manifest["checkpoints"]))
    # In the order of training, whatever order they were measured in; the order of the manifest where steps are unknown.
    known = all(isinstance(entry.get("step"), int | float) for _, entry in entries)
    ordered = sorted(entries, key=lambda pair: (pair[1]["step"], pair[0]) if known else (0, pair[0]))
    return [stage_labels(routing)[entry["name"]] for _, entry in reversed(ordered)]


def _levels(frame: pd.DataFrame) -> list[str]:
    return [level for level in LEVELS if level in set(frame["level"])]


def _experts(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(expert=frame["expert"].astype(str))


def _numbers(experts: pd.Series) -> list[str]:
    return sorted(set(experts), key=int)


def _by_checkpoint(table: Table, rows: Chosen, routing: RoutingTables) -> list[Series]:
    marks = run_marks(list(reversed(stages(routing))))
    found = [Series(label, rows & table.rows(checkpoint=label), *marks[label]) for label in reversed(stages(routing))]
    return [one for one in found if len(one.chosen)]
