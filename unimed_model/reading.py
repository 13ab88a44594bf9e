"""JSON files of a run."""

import json
from pathlib import Path
from typing import Any

from .errors import UserError


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object that a file of a run holds.

    Raises:
        UserError: the file is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON; the run is damaged, train it again.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object; the run is damaged, train it again.")
    return content
