"""``tugofwar figures``: every picture of what was measured."""

import os
from pathlib import Path
from typing import Annotated

import typer

from tugofwar.commands.words import print_json, split_names

# Each holds the tables and matplotlib, some 150 MB.
MOST_PROCESSES = 4


def figures(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Run folders with anything measured; CSV tables of `python -m analyses.ablation`.", metavar="RUN..."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")],
    only: Annotated[
        str | None,
        typer.Option(
            help="Kinds of pictures, separated by commas: interference, intervals, indexes, breakdown, scores, "
            "routing, tokens, features, separation, dynamics, difference, forest; all that there is material for by "
            "default.",
            show_default=False,
        ),
    ] = None,
    formats: Annotated[str, typer.Option("--format", help="Any of png, pdf, svg, separated by commas.")] = "png,pdf",
    look: Annotated[
        str, typer.Option("--style", help="paper (journal column and text width) or talk (larger letters, 16:9).")
    ] = "paper",
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress and no list of files.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The list of files as JSON.")] = False,
) -> None:
    """Draw what was measured, each picture with the table that it shows and a caption."""
    from figures.draw import draw

    processes = min(os.cpu_count() or 1, MOST_PROCESSES)
    kinds = None if only is None else split_names(only, "--only")
    written = draw(runs, out, split_names(formats, "--format"), kinds, look, not quiet, processes)
    if as_json:
        print_json({"folder": str(out), "files": [path.name for path in written]})
    elif not quiet:
        for path in written:
            typer.echo(path)
