"""Write the weights of a converted folder; open it as its users will, and accept it only if every tensor fits."""

from __future__ import annotations

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
    from unimed_model.pretrained import open_whole

    with transformers_in_silence():
        model = open_whole(kind, folder, "model", strict=True, local_files_only=True)
    found = sum(parameter.numel() for parameter in model.parameters())
    if parameters is not None and found != parameters:
        raise UserError(f"{folder.name} has {found:,} parameters, not {parameters:,}.")
    return model.eval()
