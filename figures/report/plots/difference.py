"""What differs between two runs, and which of it surely: maps, indexes, scores."""

from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from figures.explaining import difference as explain
from figures.palette import order_by_task
from figures.report.chart import Picture, Table, View
from figures.report.plots.cells import Cells, map_and_rows, mark_cells
from figures.report.plots.maps import Scale
from figures.report.plots.parts import INK, Points, Series, interval_lines, names_in, points
from figures.tables.difference import DifferenceTables
from figures.tables.gradients import LEVELS

SURE = {"higher": "▲ ", "lower": "▼ "}
SCALES = {"index": "tug-of-war index", "index_normalised": "index / maximum of the run"}


def pictures(differences: Sequence[DifferenceTables], tasks: Mapping[str, str]) -> list[Picture]:
    """The pictures of differences; none where runs were not compared."""
    makers: list[tuple[Callable[..., Picture], str]] = [(_maps, "gd"), (_indexes, "index"), (_scores, "scores")]
    return [
        make([found for found in differences if getattr(found, table)], tasks)
        for make, table in makers
        if any(getattr(found, table) for found in differences)
    ]


def _pair(tables: DifferenceTables) -> str:
    return f"{tables.b} − {tables.a}"


def _about(frame: pd.DataFrame, tables: DifferenceTables, level: str, **more: str) -> pd.DataFrame:
    about = {"pair": _pair(tables), "level": level, **more}
    return pd.concat([pd.DataFrame(about, index=frame.index), frame], axis=1)


def _maps(differences: Sequence[DifferenceTables], tasks: Mapping[str, str]) -> Picture:
    found = [
        _about(frame, tables, level, measure=measure)
        for tables in differences
        for measure, levels in (("GD", tables.gd), ("GM", tables.gm))
        for level, frame in levels.items()
    ]
    table = Table(pd.concat(found, ignore_index=True))
    views = []
    for tables in differences:
        for level in tables.gd:
            text = explain.maps(tables, level)
            for measure in ("GD", "GM"):
                chosen = table.rows(pair=_pair(tables), level=level, measure=measure)
                if not len(chosen):
                    continue
                names = names_in(chosen.frame, "row", tasks)
                title = f"difference of {measure}"
                cells = Cells(
                    rows=names,
                    columns=names,
                    row_title="interfered with",
                    column_title="interfering",
                    measure=title,
                    scale=Scale(f"{title}, colours end at ±1 (▲ ▼: sure)", -1.0, 1.0, diverging=True),
                    value="difference",
                    reference=0.0,
                    tasks=tasks,
                )
                here = map_and_rows(chosen, cells, (_pair(tables), level, measure), text)
                cells_of = chosen.frame[["row", "column", "verdict"]].itertuples(index=False, name=None)
                # An arrow in front of what changed surely; its colour alone would not say so.
                marks = {(row, column): SURE.get(verdict, "") for row, column, verdict in cells_of}
                mark_cells(here[0].figure, marks, names, names)
                views += here
    return Picture("difference", ("Runs", "Level", "Measure", "Show"), views)


def _indexes(differences: Sequence[DifferenceTables], tasks: Mapping[str, str]) -> Picture:
    found = [_about(frame, tables, level) for tables in differences for level, frame in tables.index.items()]
    table = Table(pd.concat(found, ignore_index=True))
    views = []
    for tables in differences:
        for level in tables.index:
            text = explain.indexes(tables, level)
            for measure, title in SCALES.items():
                rows = table.rows(pair=_pair(tables), level=level, measure=measure)
                if not len(rows):
                    continue
                hover = [("", "name", ""), ("difference", "difference", ".4~g"), *interval_lines(rows.frame)]
                hover += [(f"{plain} ", column, ".4~g") for plain, column in (("a:", "a"), ("b:", "b"))]
                form = Points(
                    names=order_by_task(list(dict.fromkeys(rows.frame["name"])), tasks),
                    column="name",
                    value="difference",
                    low="low",
                    high="high",
                    outer="simultaneous_low" in rows.frame and bool(rows.frame["simultaneous_low"].notna().all()),
                    axis=f"difference of {title} (filled: sure)",
                    hover=[*hover, ("", "verdict", "")],
                    tasks=tasks,
                )
                symbols = ["circle" if verdict in SURE else "circle-open" for verdict in rows.frame["verdict"]]
                figure = points([Series("difference", rows, INK, symbols)], form)
                views.append(View((_pair(tables), level, title), figure, text, table, rows.span))
    return Picture("difference-indexes", ("Runs", "Level", "Index"), views)


def _scores(differences: Sequence[DifferenceTables], _: Mapping[str, str]) -> Picture:
    found = [
        _about(frame, tables, level).assign(
            tenth=[
                f"{low:.1f} to {high:.1f}"
                for low, high in zip(frame["interval_low"], frame["interval_high"], strict=True)
            ]
        )
        for tables in differences
        for level, frame in tables.scores.items()
    ]
    table = Table(pd.concat(found, ignore_index=True))
    views = []
    for tables in differences:
        for level in [level for level in LEVELS if level in tables.scores]:
            rows = table.rows(pair=_pair(tables), level=level)
            hover = [("score ", "tenth", ""), ("difference", "difference", ".4~f"), *interval_lines(rows.frame)]
            form = Points(
                names=list(rows.frame["tenth"])[::-1],
                column="tenth",
                value="difference",
                low="low",
                high="high",
                axis="difference of the share of parameters, by tenth of the statistics score",
                hover=[*hover, ("a", "a", ".4~f"), ("b", "b", ".4~f")],
            )
            figure = points([Series("difference", rows)], form)
            views.append(View((_pair(tables), level), figure, explain.scores(tables, level), table, rows.span))
    return Picture("difference-scores", ("Runs", "Level"), views)
