"""Packages that only the conversion of weights needs, and that are therefore not installed by default."""

from importlib import import_module
from typing import Any

from unimed_model.errors import UserError


def extra(module: str, purpose: str) -> Any:
    """Return an imported module of the optional extra ``weights``.

    Raises:
        UserError: it is not installed; the sentence starts with the purpose and says what to install.
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise UserError(
            f"{purpose} needs the Python package {package}; install it with: pip install 'tugofwar[weights]'."
        ) from error
