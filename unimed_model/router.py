"""Routers: the weight of every expert for every visual token (Section 3.2.2 and Appendix A.1 of the paper).

A router maps visual tokens (images, tokens, width), the images' task tokens (images, width) and their tasks (images,)
to weights (images, tokens, experts) that sum to 1 over experts.
"""

import torch
from torch import Tensor, nn

from .data.sample import IMAGE_TASKS
from .settings import ConnectorSettings


class ConstantRouter(nn.Module):
    """The same weight 1/N for every expert (eq. 11)."""

    def __init__(self, num_experts: int) -> None:
        super().__init__()
        self.num_experts = num_experts

    def forward(self, tokens: Tensor, task_tokens: Tensor | None, task_ids: Tensor | None) -> Tensor:
        """Return weights (images, tokens, experts)."""
        return tokens.new_full((*tokens.shape[:2], self.num_experts), 1 / self.num_experts)


class HardRouter(nn.Module):
    """All weight on the expert of the image's task (eq. 12); experts beyond the tasks are never used."""

    def __init__(self, num_experts: int) -> None:
        super().__init__()
        if num_experts < len(IMAGE_TASKS):
            raise ValueError(f"{num_experts} experts are too few for {len(IMAGE_TASKS)} tasks under a hard router")
        self.num_experts = num_experts

    def forward(self, tokens: Tensor, task_tokens: Tensor | None, task_ids: Tensor | None) -> Tensor:
        """Return weights (images, tokens, experts): 1 for the expert of the task, else 0."""
        if task_ids is None:
            raise ValueError("a hard router needs the task of each image in task_ids")
        chosen = nn.functional.one_hot(task_ids, self.num_experts).to(tokens.dtype)
        return chosen.unsqueeze(1).expand(-1, tokens.shape[1], -1)


class LearnedRouter(nn.Module):
    """Scores of a two-layer MLP, made into weights: soft over all experts, or sparse over the best k.

    The MLP reads the visual token, its image's task token, or both; the order is task token, then visual token, as in
    the released code (eq. 8 prints the reverse, the same function up to a permutation of the first layer's columns).
    Soft weights are ``sigmoid(s) / sum sigmoid(s)`` (eq. 14, released) or a softmax (eq. 8). A sparse router keeps the
    k highest scores; the others become minus infinity (released: exactly k weights are not zero), or zero (eq. 13 as
    printed: they keep a weight).
    """

    def __init__(self, width: int, settings: ConnectorSettings) -> None:
        super().__init__()
        self.strategy = settings.strategy
        self.normalisation = settings.normalisation or ("softmax" if settings.router == "sparse" else "sigmoid")
        self.kept = settings.top_k if settings.router == "sparse" else None
        self.masked_score = float("-inf") if settings.masking == "infinity" else 0.0
        width_in = 2 * width if self.strategy == "token_task" else width
        hidden = settings.router_hidden or 4 * width_in
        self.layers = nn.Sequential(nn.Linear(width_in, hidden), nn.GELU(), nn.Linear(hidden, settings.num_experts))

    def forward(self, tokens: Tensor, task_tokens: Tensor | None, task_ids: Tensor | None) -> Tensor:
        """Return weights (images, tokens, experts).

        Args:
            tokens: visual tokens (images, tokens, width).
            task_tokens: task token of each image (images, width); None for the strategy ``token``.
            task_ids: not read.
        """
        if self.strategy == "task" and task_tokens is not None:
            # one score per image serves all of its tokens
            weights = self._weights(self.layers(task_tokens.unsqueeze(1)))
            return weights.expand(-1, tokens.shape[1], -1)
        return self._weights(self.layers(self._input(tokens, task_tokens)))

    def _input(self, tokens: Tensor, task_tokens: Tensor | None) -> Tensor:
        if task_tokens is None:
            return tokens
        repeated = task_tokens.unsqueeze(1).expand(-1, tokens.shape[1], -1)
        return torch.cat([repeated, tokens], dim=-1)

    def _weights(self, scores: Tensor) -> Tensor:
        if self.kept is not None:
            best = scores.topk(self.kept, dim=-1).indices
            others = torch.ones_like(scores, dtype=torch.bool).scatter(-1, best, False)
            scores = scores.masked_fill(others, self.masked_score)
        if self.normalisation == "sigmoid":
            # sigmoid(s) / sum sigmoid(s), through the logarithm: all scores far below 0 would give 0 / 0
            scores = nn.functional.logsigmoid(scores)
        return scores.softmax(dim=-1)


Router = ConstantRouter | HardRouter | LearnedRouter


def build_router(width: int, settings: ConnectorSettings) -> Router:
    """Return the router that the settings name, for visual tokens of a width."""
    if settings.router == "constant":
        return ConstantRouter(settings.num_experts)
    if settings.router == "hard":
        return HardRouter(settings.num_experts)
    return LearnedRouter(width, settings)
