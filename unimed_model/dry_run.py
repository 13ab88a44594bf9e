"""What a run would take: parameters and memory by part, counted on the meta device, without any weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .building import config_without_files
from .language import is_adapter
from .modeling import UniMedForConditionalGeneration
from .schedule import learning_rates
from .settings import RunSettings

TEXT_TOKENS = 64
"""Tokens of instruction and answer that the memory of activations is counted for, beside the visual tokens."""

_ADAM_BYTES = 8  # two moments in float32
_QUANTISED_BYTES = {"8bit": 1.0, "4bit": 0.5 + 4 / 64}  # 4 bit: a float32 scale for every 64 values


@dataclass(frozen=True)
class Part:
    """One part of the model.

    Attributes:
        name: of the part.
        trainable: number of parameters that are trained.
        frozen: number of parameters that are not.
        weights: bytes of its weights.
        gradients: bytes of its gradients.
        optimizer: bytes of AdamW's moments.
    """

    name: str
    trainable: int
    frozen: int
    weights: int
    gradients: int
    optimizer: int


@dataclass(frozen=True)
class DryRun:
    """What a run would take.

    Attributes:
        parts: the model's parts.
        activations: bytes that one batch keeps for the backward pass.
        batch_size: samples of that batch, each with an image.
        samples: of a step, which has one batch or, accumulated, several.
        sequence: tokens of each sample, visual ones included.
        steps: optimiser steps.
        learning_rates: step -> learning rate, at some steps.
        datasets: names; None for all that the data root offers.
        profile: the prompt's.
    """

    parts: tuple[Part, ...]
    activations: int
    batch_size: int
    samples: int
    sequence: int
    steps: int
    learning_rates: dict[int, float]
    datasets: tuple[str, ...] | None
    profile: str

    @property
    def trainable(self) -> int:
        """Number of parameters that are trained."""
        return sum(part.trainable for part in self.parts)

    @property
    def frozen(self) -> int:
        """Number of parameters that are not trained."""
        return sum(part.frozen for part in self.parts)

    @property
    def memory(self) -> int:
        """Bytes of weights, gradients, moments and one batch's activations."""
        return self.activations + sum(part.weights + part.gradients + part.optimizer for part in self.parts)


def dry_run(settings: RunSettings) -> DryRun:
    """Count what a run would take.

    Raises:
        UserError: a pretrained part whose architecture the settings do not give.
    """
    config = config_without_files(settings)
    with torch.device("meta"):
        model = UniMedForConditionalGeneration(config).train()
    training = settings.training
    marks = sorted({0, training.warmup_steps // 2, training.warmup_steps, training.steps // 2, training.steps})
    return DryRun(
        parts=tuple(_parts(model, settings)),
        activations=_activation_bytes(model, training.batch_size),
        batch_size=training.batch_size,
        samples=training.batch_size * training.gradient_accumulation,
        sequence=config.image_tokens + TEXT_TOKENS,
        steps=training.steps,
        learning_rates=dict(zip(marks, learning_rates(training, marks), strict=True)),
        datasets=settings.data.datasets,
        profile=settings.prompt.profile,
    )


def _parts(model: UniMedForConditionalGeneration, settings: RunSettings) -> Iterator[Part]:
    grouped: dict[str, list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in model.named_parameters():
        grouped.setdefault(_part_of(name), []).append((name, parameter))
    quantised = _QUANTISED_BYTES.get(settings.llm.quantisation or "")
    linears = {id(module.weight) for module in model.language_model.modules() if isinstance(module, nn.Linear)}
    linears.discard(id(model.get_output_embeddings().weight))
    for part, members in grouped.items():
        trainable = sum(p.numel() for _, p in members if p.requires_grad)
        weights = sum(
            p.numel() * (quantised if quantised and id(p) in linears and not is_adapter(name) else p.itemsize)
            for name, p in members
        )
        gradients = sum(p.nbytes for _, p in members if p.requires_grad)
        total = sum(p.numel() for _, p in members)
        yield Part(part, trainable, total - trainable, round(weights), gradients, trainable * _ADAM_BYTES)


def _part_of(name: str) -> str:
    first, second, *_ = name.split(".")
    if first == "vision_model":
        return "vision encoder"
    if first == "connector":
        return f"connector.{second}"
    if not is_adapter(name):
        return "LLM"
    return "LoRA-MoE routers" if "lora_router" in name else "LoRA"


def _activation_bytes(model: UniMedForConditionalGeneration, batch_size: int) -> int:
    """Bytes that a forward pass keeps for the backward pass, weights not counted, attention as plain products.

    A fused attention kernel keeps less.
    """
    config: Any = model.config
    visual, side = config.image_tokens, config.encoder_use.image_size
    ids = torch.ones(batch_size, visual + TEXT_TOKENS, dtype=torch.long, device="meta")
    with _kept_bytes(model) as kept:
        model(
            input_ids=ids,
            labels=ids,
            pixel_values=torch.zeros(batch_size, 3, side, side, device="meta"),
            task_ids=torch.zeros(batch_size, dtype=torch.long, device="meta"),
        )
    return sum(kept.values())


@contextmanager
def _kept_bytes(model: nn.Module) -> Iterator[dict[int, int]]:
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept: dict[int, int] = {}
    alive: list[Tensor] = []  # so that no storage's number is given to another one

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield kept
