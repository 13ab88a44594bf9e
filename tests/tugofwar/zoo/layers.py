"""Every common kind of layer and loss, used as its makers meant it."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from .frame import (
    Specimen,
    architecture,
    integers,
    mean_squares,
    normal,
    regression,
    regression_data,
    two_datasets,
)


@architecture()
def plain_mlp(dtype):
    return regression(nn.Sequential(nn.Linear(16, 18), nn.Tanh(), nn.Linear(18, 8)), dtype)


@architecture()
def linear_without_bias_in_a_frozen_surrounding(dtype):
    model = nn.Sequential(nn.Linear(16, 14), nn.Linear(14, 12, bias=False), nn.Tanh(), nn.Linear(12, 8))
    model[0].requires_grad_(False)
    model[3].requires_grad_(False)
    return regression(model, dtype)


@architecture()
def biases_only(dtype):
    model = nn.Sequential(nn.Linear(16, 18), nn.Tanh(), nn.LayerNorm(18), nn.Linear(18, 8))
    return regression(model, dtype, parameters="*.bias")


@architecture()
def one_dimensional_input(dtype):
    return regression(nn.Sequential(nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 8)), dtype, leading=())


@architecture()
def four_dimensional_input(dtype):
    return regression(nn.Sequential(nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 8)), dtype, leading=(2, 1, 2))


@architecture()
def batches_of_different_lengths(dtype):
    def batch(number: int) -> dict[str, Tensor]:
        tokens = 1 + 2 * number
        return {"x": normal(number, 2, tokens, 16, dtype=dtype), "y": normal(50 + number, 2, tokens, 8, dtype=dtype)}

    model = nn.Sequential(nn.Linear(16, 12), nn.GELU(), nn.Linear(12, 8)).to(dtype)
    return Specimen(model, two_datasets(batch), "*", mean_squares)


@architecture()
def summed_loss(dtype):
    def loss(model: nn.Module, batch: Any) -> Tensor:
        return nn.functional.mse_loss(model(batch["x"]), batch["y"], reduction="sum")

    model = nn.Sequential(nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 8)).to(dtype)
    return Specimen(model, regression_data(dtype), "*", loss)


def _embedded(dtype: torch.dtype, embedding: nn.Module) -> Specimen:
    def batch(number: int) -> dict[str, Tensor]:
        return {"x": integers(number, 9, 4, 6), "y": normal(number, 4, 8, dtype=dtype)}

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = embedding
            self.head = nn.Linear(14, 8)

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.embedding(x)
            return self.head(hidden.mean(1) if hidden.ndim == 3 else hidden)

    return Specimen(Pooled().to(dtype), two_datasets(batch), "*", mean_squares)


@architecture()
def embedding_with_padding(dtype):
    return _embedded(dtype, nn.Embedding(9, 14, padding_idx=0))


@architecture()
def sparse_embedding(dtype):
    return _embedded(dtype, nn.Embedding(9, 14, sparse=True))


@architecture()
def embedding_bag(dtype):
    return _embedded(dtype, nn.EmbeddingBag(9, 14, mode="mean"))


class Channels(nn.Module):
    """``(batch, features)`` folded into the shape a convolution wants, and its output averaged over positions."""

    def __init__(self, shape: tuple[int, ...], body: nn.Module) -> None:
        super().__init__()
        self.shape = shape
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.reshape(len(x), *self.shape)).flatten(2).mean(2)


@architecture()
def convolution_1d(dtype):
    body = nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), nn.GELU(), nn.Conv1d(4, 8, 2, stride=2))
    return regression(Channels((2, 6), body), dtype, inputs=12)


@architecture()
def convolution_2d_grouped_and_dilated(dtype):
    body = nn.Sequential(nn.Conv2d(2, 4, 3, groups=2, padding=2, dilation=2), nn.GELU(), nn.ConvTranspose2d(4, 8, 2))
    return regression(Channels((2, 4, 4), body), dtype, inputs=32)


@architecture()
def norms(dtype):
    batch_norm = nn.BatchNorm1d(12)
    batch_norm.running_mean.copy_(torch.linspace(-1, 1, 12))
    batch_norm.running_var.copy_(torch.linspace(0.5, 2, 12))
    body = [nn.Linear(16, 12), nn.LayerNorm(12), nn.Tanh(), nn.GroupNorm(2, 12), nn.RMSNorm(12), nn.Tanh(), batch_norm]
    return regression(nn.Sequential(*body, nn.Linear(12, 8)), dtype)


@architecture()
def bare_parameters(dtype):
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(1.5))
            self.connector = nn.Module()
            self.connector.task_tokens = nn.Parameter(torch.randn(2, 16))
            self.connector.more = nn.ParameterDict({"gate": nn.Parameter(torch.randn(16))})
            self.head = nn.Linear(16, 8)

        def forward(self, x: Tensor) -> Tensor:
            gated = x * self.connector.more["gate"].sigmoid() + self.connector.task_tokens.mean(0)
            return self.scale * self.head(gated.tanh())

    return regression(Tokens(), dtype)


@architecture()
def bilinear(dtype):
    class Squared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.form = nn.Bilinear(16, 16, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.form(x, x.tanh())

    return regression(Squared(), dtype)


class LastState(nn.Module):
    """The last output of a recurrent network, through a head."""

    def __init__(self, network: nn.RNNBase) -> None:
        super().__init__()
        self.network = network
        self.head = nn.Linear(12, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.network(x.reshape(len(x), 4, 4))[0][:, -1])


@architecture()
def lstm(dtype):
    return regression(LastState(nn.LSTM(4, 12, num_layers=2, batch_first=True)), dtype)


@architecture()
def gru(dtype):
    return regression(LastState(nn.GRU(4, 12, batch_first=True)), dtype)


@architecture(may_warn=True)
def weight_norm(dtype):
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(16, 14)), nn.Tanh(), nn.Linear(14, 8))
    return regression(model, dtype)


@architecture(may_warn=True)
def symmetric_parametrization(dtype):
    class Symmetric(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight.triu() + weight.triu(1).T

    symmetric = nn.Linear(16, 16)
    parametrize.register_parametrization(symmetric, "weight", Symmetric())
    return regression(nn.Sequential(symmetric, nn.Tanh(), nn.Linear(16, 8)), dtype)


class Attention(nn.Module):
    """Self-attention whose projections live in one functional call."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.head = nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.attention(x, x.tanh(), x, need_weights=False)[0])


@architecture(may_warn=True)
def multihead_attention(dtype):
    return regression(Attention(), dtype, leading=(2, 2))


@architecture(may_warn=True)
def output_projection_of_attention_only(dtype):
    return regression(Attention(), dtype, parameters="attention.out_proj.*", leading=(2, 2))


@architecture()
def one_weight_of_a_transformer_layer(dtype):
    model = nn.Sequential(nn.TransformerEncoderLayer(16, 2, dim_feedforward=18, batch_first=True), nn.Linear(16, 8))
    return regression(model, dtype, parameters="0.linear1.weight", leading=(2, 2))


@architecture(dtypes=(torch.float32,), tolerance=2e-2, may_warn=True)
def autocast_bfloat16(dtype):
    def loss(model: nn.Module, batch: Any) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return mean_squares(model, batch)

    model = nn.Sequential(nn.Linear(16, 18), nn.GELU(), nn.Linear(18, 18), nn.GELU(), nn.Linear(18, 8)).to(dtype)
    return Specimen(model, regression_data(dtype, leading=(3,)), "*", loss)
