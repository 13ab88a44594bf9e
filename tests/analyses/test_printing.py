import csv
import io
import re

import pytest

from analyses.printing import Cell, Grid, deliver, escaped, latex, markdown, printed
from tugofwar.errors import UserError

GRID = Grid(
    "A & B_1 (50 %)",
    ["Arm", "Δ"],
    [["x_1", Cell("1.0% ± 0.2", "best")], ["[low | high]", Cell("-")], ["y", Cell("0.5", "second")]],
    ["50 % of #1 costs $3"],
    [1],
)


def test_markdown_has_as_many_columns_in_every_line_and_marks_the_best():
    lines = markdown(GRID).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {3}
    assert "**1.0% ± 0.2**" in table[2]
    assert "<u>0.5</u>" in table[4]
    assert lines[-1] == "- 50 % of #1 costs $3"


def test_latex_escapes_everything_that_means_something_to_it():
    text = latex(GRID)
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    # outside of commands and maths, no special character is left bare
    assert not re.search(r"(?<!\\)[%#]", body)
    assert not re.search(r"(?<!\\)_", body)
    assert len(re.findall(r"(?<!\\)&", body)) == 4
    assert body.count("{") - body.count(r"\{") == body.count("}") - body.count(r"\}")
    assert body.count(r"\begin") == body.count(r"\end") == 2
    assert r"\textbf{1.0\% $\pm$ 0.2}" in body
    assert r"\underline{0.5}" in body
    assert all(rule in body for rule in (r"\toprule", r"\bottomrule"))
    assert body.count(r"\midrule") == 2
    assert body.isascii()


def test_a_backslash_is_escaped_once():
    assert escaped("a\\b_c") == r"a\textbackslash{}b\_c"


def test_a_bar_is_no_dash_and_a_line_break_ends_no_row():
    assert escaped("a|b") == r"a\textbar{}b"
    assert [line for line in markdown(Grid("T", ["A"], [["x\ny|z"]])).splitlines() if "y" in line] == [r"| x y\|z |"]


def test_csv_reads_back_as_it_was_written():
    records = [{"arm": 'a, "b"', "value": 1.5, "low": None}, {"arm": "c", "value": None, "low": 2}]
    rows = list(csv.DictReader(io.StringIO(printed("csv", GRID, records))))
    assert rows == [{"arm": 'a, "b"', "value": "1.5", "low": ""}, {"arm": "c", "value": "", "low": "2"}]


def test_an_unknown_format_names_the_nearest():
    with pytest.raises(UserError, match="the nearest is 'latex'"):
        printed("latx", GRID, [])


def test_a_text_is_printed_or_written(tmp_path, capsys):
    deliver("table", None)
    assert capsys.readouterr().out == "table\n"
    deliver("table", tmp_path / "table.md")
    assert (tmp_path / "table.md").read_text() == "table\n"
    assert [path.name for path in tmp_path.iterdir()] == ["table.md"]
    with pytest.raises(UserError, match="does not exist"):
        deliver("table", tmp_path / "no" / "table.md")
