"""The command ``tugofwar``: measure interference in a checkpoint, draw it, look into a recording.

tugofwar gradients --ckpt runs/cmoe --data data --out runs/cmoe/gradients
tugofwar gradients --setup my_study.py:setup --params 'encoder.*' --out study/gradients --plan
torchrun --nproc-per-node 2 -m tugofwar.cli gradients --setup my_study.py:setup --out study/gradients
tugofwar figures runs/mlp runs/cmoe --out figures-out
tugofwar inspect runs/cmoe/gradients
"""

from typing import Annotated

import typer

from tugofwar import terminal
from tugofwar.commands.compare import compare
from tugofwar.commands.dynamics import dynamics
from tugofwar.commands.features import features
from tugofwar.commands.gradients import gradients
from tugofwar.commands.inspect import inspect
from tugofwar.commands.pictures import figures
from tugofwar.commands.report import report
from tugofwar.commands.routing import routing
from tugofwar.errors import UserError

app = typer.Typer(
    help="See and measure how tasks fight over shared parameters.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Entry point of the console script."""
    from figures.errors import UserError as FigureError
    from unimed_model.errors import UserError as ModelError

    terminal.run(app, (UserError, FigureError, ModelError))


def _print_version(wanted: bool) -> None:
    if wanted:
        import tugofwar

        typer.echo(f"tugofwar {tugofwar.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


for command in (gradients, features, routing, dynamics, compare, figures, report, inspect):
    app.command()(command)


if __name__ == "__main__":
    main()
