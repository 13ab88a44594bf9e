"""A picture of the page: a table, views of it chosen by pickers, and figures that point into the table.

Nothing drawn is a copy: a figure holds references to rows of a column, and the script looks them up. What is drawn,
what the table shows and what the CSV holds are therefore the same numbers. A reference is an object with one key that
starts with a dollar sign:

``{"$column": name, "rows": [start, stop]}`` or ``"rows": {"at": [row, ...]}``
    values of a column of the view's table; a row that is null is a hole.
``{"$grid": reference, "width": n}``
    the same, as rows of n values.
``{"$zip": [reference, ...]}`` (with ``width``: as rows of n)
    one list of values per row, for text on hover; names are made harmless for plotly.
``{"$ends": [low, high]}``
    low, high, gap, low, high, gap: the ends of intervals, to draw one line each.
``{"$image": name}``
    an image of the picture.
``{"$part": number}``
    a part that several figures of the page have in common.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from figures.explanation import Explanation
from figures.report.parts import Parts

Figure = dict[str, Any]
Rows = tuple[int, int]
HOLE = -1
ABSENT = -2


@dataclass(frozen=True, eq=False)
class View:
    """What one choice of all pickers shows.

    Attributes:
        at: chosen label of each picker.
        figure: data and layout in plotly's form, with references; ``narrow`` holds what differs on a phone.
        explanation: what stands beside it.
        table: the table drawn from.
        rows: those rows of it that the view is about, from start to before stop; None for all.
    """

    at: tuple[str, ...]
    figure: Figure
    explanation: Explanation
    table: "Table"
    rows: Rows | None = None


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture with its pickers.

    Attributes:
        name: of the picture in links and files, such as ``routing-weights``.
        pickers: what can be chosen; choices that differ in nothing are not shown.
        views: one per choice that there is, in the order of the pickers' choices.
        images: data URIs by name.
        notes: what the page itself has to say about it, such as what was left out for its size.
        first: number of the view that is shown first.
    """

    name: str
    pickers: tuple[str, ...]
    views: Sequence[View]
    images: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    first: int = 0


class Table:
    """A table of numbers and names, and references into it."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame.reset_index(drop=True)
        self._codes: dict[str, tuple[np.ndarray, dict[Any, int]]] = {}

    def rows(self, **where: Any) -> "Chosen":
        """The rows in which columns have the given values."""
        mask = np.ones(len(self.frame), dtype=bool)
        for column, value in where.items():
            codes, places = self._coded(column)
            mask &= codes == places.get(value, ABSENT)
        return Chosen(self, np.flatnonzero(mask))

    def _coded(self, column: str) -> tuple[np.ndarray, dict[Any, int]]:
        """A column as numbers, which are compared as often as there are views, and the number of each value."""
        if column not in self._codes:
            codes, distinct = pd.factorize(self.frame[column])
            self._codes[column] = codes, {value: code for code, value in enumerate(distinct.tolist())}
        return self._codes[column]

    def encoded(self) -> dict[str, Any]:
        """Columns as JSON has them: numbers as they are, names once with a code per row or per run of rows."""
        return {
            "columns": list(self.frame.columns),
            "length": len(self.frame),
            "values": [_encoded(self.frame[column]) for column in self.frame],
        }


class Chosen:
    """Some rows of a table."""

    def __init__(self, table: Table, positions: np.ndarray) -> None:
        self.table, self.positions = table, positions

    def __len__(self) -> int:
        return len(self.positions)

    def __and__(self, other: "Chosen") -> "Chosen":
        return Chosen(self.table, np.intersect1d(self.positions, other.positions, assume_unique=True))

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The rows themselves."""
        return self.table.frame.iloc[self.positions[self.positions != HOLE]]

    def arranged(self, rows: tuple[str, Sequence[str]], columns: tuple[str, Sequence[str]]) -> "Chosen":
        """These rows as a rectangle of cells, row by row; a cell that the table does not have is a hole.

        Args:
            rows: the column with the names of the rectangle's rows, and these names from the top.
            columns: likewise, from the left.
        """
        frame = self.frame
        here = dict(
            zip(
                zip(frame[rows[0]].astype(str), frame[columns[0]].astype(str), strict=True),
                self.positions.tolist(),
                strict=True,
            )
        )
        places = [here.get((row, column), HOLE) for row in rows[1] for column in columns[1]]
        return Chosen(self.table, np.array(places, dtype=int))

    @property
    def span(self) -> Rows:
        """From the first to after the last."""
        held = self.positions[self.positions != HOLE]
        return (int(held.min()), int(held.max()) + 1) if len(held) else (0, 0)

    def column(self, name: str) -> dict[str, Any]:
        """A reference to a column."""
        start, stop = self.span
        whole = np.array_equal(self.positions, np.arange(start, stop))
        places = [None if place == HOLE else int(place) for place in self.positions]
        return {"$column": name, "rows": [start, stop] if whole else {"at": places}}

    def grid(self, name: str, width: int) -> dict[str, Any]:
        """A reference to a column as a matrix of ``width`` columns."""
        return {"$grid": self.column(name), "width": width}

    def zipped(self, names: Iterable[str], width: int | None = None) -> dict[str, Any]:
        """References to columns, side by side."""
        parts = {"$zip": [self.column(name) for name in names]}
        return parts | ({"width": width} if width else {})

    def ends(self, low: str, high: str) -> dict[str, Any]:
        """References to both ends of intervals."""
        return {"$ends": [self.column(low), self.column(high)]}


def encoded_pictures(pictures: Sequence[Picture]) -> tuple[list[dict[str, Any]], list[Any], list[dict[str, Any]]]:
    """Pictures as the page holds them.

    Args:
        pictures: all of the page.

    Returns:
        The pictures; parts of figures, which they point at by ``{"$part": number}``; tables, by number. Equal texts are
        held once in a picture, equal parts and tables once in the page.
    """
    parts, tables, figures = Parts(), Shared(), Shared()
    encoded = [_encoded_picture(picture, parts, tables, figures) for picture in pictures]
    shown, common = parts.resolve(figures.content)
    for content, mine in encoded:
        content["figures"] = [shown[place] for place in mine]
    return [content for content, _ in encoded], common, tables.content


def _encoded_picture(
    picture: Picture, parts: Parts, tables: "Shared", figures: "Shared"
) -> tuple[dict[str, Any], list[int]]:
    """A picture, its figures still to be filled in, and their numbers among all."""
    mine, texts = Shared(), Shared()
    views = []
    for view in picture.views:
        place = figures.place(id(view.figure), lambda view=view: parts.add(view.figure))
        views.append(
            {
                "at": list(view.at),
                "figure": mine.place(place, place),
                "text": texts.place(view.explanation, _text(view.explanation)),
                "table": tables.place(id(view.table), view.table.encoded),
                "rows": list(view.rows or (0, len(view.table.frame))),
            }
        )
    content = {
        "name": picture.name,
        "pickers": list(picture.pickers),
        "views": views,
        "first": picture.first,
        "texts": texts.content,
        "images": dict(picture.images),
        "notes": list(picture.notes),
    }
    return content, mine.content


class Shared:
    """Things that are held once and pointed at by number."""

    def __init__(self) -> None:
        self.content: list[Any] = []
        self._places: dict[Any, int] = {}

    def place(self, key: Any, content: Any) -> int:
        """The number of a thing; a function is called when it is new."""
        if key not in self._places:
            self._places[key] = len(self.content)
            self.content.append(content() if callable(content) else content)
        return self._places[key]


def _text(explanation: Explanation) -> dict[str, Any]:
    return {
        "title": explanation.title,
        "reading": explanation.reading,
        "finding": explanation.finding,
        "caption": explanation.caption,
        "warnings": list(explanation.warnings),
    }


def _is_number(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def _encoded(column: pd.Series) -> Any:
    if pd.api.types.is_bool_dtype(column):
        return [_word(value) for value in column]
    codes, distinct = pd.factorize(column)
    values = distinct.tolist()
    # Names repeat; estimates hardly ever do. A gap has the code -1.
    if _is_number(column) and len(values) * 4 >= len(column):
        return column.tolist()
    named = {"distinct": [value if _is_number(column) else _word(value) for value in values]}
    starts = np.flatnonzero(np.diff(codes, prepend=-2))
    if len(starts) * 2 >= len(codes):
        return named | {"codes": codes.tolist()}
    lengths = np.diff(starts, append=len(codes))
    return named | {"runs": np.column_stack([codes[starts], lengths]).ravel().tolist()}


def _word(value: Any) -> str:
    return ("yes" if value else "no") if isinstance(value, bool | np.bool_) else str(value)
