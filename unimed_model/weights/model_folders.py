"""Write the weights of a converted folder; open it as its users will, and accept it only if every tensor fits."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unimed_model.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "model.safetensors"


def write_tensors(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as ``model.safetensors`` into a folder that holds its ``config.json`` already."""
    from safetensors.torch import save_file

    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, folder / WEIGHTS, metadata={"format": "pt"}
    )
    # safetensors lets nobody but the owner read the file, whatever the umask; weights are often shared.
    shutil.copymode(folder / "config.json", folder / WEIGHTS)


def open_strictly(kind: Any, folder: Path, parameters: int | None = None) -> Any:
    """Return the model that a folder holds, in evaluation mode.

    Args:
        kind: a transformers class with ``from_pretrained``.
        folder: configuration and safetensors.
        parameters: how many parameters the model must have, tied ones counted once.

    Raises:
        UserError: a tensor is missing, left over or of another shape, or the count differs.
    """
    from unimed_model.loading import transformers_in_silence

    with transformers_in_silence():
        model, report = kind.from_pretrained(
            folder, output_loading_info=True, ignore_mismatched_sizes=True, local_files_only=True
        )
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        keys = sorted(map(str, report[problem]))
        if keys:
            word = problem.partition("_")[0]
            raise UserError(f"{len(keys)} {word} tensors in the weights of {folder.name}, the first {keys[0]}.")
    found = sum(parameter.numel() for parameter in model.parameters())
    if parameters is not None and found != parameters:
        raise UserError(f"{folder.name} has {found:,} parameters, not {parameters:,}.")
    return model.eval()
