"""Pretrained parts are opened whole or not at all: no tensor is left to chance."""

from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig

from .errors import UserError


def open_whole(
    kind: Any, folder: Path | str, what: str, may_lack: tuple[str, ...] = (), strict: bool = False, **options: Any
) -> Any:
    """Return a transformers model with the weights of a folder.

    Args:
        kind: transformers class, or Auto class.
        folder: of the model.
        what: of what it is, for messages.
        may_lack: names of modules that need no weights.
        strict: refuse tensors that the configuration has no place for.
        **options: of ``from_pretrained``.

    Raises:
        UserError: files that are damaged, of other sizes, or leave a tensor without a value; tensors without a place.
    """
    try:
        model, report = kind.from_pretrained(folder, output_loading_info=True, **options)
    except _EXPECTED as error:
        raise UserError(f"The {what} in {folder} cannot be opened: {_first_sentence(error)}") from error
    missing = sorted(name for name in map(str, report["missing_keys"]) if not set(name.split(".")) & set(may_lack))
    if missing:
        raise UserError(
            f"The weights of the {what} in {folder} leave {len(missing)} tensors without a value, the first "
            f"{missing[0]}."
        )
    unexpected = sorted(map(str, report["unexpected_keys"]))
    if unexpected and strict:
        raise UserError(
            f"The weights of the {what} in {folder} hold {len(unexpected)} tensors that its configuration has no place "
            f"for, the first {unexpected[0]}."
        )
    return model


def open_config(folder: Path, what: str) -> Any:
    """Return the transformers configuration of a folder.

    Raises:
        UserError: it is damaged, or of a model that transformers does not know.
    """
    try:
        return AutoConfig.from_pretrained(folder)
    except _EXPECTED as error:
        raise UserError(f"The {what} in {folder} cannot be opened: {_first_sentence(error)}") from error


# damaged files, sizes that do not fit, and configurations that contradict themselves
_EXPECTED = (SafetensorError, StrictDataclassError, OSError, ValueError, RuntimeError)


def _first_sentence(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) < 300 else f"{text[:300]}…"
