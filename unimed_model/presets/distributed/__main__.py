"""Print where a configuration is: ``python -m unimed_model.presets.distributed ddp``."""

from typing import Annotated

import typer

from tugofwar import terminal
from unimed_model.errors import UserError
from unimed_model.presets.distributed import config_names, config_path

app = typer.Typer(pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]})


@app.command()
def path(name: Annotated[str, typer.Argument(help=f"One of {', '.join(config_names())}.")]) -> None:
    """Print the path of a configuration for accelerate launch --config_file."""
    typer.echo(str(config_path(name)))


if __name__ == "__main__":
    terminal.run(app, (UserError,))
