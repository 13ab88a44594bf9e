"""The connector between vision encoder and LLM: linear, MLP, or a mixture of projection experts (CMoE).

Section 3.2.2 of the paper. Experts are dense: every expert sees every token and the router's weights sum
their outputs (eq. 9). A router is built only for the mixture.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .settings import ConnectorSettings


@dataclass
class ConnectorOutput:
    """Aligned visual tokens (images, tokens, text width) and, for the mixture, each token's routing weights.

    ``router_weights``: (images, tokens, experts), rows summing to 1; None without a router.
    """

    tokens: Tensor
    router_weights: Tensor | None = None


def projection(width_in: int, width_out: int, layers: int) -> nn.Sequential:
    """Return ``layers`` linear layers with GELU between them, (…, width_in) -> (…, width_out)."""
    modules: list[nn.Module] = [nn.Linear(width_in, width_out)]
    for _ in range(layers - 1):
        modules += [nn.GELU(), nn.Linear(width_out, width_out)]
    return nn.Sequential(*modules)


class ProjectionConnector(nn.Module):
    """Linear or MLP connector: one projection for all tasks, the synergy hypothesis' model."""

    def __init__(self, width_in: int, width_out: int, layers: int) -> None:
        super().__init__()
        self.layers = projection(width_in, width_out, layers)

    def forward(self, tokens: Tensor, task_ids: Tensor) -> ConnectorOutput:
        """Project (images, tokens, width_in) to (images, tokens, width_out); tasks make no difference."""
        return ConnectorOutput(self.layers(tokens))


class SoftRouter(nn.Module):
    """Weights of all experts for each token, from the token, its task, or both (eq. 8 and 14).

    The input order is task token, then visual token, as in the released code; eq. 8 prints the reverse,
    which is the same function up to a permutation of the first layer's columns.
    """

    def __init__(self, width: int, settings: ConnectorSettings) -> None:
        super().__init__()
        self.strategy = settings.strategy
        self.normalisation = settings.normalisation
        width_in = 2 * width if self.strategy == "token_task" else width
        hidden = settings.router_hidden or 4 * width_in
        self.layers = nn.Sequential(nn.Linear(width_in, hidden), nn.GELU(), nn.Linear(hidden, settings.num_experts))

    def forward(self, tokens: Tensor, task_tokens: Tensor | None) -> Tensor:
        """Return routing weights (images, tokens, experts) that sum to 1 over experts.

        Args:
            tokens: visual tokens (images, tokens, width).
            task_tokens: task token of each image (images, width); None for the strategy ``token``.
        """
        scores = self.layers(self._input(tokens, task_tokens))
        if self.normalisation == "softmax":
            return scores.softmax(dim=-1)
        # sigmoid(s) / sum sigmoid(s), through the logarithm: all scores far below 0 would give 0 / 0
        return nn.functional.logsigmoid(scores).softmax(dim=-1)

    def _input(self, tokens: Tensor, task_tokens: Tensor | None) -> Tensor:
        if task_tokens is None:
            return tokens
        repeated = task_tokens.unsqueeze(1).expand(-1, tokens.shape[1], -1)
        return repeated if self.strategy == "task" else torch.cat([repeated, tokens], dim=-1)


class CMoEConnector(nn.Module):
    """Connector-MoE: N projection experts and a soft router on visual tokens and task tokens (eq. 9)."""

    def __init__(self, width_in: int, width_out: int, num_tasks: int, settings: ConnectorSettings) -> None:
        super().__init__()
        self.experts = nn.ModuleList(
            projection(width_in, width_out, settings.layers) for _ in range(settings.num_experts)
        )
        self.router = SoftRouter(width_in, settings)
        self.task_tokens: nn.Parameter | None = None
        if settings.strategy != "token":
            self.task_tokens = nn.Parameter(0.02 * torch.randn(num_tasks, width_in))

    def forward(self, tokens: Tensor, task_ids: Tensor) -> ConnectorOutput:
        """Align visual tokens with the LLM's embeddings.

        Args:
            tokens: (images, tokens, width_in).
            task_ids: (images,) index of each image's task among the configuration's image tasks.

        Returns:
            Aligned tokens (images, tokens, width_out) and routing weights (images, tokens, experts).
        """
        task_tokens = None if self.task_tokens is None else self.task_tokens[task_ids]
        weights = self.router(tokens, task_tokens)
        outputs = torch.stack([expert(tokens) for expert in self.experts], dim=-1)
        return ConnectorOutput(torch.einsum("btdn,btn->btd", outputs, weights), weights)


def build_connector(
    settings: ConnectorSettings, width_in: int, width_out: int, num_tasks: int
) -> ProjectionConnector | CMoEConnector:
    """Return the connector that the settings describe, with torch's default initialisation."""
    if settings.kind == "cmoe":
        return CMoEConnector(width_in, width_out, num_tasks, settings)
    return ProjectionConnector(width_in, width_out, 1 if settings.kind == "linear" else settings.layers)
