"""What commands share: lists separated by commas, and results as JSON."""

import json
from collections.abc import Mapping
from typing import Any

import typer

from tugofwar.errors import UserError


def split_names(text: str, option: str) -> list[str]:
    """The names in an option's value; a UserError that names the option when there is none."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UserError(f"{option} is empty; give at least one name, or leave the option out.")
    return names


def print_json(content: Mapping[str, Any]) -> None:
    """Print strict JSON to stdout."""
    typer.echo(json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False))
