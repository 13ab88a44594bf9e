"""The model and the batches that every method is measured on."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from gradient_cost.scale import ROUTER, SAMPLES, Scale

Batch = dict[str, Tensor]
_VOCABULARY = 2000
_WEIGHTS_SEED = 0


class Expert(nn.Module):
    """Two linear layers, ``(samples, tokens, inputs)`` to ``(samples, tokens, width)``."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(inputs, width)
        self.down = nn.Linear(width, width)

    def forward(self, features: Tensor) -> Tensor:
        """Project visual features."""
        projected: Tensor = self.down(functional.gelu(self.up(features)))
        return projected


class Connector(nn.Module):
    """A soft mixture of experts over visual tokens."""

    def __init__(self, scale: Scale) -> None:
        super().__init__()
        self.experts = nn.ModuleList(Expert(scale.inputs, scale.width) for _ in range(scale.experts))
        self.router = nn.Sequential(nn.Linear(scale.inputs, ROUTER), nn.GELU(), nn.Linear(ROUTER, scale.experts))

    def forward(self, features: Tensor) -> Tensor:
        """Weighted sum of the experts, ``(samples, tokens, width)``."""
        weights = self.router(features).softmax(-1)
        outputs = torch.stack([expert(features) for expert in self.experts], dim=-1)
        return (outputs * weights.unsqueeze(-2)).sum(-1)


class VisionLanguageModel(nn.Module):
    """Visual features through a connector into a frozen, randomly initialised Llama."""

    def __init__(self, scale: Scale) -> None:
        super().__init__()
        self.connector = Connector(scale)
        config = LlamaConfig(
            hidden_size=scale.width,
            intermediate_size=scale.width * 8 // 3,
            num_hidden_layers=scale.layers,
            num_attention_heads=scale.heads,
            vocab_size=_VOCABULARY,
            max_position_embeddings=scale.visual + scale.text,
        )
        self.llm = LlamaForCausalLM(config).requires_grad_(False)

    def forward(self, features: Tensor, text: Tensor) -> Any:
        """Language modelling loss of ``(samples, text)`` tokens after ``(samples, visual, inputs)`` features."""
        seen = self.connector(features)
        embedded = torch.cat([seen, self.llm.model.embed_tokens(text)], dim=1)
        labels = torch.cat([text.new_full(seen.shape[:2], -100), text], dim=1)
        return self.llm(inputs_embeds=embedded, labels=labels)


def build(scale: Scale) -> VisionLanguageModel:
    """The model in evaluation mode, the same whenever it is built."""
    torch.manual_seed(_WEIGHTS_SEED)
    return VisionLanguageModel(scale).eval()


def parameters_of(model: VisionLanguageModel) -> list[nn.Parameter]:
    """The parameters whose gradients are measured."""
    return list(model.connector.parameters())


def make_batch(scale: Scale, number: int) -> Batch:
    """Batch ``number`` of all: features ``(samples, visual, inputs)`` and token ids ``(samples, text)``."""
    generator = torch.Generator().manual_seed(number)
    return {
        "features": torch.randn(SAMPLES, scale.visual, scale.inputs, generator=generator),
        "text": torch.randint(_VOCABULARY, (SAMPLES, scale.text), generator=generator),
    }


def mean_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Mean loss of a batch, a scalar."""
    loss: Tensor = model(**batch).loss
    return loss


def loss_of_each_sample(model: nn.Module, batch: Batch) -> Tensor:
    """Mean loss of every sample, ``(samples,)``; all samples are equally long, so ``mean_loss`` is their mean."""
    text = batch["text"]
    logits = model(**batch).logits[:, -text.shape[1] - 1 : -1]
    return functional.cross_entropy(logits.transpose(1, 2), text, reduction="none").mean(1)


def plain_gradient(model: VisionLanguageModel, batch: Batch) -> tuple[Tensor, ...]:
    """Forward and backward pass of a batch: what measuring is compared with."""
    return torch.autograd.grad(mean_loss(model, batch), parameters_of(model))
