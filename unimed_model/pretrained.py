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
        # sizes that do not match are reported below, in one sentence, with all else that does not fit
        model, report = kind.from_pretrained(folder, output_loading_info=True, ignore_mismatched_sizes=True, **options)
    except _EXPECTED as error:
        raise UserError(f"The {what} in {folder} cannot be opened: {_first_sentence(error)}") from error
    require_fit(report, f"The weights of the {what} in {folder} do not", may_lack=may_lack, may_hold_more=not strict)
    return model


def require_fit(
    report: dict[str, Any], which: str, may_lack: tuple[str, ...] = (), may_hold_more: bool = False
) -> None:
    """Raise a UserError if weights and configuration do not belong together.

    Args:
        report: what transformers' ``output_loading_info`` gives.
        which: begins the sentence; "fit its configuration" follows.
        may_lack: names of modules that need no weights.
        may_hold_more: let be what the configuration has no place for.
    """
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        keys = [str(key[0] if isinstance(key, tuple) else key) for key in report[problem]]
        if problem == "missing_keys":
            keys = [key for key in keys if not set(key.split(".")) & set(may_lack)]
        if keys and not (problem == "unexpected_keys" and may_hold_more):
            word = problem.partition("_")[0]
            raise UserError(f"{which} fit its configuration: {len(keys)} {word} tensors, the first {min(keys)}.")


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
