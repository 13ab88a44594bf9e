"""A finished table as text: Markdown, LaTeX (booktabs), or tidy CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tugofwar.errors import UserError
from unimed_model.closed import nearest

FORMATS = ("markdown", "csv", "latex")
ABSENT = "-"


@dataclass(frozen=True)
class Cell:
    """Text of a cell, and whether it is the best or second best of its kind."""

    text: str
    mark: Literal["best", "second"] | None = None


@dataclass(frozen=True)
class Grid:
    """A table as it is read.

    Attributes:
        title: what stands above it.
        headings: of the columns.
        rows: cells; a plain text is a cell without mark.
        notes: what stands below it, a sentence or two each.
        rules: rows, by number, above which a new group begins.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    notes: Sequence[str] = ()
    rules: Sequence[int] = ()


def printed(form: str, grid: Grid, records: Sequence[Mapping[str, Any]]) -> str:
    """Return a table in a format: the grid, or for CSV its numbers, one per line.

    Raises:
        UserError: an unknown format; the nearest is named.
    """
    require_format(form)
    if form == "csv":
        return tidy(records)
    return markdown(grid) if form == "markdown" else latex(grid)


def require_format(form: str) -> None:
    """Raise a UserError, with the nearest name, unless a format is known."""
    if form not in FORMATS:
        raise UserError(
            f"There is no format {form!r}; the nearest is {nearest(form, FORMATS)!r} (all: {', '.join(FORMATS)})."
        )


def tidy(records: Sequence[Mapping[str, Any]]) -> str:
    """Return records with the same keys as CSV, without a line break at the end; None is an empty field."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return file.getvalue().rstrip("\n")


def markdown(grid: Grid) -> str:
    """Return a Markdown table; the best cells are bold, the second best underlined."""
    marks = {"best": "**{}**", "second": "<u>{}</u>", None: "{}"}
    rows = [
        [marks[cell.mark].format(_one_line(cell.text).replace("|", r"\|")) for cell in map(_cell, row)]
        for row in [grid.headings, *grid.rows]
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(grid.headings))]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    notes = "\n".join(f"- {note}" for note in grid.notes)
    return "\n".join([f"**{grid.title}**", "", *lines, *(["", notes] if notes else [])])


def latex(grid: Grid) -> str:
    """Return a LaTeX table for the package booktabs; the best cells are bold, the second best underlined."""
    marks = {"best": r"\textbf{{{}}}", "second": r"\underline{{{}}}", None: "{}"}

    def line(row: Sequence[Cell | str]) -> str:
        return "  " + " & ".join(marks[cell.mark].format(escaped(cell.text)) for cell in map(_cell, row)) + r" \\"

    body = []
    for number, row in enumerate(grid.rows):
        if number in grid.rules:
            body.append(r"  \midrule")
        body.append(line(row))
    notes = [rf"  {{\footnotesize {escaped(note)}\par}}" for note in grid.notes]
    return "\n".join(
        [
            "% needs: \\usepackage{booktabs}",
            r"\begin{table}",
            rf"  \caption{{{escaped(grid.title)}}}",
            rf"  \begin{{tabular}}{{{'l' * len(grid.headings)}}}",
            r"  \toprule",
            line(grid.headings),
            r"  \midrule",
            *body,
            r"  \bottomrule",
            r"  \end{tabular}",
            *notes,
            r"\end{table}",
        ]
    )


_LATEX = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "Δ": r"$\Delta$",
    "α": r"$\alpha$",
    "✓": r"$\surd$",
    "|": r"\textbar{}",
    "<": r"$<$",
    ">": r"$>$",
    # a row that begins with a bracket would be read as an argument of the line break before it
    "[": "{[}",
    "]": "{]}",
}


def escaped(text: str) -> str:
    """Return a text as LaTeX has to be given it."""
    return "".join(_LATEX.get(character, character) for character in text)


def _one_line(text: str) -> str:
    """A text on one line, which a line break in a name would end with its row."""
    return " ".join(text.splitlines())


def _cell(cell: Cell | str) -> Cell:
    return Cell(cell) if isinstance(cell, str) else cell


def deliver(text: str, out: Path | None) -> None:
    """Print a text, or write it to a file, which appears whole or not at all.

    Raises:
        UserError: the file's folder does not exist.
    """
    if out is None:
        print(text)
        return
    if not out.parent.is_dir():
        raise UserError(f"The folder {out.parent} of --out does not exist.")
    partial = out.with_name(f"{out.name}.partial")
    partial.write_text(text + "\n", encoding="utf-8")
    partial.rename(out)
