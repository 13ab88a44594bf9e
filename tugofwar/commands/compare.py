"""``tugofwar compare``: are two runs different, and what changed surely?"""

from pathlib import Path
from typing import Annotated

import typer

from tugofwar import options, terminal
from tugofwar.commands.words import print_json

RunA = Annotated[
    Path,
    typer.Argument(
        metavar="RUN_A", help="A run with gradients/, a folder that `tugofwar gradients` wrote, or its folder adam."
    ),
]
RunB = Annotated[Path, typer.Argument(metavar="RUN_B", help="Another; differences are B minus A.")]
Out = Annotated[Path | None, typer.Option(help="Output folder; default RUN_B/difference/<name of RUN_A>.")]
Paired = Annotated[
    bool,
    typer.Option(
        "--paired",
        help="Both were probed with the same batches, although their recordings do not say so (set-ups of your own).",
    ),
]


def compare(
    run_a: RunA,
    run_b: RunB,
    out: Out = None,
    paired: Paired = False,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Say what differs between two runs in GD, GM and tug-of-war indexes, and how surely.

    Both need recordings with equally many batches of the same size.
    """
    from analyses.difference import summary, write_difference
    from tugofwar.differences.text import difference_text

    with terminal.plain_warnings("tugofwar"):
        content = summary(write_difference(run_a, run_b, out, paired or None, quiet=quiet))
    if as_json:
        print_json(content)
    else:
        typer.echo(difference_text(content))
