"""What commands share: lists separated by commas, results as JSON, and the traceback of a user's own code."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import typer

from tugofwar.errors import UserError
from tugofwar.launch import is_first


def split_names(text: str, option: str) -> list[str]:
    """The names in an option's value; a UserError that names the option when there is none."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UserError(f"{option} is empty; give at least one name, or leave the option out.")
    return names


def print_json(content: Mapping[str, Any]) -> None:
    """Print strict JSON to stdout."""
    typer.echo(json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False))


@contextmanager
def their_traceback() -> Iterator[None]:
    """What the user has to mend is in their code, so they see where, without our frames around it."""
    from tugofwar.own_setup import SetupFailed

    try:
        yield
    except SetupFailed as failure:
        if is_first():
            typer.echo(failure.report, err=True, nl=False)
        raise
