"""Checkpoints that hold what was trained, and refer to frozen pretrained bases by name and digest."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from .bases import Base, same_base
from .configuration import UniMedConfig
from .errors import UserError
from .language import is_adapter, load_pretrained
from .pretrained import open_config, open_whole
from .vision import POOLERS, encoder_class

WEIGHTS = "model.safetensors"
_PREFIX = {"vision": "vision_model.", "llm": "language_model."}


def required_bases(config: UniMedConfig) -> dict[str, Base]:
    """Return the pretrained bases that are frozen, so that a checkpoint need not hold them: vision and llm."""
    frozen = {"vision": not config.encoder_use.trainable, "llm": not config.language_use.trainable}
    return {part: Base(**base) for part, base in (config.bases or {}).items() if frozen[part]}


def trained_state(state: dict[str, Tensor], config: UniMedConfig) -> dict[str, Tensor]:
    """Return the part of a state dict that is not in the frozen bases."""
    prefixes = tuple(_PREFIX[part] for part in required_bases(config))
    return {name: tensor for name, tensor in state.items() if not name.startswith(prefixes) or is_adapter(name)}


def open_bases(config: UniMedConfig, weights: Path | None = None) -> dict[str, Any]:
    """Return the frozen bases with their weights, as arguments of the model.

    Raises:
        UserError: a base that is not found, or not the one that the model was trained on.
    """
    opened: dict[str, Any] = {}
    required = required_bases(config)
    if "vision" in required:
        opened["vision_model"] = open_encoder(same_base(required["vision"], weights))
    if "llm" in required:
        opened["language_model"] = load_pretrained(str(same_base(required["llm"], weights)), config.language_use)
    return opened


def open_encoder(folder: Path) -> nn.Module:
    """Return a pretrained vision encoder from its folder.

    Raises:
        UserError: weights that are damaged, or leave some of the encoder without a value.
    """
    kind = encoder_class(open_config(folder, "vision encoder"))
    model = open_whole(kind, folder, "vision encoder", may_lack=POOLERS, dtype=torch.float32)
    return getattr(model, "vision_model", model)


def load_trained(model: nn.Module, folder: Path) -> None:
    """Load what a checkpoint holds beside its bases into a model, strictly.

    Raises:
        UserError: weights that are missing, damaged, or of another configuration; names the first tensor.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        raise UserError(f"{folder} holds no {WEIGHTS}.")
    try:
        found = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    wanted = _written_once(trained_state(model.state_dict(), model.config), found)  # type: ignore[arg-type]
    _require_fit(path, found, wanted)
    require_finite(path, found)
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(found[name])


def _written_once(state: dict[str, Tensor], found: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict without the names that are not in the file because it has their tensor under another one (tied)."""
    places = {state[name].data_ptr() for name in found.keys() & state.keys()}
    return {name: tensor for name, tensor in state.items() if name in found or tensor.data_ptr() not in places}


def require_finite(path: Path, tensors: dict[str, Tensor]) -> None:
    """Raise a UserError that names the first tensor with a value that is no finite number."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise UserError(f"{path}: {name} holds values that are no finite numbers.")


def _require_fit(path: Path, found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    problems = {
        "missing": sorted(wanted.keys() - found.keys()),
        "unexpected": sorted(found.keys() - wanted.keys()),
        "mismatched": sorted(name for name in wanted.keys() & found.keys() if wanted[name].shape != found[name].shape),
    }
    for word, names in problems.items():
        if names:
            raise UserError(
                f"The weights in {path} do not fit the configuration beside them: {len(names)} {word} tensors, the "
                f"first {names[0]}."
            )
