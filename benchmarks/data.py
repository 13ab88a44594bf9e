"""What reading and mixing data costs: the mixture, one worker from file to batch, opening what was prepared.

    python benchmarks/data.py                    a few minutes on two cores
    python benchmarks/data.py --quick            the script itself, in seconds
    python benchmarks/data.py --only mixture

Written to ``benchmarks/data.md`` (``--out`` names another place).
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from data_cost import index, mixture, pipeline
from data_cost.row import Row

SECTIONS: dict[str, Callable[[bool], list[Row]]] = {
    "mixture": mixture.measure,
    "pipeline": pipeline.measure,
    "index": index.measure,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the command line asks for."""
    options = _parse(arguments)
    rows = [row for section in options.only for row in SECTIONS[section](options.quick)]
    lines = [
        "# What reading and mixing data costs",
        "",
        "Made by `python benchmarks/data.py`: median over repeats (quartiles). What each section measures stands in",
        "`benchmarks/README.md`.",
        "",
        "| what | measured | goal | met |",
        "|---|---|---|---|",
        *(row.line() for row in rows),
    ]
    print("\n".join(lines))
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few repeats: to try the script, not to measure")
    parser.add_argument("--only", type=_sections, default=tuple(SECTIONS), help=f"some of {','.join(SECTIONS)}")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("data.md"), help="Markdown file to write")
    return parser.parse_args(arguments)


def _sections(text: str) -> tuple[str, ...]:
    sections = tuple(text.split(","))
    for section in sections:
        if section not in SECTIONS:
            raise argparse.ArgumentTypeError(f"{section!r} is none of {', '.join(SECTIONS)}")
    return sections


if __name__ == "__main__":
    main()
