"""The command line of benchmarks whose sections return rows of one table."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from data_cost.row import Row

Section = Callable[[bool], list[Row]]


def write_table(script: Path, title: str, sections: Mapping[str, Section], arguments: Sequence[str] | None) -> None:
    """Measure the sections that the command line asks for, print their table and write it beside the script.

    Args:
        script: of the benchmark.
        title: of the table.
        sections: name -> function from ``quick`` to rows.
        arguments: of the command line; None: the process's own.
    """
    options = _parse(script, sections, arguments)
    rows = [row for section in options.only for row in sections[section](options.quick)]
    lines = [
        f"# {title}",
        "",
        f"Made by `python benchmarks/{script.name}`: median over repeats (quartiles). What each section measures",
        "stands in `benchmarks/README.md`.",
        "",
        "| what | measured | goal | met |",
        "|---|---|---|---|",
        *(row.line() for row in rows),
    ]
    print("\n".join(lines))
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _parse(script: Path, sections: Mapping[str, Section], arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=f"Measure {', '.join(sections)}.")
    parser.add_argument("--quick", action="store_true", help="few repeats: to try the script, not to measure")
    parser.add_argument(
        "--only", type=partial(_names, sections), default=tuple(sections), help=f"some of {','.join(sections)}"
    )
    parser.add_argument("--out", type=Path, default=script.with_suffix(".md"), help="Markdown file to write")
    return parser.parse_args(arguments)


def _names(sections: Mapping[str, Section], text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if name not in sections:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(sections)}")
    return names
