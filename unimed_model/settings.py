"""Every setting of a run, typed and closed; presets are YAML files and ``a.b=c`` overrides them.

This module imports neither torch nor transformers, so that a misspelt key is reported at once.
"""

from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, model_validator

from .closed import Closed, nearest, validated
from .errors import UserError


class VisionSettings(Closed):
    """A ViT trained from scratch on square images."""

    image_size: int = Field(224, ge=1, description="pixels of a side that images are resized to")
    patch_size: int = Field(14, ge=1, description="pixels of a side of a patch")
    width: int = Field(ge=1, description="hidden size")
    layers: int = Field(ge=1)
    heads: int = Field(ge=1)
    feedforward: int = Field(ge=1, description="hidden size of the feed-forward layers")
    initial_scale: float = Field(0.02, gt=0, description="standard deviation of initial weights")

    @model_validator(mode="after")
    def _whole_patches(self) -> "VisionSettings":
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")
        if self.width % (4 * self.heads):
            raise ValueError(f"width {self.width} is not a multiple of 4 times heads ({self.heads})")
        return self


class ResamplerSettings(Closed):
    """Fewer, wider visual tokens before the connector (eq. 7)."""

    kind: Literal["projection"] = "projection"
    rate: int = Field(4, ge=1, description="alpha, visual tokens concatenated into one")


class ConnectorSettings(Closed):
    """What a connector is made of; the names are those of the paper's Table 2."""

    kind: Literal["linear", "mlp", "cmoe"] = "cmoe"
    layers: int = Field(2, ge=1, description="linear layers of the MLP, or of each expert")
    num_experts: int = Field(5, ge=1, description="N, the number of projection experts (cmoe)")
    router: Literal["soft"] = Field("soft", description="how experts are weighted (cmoe)")
    strategy: Literal["token", "task", "token_task"] = Field("token_task", description="what the router reads (cmoe)")
    normalisation: Literal["sigmoid", "softmax"] = Field(
        "sigmoid", description="eq. 14 (as released): sigmoid over its sum; eq. 8 as printed: softmax (cmoe)"
    )
    router_hidden: int | None = Field(
        None,
        ge=1,
        description="width of the router's hidden layer; null: 4 times its input, as released (cmoe)",
    )


class LanguageSettings(Closed):
    """A LLaMA trained from scratch."""

    width: int = Field(ge=1, description="hidden size")
    layers: int = Field(ge=1)
    heads: int = Field(ge=1)
    feedforward: int = Field(ge=1, description="hidden size of the feed-forward layers")
    context: int = Field(1024, ge=1, description="longest sequence in tokens")
    initial_scale: float = Field(0.02, gt=0, description="standard deviation of initial weights")


class TokenizerSettings(Closed):
    """A byte-level BPE tokenizer trained on the run's own corpus."""

    vocabulary: int = Field(600, ge=260, description="largest number of tokens; 256 bytes and 4 special ones included")


class DataSettings(Closed):
    """Which datasets are trained on."""

    datasets: tuple[str, ...] | None = Field(None, description="names; null: all that the data root offers")


class TrainingSettings(Closed):
    """How long, how fast, and with which optimiser (AdamW, linear warm-up, cosine decay to a floor)."""

    steps: int = Field(ge=1, description="optimiser steps")
    batch_size: int = Field(4, ge=1, description="samples per step, all of one dataset")
    peak_learning_rate: float = Field(gt=0)
    floor_learning_rate: float = Field(ge=0)
    warmup_steps: int = Field(ge=0)
    weight_decay: float = Field(0.05, ge=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.95, ge=0, lt=1)
    gradient_clip: float | None = Field(None, gt=0, description="largest gradient norm; null: no clipping")


class RunSettings(Closed):
    """The resolved whole of a run."""

    seed: int = Field(0, ge=0)
    vision: VisionSettings
    resampler: ResamplerSettings = ResamplerSettings()
    connector: ConnectorSettings = ConnectorSettings()
    llm: LanguageSettings
    tokenizer: TokenizerSettings = TokenizerSettings()
    data: DataSettings = DataSettings()
    training: TrainingSettings

    @model_validator(mode="after")
    def _whole_tokens(self) -> "RunSettings":
        patches = (self.vision.image_size // self.vision.patch_size) ** 2
        if patches % self.resampler.rate:
            raise ValueError(f"{patches} patches cannot be concatenated {self.resampler.rate} at a time")
        return self


def preset_names() -> list[str]:
    """Return the names of the presets that ship with the package."""
    return sorted(
        Path(entry.name).stem
        for entry in files(__package__).joinpath("presets").iterdir()
        if entry.name.endswith(".yaml")
    )


def resolve(preset: str, overrides: Iterable[str] = ()) -> RunSettings:
    """Return a preset with ``a.b=c`` overrides applied.

    Args:
        preset: name of a shipped preset, or path of a YAML file.
        overrides: assignments whose right side is read as YAML.

    Raises:
        UserError: an unknown preset or key (the nearest valid one is named), or a bad value.
    """
    values, where = _preset_values(preset)
    for override in overrides:
        _assign(values, override)
    return validated(RunSettings, values, where)


def _preset_values(preset: str) -> tuple[dict[str, Any], str]:
    if preset.endswith((".yaml", ".yml")):
        path = Path(preset)
        if not path.is_file():
            raise UserError(f"The preset file {preset} does not exist.")
        text, where = path.read_text(encoding="utf-8"), preset
    elif preset in preset_names():
        text, where = (
            files(__package__).joinpath(f"presets/{preset}.yaml").read_text(encoding="utf-8"),
            f"Preset {preset}",
        )
    else:
        names = preset_names()
        raise UserError(
            f"There is no preset {preset!r}; the nearest is {nearest(preset, names)!r} (all: {', '.join(names)}; "
            "or the path of a .yaml file)."
        )
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{where} is not valid YAML ({' '.join(str(error).split())}).") from error
    if not isinstance(values, dict):
        raise UserError(f"{where} must hold sections such as vision, connector and training.")
    return values, where


def _assign(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise UserError(f"--set takes key=value, such as connector.kind=mlp, not {override!r}.")
    *sections, last = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise UserError(f"--set {override}: {section!r} is a value, not a section.")
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"--set {override}: the value is not valid YAML.") from error
