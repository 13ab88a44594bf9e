"""What a LoRA-MoE adapter is on disk: its settings, and a folder of two files."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, ValidationInfo, field_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from .closed import Closed, validated
from .errors import UserError
from .folders import replacing

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ADAPTER_TYPE = "lora_moe"


class LoraMoESettings(Closed):
    """What a LoRA-MoE is made of. No field has a default: a file that lacks one is damaged."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    rank: int = Field(ge=1, description="r, the rank of each expert")
    alpha: float = Field(gt=0, description="the experts' sum is scaled by alpha / r")
    num_experts: int = Field(ge=1, description="N, LoRA experts per linear layer")
    top_k: int = Field(ge=1, description="k, experts per token")
    dropout: float = Field(ge=0, lt=1, description="probability that an input of the experts is dropped in training")

    @field_validator("top_k")
    @classmethod
    def _no_more_than_there_are(cls, top_k: int, others: ValidationInfo) -> int:
        if top_k > others.data.get("num_experts", top_k):
            raise ValueError(f"top_k must not exceed num_experts, which is {others.data['num_experts']}")
        return top_k


def write_adapter(folder: Path, settings: LoraMoESettings, tensors: Mapping[str, Tensor]) -> None:
    """Write an adapter's folder, whole or not at all; an adapter that stood there is replaced.

    Raises:
        UserError: the folder's place is taken by a file, or by a folder that holds anything but an adapter.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; an adapter is written as a folder.")
    if folder.is_dir():
        strange = sorted(path.name for path in folder.iterdir() if path.name not in (CONFIG, WEIGHTS))
        if strange:
            raise UserError(f"{folder} holds {strange[0]}, which would be lost; give the adapter a folder of its own.")
    with replacing(folder) as partial:
        text = json.dumps({"adapter_type": ADAPTER_TYPE, **settings.model_dump()}, indent=2)
        (partial / CONFIG).write_text(text + "\n", encoding="utf-8")
        save_file(dict(tensors), partial / WEIGHTS, metadata={"format": "pt"})


def read_adapter(folder: Path) -> tuple[LoraMoESettings, dict[str, Tensor]]:
    """Return an adapter's settings and its tensors, on the CPU and in the precision that they were saved in.

    Raises:
        UserError: the folder or one of its files is missing, damaged, or of another kind of adapter.
    """
    if not folder.is_dir():
        raise UserError(f"There is no adapter folder {folder}.")
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise UserError(f"{folder} holds no {name}, so it is not a LoRA-MoE adapter.")
    settings = _read_settings(folder / CONFIG)
    try:
        tensors = load_file(folder / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{folder / WEIGHTS} is damaged ({' '.join(str(error).split())}); save it again.") from error
    return settings, tensors


def _read_settings(path: Path) -> LoraMoESettings:
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON; save the adapter again.") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no JSON object; save the adapter again.")
    kind = values.pop("adapter_type", values.get("peft_type"))
    if kind != ADAPTER_TYPE:
        raise UserError(f"{path} describes an adapter of type {kind!r}, not {ADAPTER_TYPE!r}.")
    return validated(LoraMoESettings, values, str(path))
