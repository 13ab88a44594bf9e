"""Tables of cells (row, column, value, low, high) as a map and, row by row, as points with intervals."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from figures.explanation import Explanation
from figures.report.chart import Chosen, Figure, View
from figures.report.plots.maps import Scale, heat_map
from figures.report.plots.parts import INK, Points, Series, both_ticks, interval_lines, points

MAP = "Map"


@dataclass(frozen=True, eq=False)
class Cells:
    """What cells are.

    Attributes:
        rows: names of the rows, from the top.
        columns: names of the columns, from the left.
        row_title: what rows are.
        column_title: what columns are.
        measure: what values are.
        scale: colours.
        row: column of the table with the names of rows.
        column: of columns.
        value: of values.
        reference: where nothing happens.
        tasks: task of each name.
        marked: names to beware of.
    """

    rows: Sequence[str]
    columns: Sequence[str]
    row_title: str
    column_title: str
    measure: str
    scale: Scale
    row: str = "row"
    column: str = "column"
    value: str = "value"
    reference: float | None = None
    tasks: Mapping[str, str] = field(default_factory=dict)
    marked: Collection[str] = ()


def map_view(chosen: Chosen, cells: Cells, at: tuple[str, ...], explanation: Explanation) -> View:
    """All cells as colours."""
    return View(at, map_figure(chosen, cells), explanation, chosen.table, chosen.span)


def map_figure(chosen: Chosen, cells: Cells) -> Figure:
    """All cells as colours; those that the table does not have are holes."""
    chosen = chosen.arranged((cells.row, cells.rows), (cells.column, cells.columns))
    hover = [(f"{cells.row_title}: ", cells.row, ""), (f"{cells.column_title}: ", cells.column, "")]
    hover += [(cells.measure, cells.value, ".4~g"), *interval_lines(chosen.frame)]
    return heat_map(
        chosen,
        cells.value,
        cells.scale,
        (cells.row_title, *both_ticks(cells.rows, cells.tasks, cells.marked)),
        (cells.column_title, *both_ticks(cells.columns, cells.tasks)),
        hover,
    )


def mark_cells(
    figure: Figure, marks: Mapping[tuple[str, str], str], rows: Sequence[str], columns: Sequence[str]
) -> None:
    """A sign in front of the numbers of some cells, by row and column; where numbers have no room it stands alone."""
    figure["data"][0]["text"] = [[marks.get((row, column), "") for column in columns] for row in rows]
    for look in (figure["data"][0], figure["narrow"]["data"][0]):
        look["texttemplate"] = "%{text}" + look["texttemplate"]


def row_view(chosen: Chosen, cells: Cells, row: str, at: tuple[str, ...], explanation: Explanation) -> View:
    """The cells of one row as points with intervals."""
    part = chosen.table.rows(**{cells.row: row}) & chosen
    outer = "simultaneous_low" in part.frame and bool(part.frame["simultaneous_low"].notna().all())
    hover = [(f"{cells.column_title}: ", cells.column, ""), (cells.measure, cells.value, ".4~g")]
    form = Points(
        names=cells.columns,
        column=cells.column,
        value=cells.value,
        low="low",
        high="high",
        outer=outer,
        axis=cells.measure,
        hover=[*hover, *interval_lines(part.frame)],
        reference=cells.reference,
        tasks=cells.tasks,
    )
    return View(at, points([Series(cells.measure, part, INK)], form), explanation, chosen.table, part.span)


def map_and_rows(chosen: Chosen, cells: Cells, at: tuple[str, ...], explanation: Explanation) -> list[View]:
    """The map, then each row with its intervals: a picker at the end chooses."""
    present = set(chosen.frame[cells.row])
    return [map_view(chosen, cells, (*at, MAP), explanation)] + [
        row_view(chosen, cells, row, (*at, f"Intervals of {row}"), explanation) for row in cells.rows if row in present
    ]
