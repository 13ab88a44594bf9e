"""``tugofwar figures``: every picture of measured runs."""

from pathlib import Path
from typing import Annotated

import typer

from tugofwar.commands.words import split_names


def figures(
    runs: Annotated[list[Path], typer.Argument(help="Run folders with measured gradients.", metavar="RUN...")],
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")],
    formats: Annotated[str, typer.Option("--format", help="png, pdf or both, separated by commas.")] = "png,pdf",
) -> None:
    """Draw heat maps of every run and the tug-of-war indexes of all of them side by side."""
    from figures.draw import draw

    for path in draw(runs, out, split_names(formats, "--format")):
        typer.echo(path)
