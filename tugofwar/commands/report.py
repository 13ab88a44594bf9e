"""``tugofwar report``: everything that was measured of runs, in one page that opens without a network."""

from pathlib import Path
from typing import Annotated

import typer

from tugofwar import options
from tugofwar.sizes import format_bytes


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Run folders, and CSV tables of `python -m analyses.ablation table`.", metavar="RUN..."),
    ],
    out: Annotated[Path, typer.Option(help="The page, such as report.html.")],
    quiet: options.Quiet = False,
) -> None:
    """Write one interactive HTML page with every picture, table and warning of measured runs."""
    from tqdm import tqdm

    from figures.report.page import report as write

    with tqdm(total=4, disable=quiet, bar_format="{desc} |{bar}| {n_fmt}/{total_fmt}", leave=False) as bar:

        def told(text: str) -> None:
            bar.set_description(text)
            bar.update()

        path = write(runs, out, told)
    typer.echo(f"{path} ({format_bytes(path.stat().st_size)})")
