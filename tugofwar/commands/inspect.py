"""``tugofwar inspect``: what a recording holds."""

from pathlib import Path
from typing import Annotated

import typer

from tugofwar import options
from tugofwar.commands.words import print_json
from tugofwar.report_text import inspection_text


def inspect(
    recording: Annotated[Path, typer.Argument(help="Folder of a recording, or a run that has one.")],
    as_json: options.AsJson = False,
) -> None:
    """Say what a recording holds, how it was kept and why, and the index by every estimator."""
    from tugofwar.inspection import inspection
    from tugofwar.recording import Recording

    nested = recording / "gradients"
    inner = not (recording / "manifest.json").exists() and nested.is_dir()
    content = inspection(Recording.load(nested if inner else recording))
    if as_json:
        print_json(content)
    else:
        typer.echo(inspection_text(content))
