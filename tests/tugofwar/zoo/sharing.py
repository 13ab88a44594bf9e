"""Weights used more than once, inputs read by several, experts that idle, and parts that no loss reaches."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .frame import Specimen, architecture, mean_squares, normal, regression, token_data, two_datasets


def expert(inputs: int = 16, hidden: int = 14, outputs: int = 8) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, outputs))


@architecture()
def soft_mixture_of_experts(dtype):
    class Mixture(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.ModuleList(expert() for _ in range(3))
            self.router = nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            outputs = torch.stack([member(x) for member in self.experts], -1)
            return (outputs * self.router(x).softmax(-1).unsqueeze(-2)).sum(-1)

    return regression(Mixture(), dtype, leading=(2, 2))


class SparseMixture(nn.Module):
    """Top-2 of five experts; a constant keeps expert 4 idle always and expert 0 idle where ``x[0, 0] > 0``."""

    def __init__(self, skip_idle: bool) -> None:
        super().__init__()
        self.skip_idle = skip_idle
        self.experts = nn.ModuleList(expert() for _ in range(5))
        self.router = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        closed = x.new_zeros(5)
        closed[4] = -100.0
        closed[0] = -100.0 if x[0, 0] > 0 else 10.0
        weights, chosen = (self.router(x) + closed).softmax(-1).topk(2)
        output = x.new_zeros(len(x), 8)
        for number, member in enumerate(self.experts):
            token, slot = (chosen == number).nonzero(as_tuple=True)
            if self.skip_idle and not len(token):
                continue
            output = output.index_add(0, token, member(x[token]) * weights[token, slot].unsqueeze(-1))
        return output


def _routed(dtype: torch.dtype, skip_idle: bool) -> Specimen:
    def batch(number: int) -> dict[str, Tensor]:
        x = normal(number, 4, 16, dtype=dtype)
        # Expert 0 idles in all of dataset a and in the first batch of dataset b.
        x[0, 0] = 1.0 if number <= 3 else -1.0
        return {"x": x, "y": normal(70 + number, 4, 8, dtype=dtype)}

    return Specimen(SparseMixture(skip_idle).to(dtype), two_datasets(batch), "experts.*", mean_squares)


@architecture()
def sparse_experts_that_are_skipped(dtype):
    return _routed(dtype, skip_idle=True)


@architecture()
def sparse_experts_called_with_no_token(dtype):
    return _routed(dtype, skip_idle=False)


@architecture(may_warn=True)
def tied_linears(dtype):
    model = nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 8))
    model[2].weight = model[0].weight
    return regression(model, dtype)


@architecture(may_warn=True)
def tied_bias_of_linears(dtype):
    model = nn.Sequential(nn.Linear(16, 14), nn.Tanh(), nn.Linear(14, 14), nn.Tanh(), nn.Linear(14, 8))
    model[2].bias = model[0].bias
    return regression(model, dtype)


class Language(nn.Module):
    """Predicts each token from itself."""

    def __init__(self, tied_first: str) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 16)
        self.body = nn.Linear(16, 16)
        self.lm_head = nn.Linear(16, 11, bias=False)
        if tied_first == "embedding":
            self.lm_head.weight = self.embedding.weight
        else:
            self.embedding.weight = self.lm_head.weight

    def forward(self, input_ids: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.lm_head(self.body(self.embedding(input_ids)).tanh())
        return {"loss": F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())}


@architecture(may_warn=True)
def tied_embedding_and_head(dtype):
    return Specimen(Language("embedding").to(dtype), token_data(), "*", None)


@architecture(may_warn=True)
def tied_head_selected_under_the_name_of_the_embedding(dtype):
    return Specimen(Language("head").to(dtype), token_data(), "embedding.*", None)


@architecture(may_warn=True)
def module_called_twice(dtype):
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.step = nn.Linear(16, 16)
            self.head = nn.Linear(16, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.step(self.step(x).tanh()).tanh())

    return regression(Twice(), dtype)


@architecture(may_warn=True)
def module_called_twice_with_different_token_counts(dtype):
    class Pyramid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.step = nn.Linear(16, 16)
            self.head = nn.Linear(16, 8)

        def forward(self, x: Tensor) -> Tensor:
            fine = self.step(x).tanh()
            coarse = self.step(fine.mean(0)).tanh()
            return self.head(fine + coarse)

    return regression(Pyramid(), dtype)


@architecture(may_warn=True)
def shared_instance_in_sequential_containers(dtype):
    shared = nn.Linear(16, 16)
    inner = nn.Sequential(shared, nn.Tanh())
    return regression(nn.Sequential(inner, nn.Sequential(inner, shared), nn.Tanh(), nn.Linear(16, 8)), dtype)


@architecture(may_warn=True)
def module_called_twice_once_without_gradient(dtype):
    class StudentAndTeacher(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.step = nn.Linear(16, 16)
            self.head = nn.Linear(16, 8)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                target = self.step(x.flip(0)).tanh()
            ignored = self.step(x + 1).detach()
            return self.head(self.step(x).tanh() * target + ignored)

    return regression(StudentAndTeacher(), dtype)


@architecture()
def parameters_that_no_dataset_touches(dtype):
    class Partly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used = nn.Linear(16, 8)
            self.called_for_nothing = nn.Linear(16, 8)
            self.never_called = nn.Linear(16, 8)

        def forward(self, x: Tensor) -> Tensor:
            self.called_for_nothing(x)
            return self.used(x).tanh()

    return regression(Partly(), dtype)


class TwoWays(nn.Module):
    """Images pass the connector, text goes to the head directly."""

    def __init__(self) -> None:
        super().__init__()
        self.vision = nn.Linear(10, 16)
        self.connector = nn.Sequential(nn.Linear(16, 14), nn.GELU(), nn.Linear(14, 16))
        self.head = nn.Linear(16, 8)

    def forward(self, batch: Any) -> Tensor:
        return self.head(self.connector(self.vision(batch["image"])) if "image" in batch else batch["text"])


def _two_ways_loss(model: nn.Module, batch: Any) -> Tensor:
    return ((model(batch) - batch["y"]) ** 2).mean()


@architecture(untouched=("text",))
def text_only_and_mixed_datasets(dtype):
    def image(seed: int) -> dict[str, Tensor]:
        return {"image": normal(seed, 3, 10, dtype=dtype), "y": normal(seed + 20, 3, 8, dtype=dtype)}

    def text(seed: int) -> dict[str, Tensor]:
        return {"text": normal(seed, 3, 16, dtype=dtype), "y": normal(seed + 40, 3, 8, dtype=dtype)}

    datasets = {
        "text": [text(0), text(1), text(2)],
        "mixed": [text(3), image(4), text(5)],
        "image": [image(6), image(7), image(8)],
    }
    return Specimen(TwoWays().to(dtype), datasets, "connector.*", _two_ways_loss)
