"""Interference between gradients: maps and intervals of GD and GM, indexes, and both by group of blocks."""

from collections.abc import Iterable, Sequence

import pandas as pd

from figures.explaining import interference as explain
from figures.palette import GD_BOUND, order_by_task
from figures.report.chart import Figure, Picture, Table, View
from figures.report.plots.cells import Cells, map_and_rows, map_figure, map_view, mark_cells, row_view
from figures.report.plots.maps import Scale, beside
from figures.report.plots.marks import run_marks
from figures.report.plots.parts import Points, Series, in_order, interval_lines, names_in, points
from figures.tables.gradients import LEVELS, GradientTables, LevelTables

GD, GM = "GD (direction)", "GM (magnitude)"
BOTH = "GD and GM"
SCALES = {
    GD: Scale(f"GD, colours end at ±{GD_BOUND:g}", -GD_BOUND, GD_BOUND, diverging=True),
    GM: Scale("GM", 0.0, 1.0),
}
NORMALISED, PLAIN = "divided by the run's maximum", "as it is"


def pictures(runs: Sequence[GradientTables]) -> list[Picture]:
    """The pictures of interference."""
    levels = [(run, level) for run in runs for level in run.levels]
    if not levels:
        return []
    table = Table(_cells(levels))
    found = [_maps(levels, table), _intervals(levels, table), _indexes(runs)]
    return found + _breakdowns([(run, level) for run, level in levels if _has_blocks(run.levels[level])])


def _cells(levels: Iterable[tuple[GradientTables, str]]) -> pd.DataFrame:
    parts = []
    for run, level in levels:
        tables = run.levels[level]
        names = order_by_task(list(tables.gd.index), run.tasks)
        for measure, cells in ((GD, tables.gd_intervals), (GM, tables.gm_intervals)):
            ordered = in_order(cells, {"row": names, "column": names})
            parts.append(_about(ordered, run=run.name, level=level, measure=measure))
    return pd.concat(parts, ignore_index=True)


def _about(frame: pd.DataFrame, **about: str) -> pd.DataFrame:
    leading = pd.DataFrame(about, index=frame.index)
    return pd.concat([leading, frame], axis=1)


def _kind_of_cells(run: GradientTables, level: str, measure: str) -> Cells:
    tables = run.levels[level]
    names = order_by_task(list(tables.gd.index), run.tasks)
    return Cells(
        rows=names,
        columns=names,
        row_title="interfered with",
        column_title="interfering",
        measure=measure.split(" ")[0],
        scale=SCALES[measure],
        reference=0.0 if measure == GD else 1.0,
        tasks=run.tasks,
        marked=tables.sign_uncertain if measure == GD else (),
    )


def _maps(levels: Sequence[tuple[GradientTables, str]], table: Table) -> Picture:
    views = []
    for run, level in levels:
        text = explain.heatmap(run, level)
        here = table.rows(run=run.name, level=level)
        maps = {
            measure: map_figure(here & table.rows(measure=measure), _kind_of_cells(run, level, measure))
            for measure in (GD, GM)
        }
        for measure, figure in {BOTH: beside(maps[GD], maps[GM]), **maps}.items():
            views.append(View((run.name, level, measure), figure, text, table, here.span))
    return Picture("interference", ("Run", "Level", "Measure"), views)


def _intervals(levels: Sequence[tuple[GradientTables, str]], table: Table) -> Picture:
    views = []
    for run, level in levels:
        text = explain.intervals(run, level)
        for measure in (GD, GM):
            cells = _kind_of_cells(run, level, measure)
            chosen = table.rows(run=run.name, level=level, measure=measure)
            views += [row_view(chosen, cells, row, (run.name, level, measure, row), text) for row in cells.rows]
    # A row that is not to be trusted is a poor beginning.
    run, level = levels[0]
    doubtful = run.levels[level].sign_uncertain
    first = next((number for number, view in enumerate(views) if view.at[-1] not in doubtful), 0)
    return Picture("intervals", ("Run", "Level", "Measure", "Interfered with"), views, first=first)


def _indexes(runs: Sequence[GradientTables]) -> Picture:
    text = explain.indexes(runs)
    parts = []
    for level in LEVELS:
        for scale, stem in ((NORMALISED, "index_normalised"), (PLAIN, "index")):
            for run in [run for run in runs if level in run.levels]:
                table = run.levels[level].index
                names = order_by_task(list(table.index), run.tasks)
                # A task column repeats what the page says elsewhere.
                frame = table.loc[names].drop(columns="task", errors="ignore").rename_axis("name").reset_index()
                if stem in frame:
                    parts.append(_about(_measure(frame, stem), run=run.name, level=level, scale=scale))
    numbers = Table(pd.concat(parts, ignore_index=True))
    marks = run_marks([run.name for run in runs])
    views = []
    for level in LEVELS:
        for scale in (NORMALISED, PLAIN):
            whole = numbers.rows(level=level, scale=scale)
            if not len(whole):
                continue
            tasks = {name: task for run in runs for name, task in run.tasks.items()}
            series = [Series(run.name, whole & numbers.rows(run=run.name), *marks[run.name]) for run in runs]
            marked = {name for run in runs if level in run.levels for name in run.levels[level].sign_uncertain}
            figure = _index_points([one for one in series if len(one.chosen)], tasks, marked)
            views.append(View((level, scale), figure, text, numbers, whole.span))
    return Picture("indexes", ("Level", "Index"), views)


def _index_points(series: Sequence[Series], tasks: dict[str, str], marked: set[str]) -> Figure:
    frame = pd.concat([one.chosen.frame for one in series])
    normalised = frame["scale"].iloc[0] == NORMALISED
    hover = [("", "name", ""), ("run: ", "run", ""), ("index", "value", ".4~g"), *interval_lines(frame)]
    form = Points(
        names=names_in(frame, "name", tasks),
        column="name",
        value="value",
        low="low",
        high="high",
        axis="tug-of-war index / maximum of the run" if normalised else "tug-of-war index",
        hover=[*hover, ("batches", "batches", "d")],
        reference=0.0 if normalised else 1.0,
        bars=normalised,
        tasks=tasks,
        marked=marked,
    )
    return points(series, form)


def _measure(frame: pd.DataFrame, stem: str) -> pd.DataFrame:
    """name, batches and the columns of one measure under their common names."""
    ends = ("low", "high", "simultaneous_low", "simultaneous_high", "p_value")
    columns = {"name": "name", "batches": "batches", stem: "value"} | {f"{stem}_{end}": end for end in ends}
    return frame[[column for column in columns if column in frame]].rename(columns=columns)


def _has_blocks(tables: LevelTables) -> bool:
    return tables.index_blocks is not None and not tables.index_blocks.empty


def _breakdowns(levels: Sequence[tuple[GradientTables, str]]) -> list[Picture]:
    """Indexes by group of blocks, and GD and GM of each group; none where there are no groups."""
    if not levels:
        return []
    parts, cells = [], []
    for run, level in levels:
        tables = run.levels[level]
        names, blocks = order_by_task(list(tables.gd.index), run.tasks), _blocks(tables)
        assert tables.index_blocks is not None
        parts.append(_about(in_order(tables.index_blocks, {"block": blocks, "name": names}), run=run.name, level=level))
        for measure, table in ((GD, tables.gd_blocks), (GM, tables.gm_blocks)):
            if table is not None:
                ordered = in_order(table, {"block": blocks, "row": names, "column": names})
                cells.append(_about(ordered, run=run.name, level=level, measure=measure))
    found = [_index_by_block(levels, Table(pd.concat(parts, ignore_index=True)))]
    if cells:
        found.append(_cells_by_block(levels, Table(pd.concat(cells, ignore_index=True))))
    return found


def _blocks(tables: LevelTables) -> list[str]:
    assert tables.index_blocks is not None
    return list(dict.fromkeys(tables.index_blocks["block"]))


def _index_by_block(levels: Sequence[tuple[GradientTables, str]], table: Table) -> Picture:
    views = []
    for run, level in levels:
        chosen = table.rows(run=run.name, level=level)
        # Colours are centred at 1, the index of a dataset by itself.
        reach = max(1.0, min(float((chosen.frame["index"] - 1).abs().max()), 5.0))
        every = order_by_task(list(run.levels[level].gd.index), run.tasks)
        present = [name for name in every if name in set(chosen.frame["name"])]
        cells = Cells(
            rows=_blocks(run.levels[level]),
            columns=present,
            row_title="parameters",
            column_title=level,
            measure="index",
            scale=Scale(
                f"index on these parameters, colours end at 1 ± {reach:.3g} (†: sign uncertain)",
                1 - reach,
                1 + reach,
                True,
            ),
            row="block",
            column="name",
            value="index",
            reference=1.0,
            tasks=run.tasks,
        )
        here = map_and_rows(chosen, cells, (run.name, level), explain.breakdown(run, level))
        signs = chosen.frame[["block", "name", "sign_uncertain"]].itertuples(index=False, name=None)
        marks = {(block, name): "†" for block, name, doubtful in signs if doubtful}
        mark_cells(here[0].figure, marks, cells.rows, cells.columns)
        views += here
    return Picture("breakdown", ("Run", "Level", "Show"), views)


def _cells_by_block(levels: Sequence[tuple[GradientTables, str]], table: Table) -> Picture:
    views = []
    for run, level in levels:
        text = explain.breakdown(run, level)
        for block in _blocks(run.levels[level]):
            for measure in (GD, GM):
                chosen = table.rows(run=run.name, level=level, measure=measure, block=block)
                if len(chosen):
                    cells = _kind_of_cells(run, level, measure)
                    views += [map_view(chosen, cells, (run.name, level, block, measure), text)]
    return Picture("breakdown-cells", ("Run", "Level", "Parameters", "Measure"), views)
