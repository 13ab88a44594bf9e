"""Tables 3 and 6: models side by side, from evaluation folders or prediction files, ours or anyone's.

python -m analyses.comparison table --layout 3 uni-med=runs/a,runs/b,runs/c llava-med=predictions.jsonl
"""

from pathlib import Path
from typing import Annotated

import typer

from tugofwar import terminal
from tugofwar.errors import UserError
from unimed_model import errors

app = typer.Typer(
    help="The paper's comparison of models, Tables 3 and 6.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _several_commands() -> None:
    """Keep `table` a command of its own."""


@app.command()
def table(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME=WHERE…",
            help="A model and its run folder, evaluation folder or prediction file; several seeds with commas.",
        ),
    ],
    layout: Annotated[str, typer.Option(help="3 (VQA, RG, CLS) or 6 (REC, REG).")] = "3",
    form: Annotated[str, typer.Option("--format", help="markdown, csv or latex.")] = "markdown",
    flavour: Annotated[
        str, typer.Option(help="How answers are scored: paper (the equations of Appendix D) or released (the scripts).")
    ] = "paper",
    with_paper: Annotated[
        bool, typer.Option("--with-paper", help="Show the paper's published numbers beside them.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="File to write; default stdout.")] = None,
) -> None:
    """Print every metric of every dataset with a column per model, the best and the second best marked."""
    from analyses.comparison_table import table_text
    from analyses.printing import deliver

    deliver(table_text(models, layout, form, flavour, with_paper), out)


def main() -> None:
    """Entry point of ``python -m analyses.comparison``."""
    terminal.run(app, (UserError, errors.UserError))


if __name__ == "__main__":
    main()
