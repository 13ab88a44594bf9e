"""The connector between vision encoder and LLM: linear, MLP, or a mixture of projection experts (CMoE).

Section 3.2.2 of the paper. The weights of a router (``unimed_model.router``) sum the experts' outputs (eq. 9); a router
is built only for the mixture. How the sum is computed is ``unimed_model.mixing``.
"""

from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from .data.sample import IMAGE_TASKS
from .mixing import mix
from .router import build_router
from .settings import ConnectorSettings


@dataclass
class ConnectorOutput:
    """What goes into the connector and what comes out.

    Attributes:
        tokens: aligned visual tokens (images, tokens, text width), f^align of the paper.
        router_weights: (images, tokens, experts), summing to 1 over experts; None without a mixture.
        inputs: resampled visual tokens (images, tokens, width), f^ag of the paper.
    """

    tokens: Tensor
    router_weights: Tensor | None
    inputs: Tensor


def projection(width_in: int, width_out: int, layers: int, hidden: int | None = None) -> nn.Sequential:
    """Return ``layers`` linear layers with GELU between them, (…, width_in) -> (…, width_out).

    Args:
        width_in: of the input.
        width_out: of the output.
        layers: linear layers.
        hidden: width between two layers; None: ``width_out``.
    """
    widths = [width_in, *[hidden or width_out] * (layers - 1), width_out]
    modules: list[nn.Module] = []
    for before, after in pairwise(widths):
        modules += [nn.Linear(before, after), nn.GELU()]
    return nn.Sequential(*modules[:-1])


class ProjectionConnector(nn.Module):
    """Linear or MLP connector: one projection for all tasks, the synergy hypothesis' model."""

    def __init__(self, width_in: int, width_out: int, layers: int, hidden: int | None = None) -> None:
        super().__init__()
        self.layers = projection(width_in, width_out, layers, hidden)

    def forward(self, tokens: Tensor, task_ids: Tensor | None = None) -> ConnectorOutput:
        """Project (images, tokens, width_in) to (images, tokens, width_out); tasks make no difference."""
        return ConnectorOutput(self.layers(tokens), None, tokens)


class CMoEConnector(nn.Module):
    """Connector-MoE: N projection experts, and a router on visual tokens and vision-level task tokens (eq. 9).

    Raises:
        ValueError: fewer experts than image tasks under a hard router.
    """

    def __init__(self, width_in: int, width_out: int, settings: ConnectorSettings) -> None:
        super().__init__()
        self.experts = nn.ModuleList(
            projection(width_in, width_out, settings.layers, _width(settings.hidden))
            for _ in range(settings.num_experts)
        )
        self.router = build_router(width_in, settings)
        self.task_tokens: nn.Parameter | None = None
        if settings.reads_tasks and settings.router != "hard":
            self.task_tokens = nn.Parameter(0.02 * torch.randn(len(IMAGE_TASKS), width_in))
        # weights of exactly 0 need no expert
        self.skips = settings.router == "hard" or (settings.router == "sparse" and settings.masking == "infinity")

    def forward(self, tokens: Tensor, task_ids: Tensor | None = None) -> ConnectorOutput:
        """Align visual tokens with the LLM's embeddings.

        Args:
            tokens: (images, tokens, width_in).
            task_ids: (images,) index of each image's task in ``IMAGE_TASKS``; needed by a hard router and where task
                tokens are read.

        Returns:
            Aligned tokens (images, tokens, width_out) and routing weights (images, tokens, experts).

        Raises:
            ValueError: no ``task_ids`` where they are needed.
        """
        task_tokens = None
        if self.task_tokens is not None:
            if task_ids is None:
                raise ValueError("the connector's router needs the task of each image in task_ids")
            task_tokens = self.task_tokens[task_ids]
        weights = self.router(tokens, task_tokens, task_ids)
        mixed = mix(self.experts, tokens.flatten(0, 1), weights.flatten(0, 1), skip_zeros=self.skips)
        return ConnectorOutput(mixed.unflatten(0, tokens.shape[:2]), weights, tokens)


def build_connector(settings: ConnectorSettings, width_in: int, width_out: int) -> ProjectionConnector | CMoEConnector:
    """Return the connector that the settings describe, with torch's default initialisation."""
    if settings.kind == "cmoe":
        return CMoEConnector(width_in, width_out, settings)
    layers = 1 if settings.kind == "linear" else settings.layers
    if settings.hidden == "as_cmoe":
        return ProjectionConnector(width_in, width_out, layers, width_as_cmoe(settings, width_in, width_out))
    return ProjectionConnector(width_in, width_out, layers, _width(settings.hidden))


def width_as_cmoe(settings: ConnectorSettings, width_in: int, width_out: int) -> int:
    """Return the hidden width with which an MLP has the number of parameters nearest to the mixture's.

    Args:
        settings: an MLP's, whose other keys describe the mixture.
        width_in: of the visual tokens.
        width_out: of the LLM's embeddings.
    """
    mixture = settings.model_copy(update={"kind": "cmoe", "hidden": None, "layers": 2})
    with torch.device("meta"):
        wanted = sum(parameter.numel() for parameter in CMoEConnector(width_in, width_out, mixture).parameters())

    def parameters(hidden: int) -> int:
        between = (settings.layers - 2) * (hidden * hidden + hidden)
        return width_in * hidden + hidden + between + hidden * width_out + width_out

    above = bisect_left(range(1, wanted), wanted, key=parameters) + 1
    return min((max(1, above - 1), above), key=lambda hidden: abs(parameters(hidden) - wanted))


def _width(hidden: int | str | None) -> int | None:
    return hidden if isinstance(hidden, int) else None
