"""Models that turn awkward in the middle batch of each dataset, when the first has been found in order."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .frame import Specimen, architecture, mean_squares, normal, two_datasets
from .traps import Hidden, OwnProduct


def is_awkward(x: Tensor) -> bool:
    return bool(x[0, 0] > 1)


def late(dtype: torch.dtype, model: nn.Module, loss: Any = mean_squares) -> Specimen:
    """Batches 1 of 0, 1, 2 and 4 of 3, 4, 5 are awkward."""

    def batch(number: int) -> dict[str, Tensor]:
        x = normal(number, 3, 16, dtype=dtype)
        x[0, 0] = 2.0 if number in (1, 4) else 0.0
        return {"x": x, "y": normal(100 + number, 3, 8, dtype=dtype)}

    return Specimen(model.to(dtype), two_datasets(batch), "*", loss)


@architecture(must_name="middle")
def weight_used_functionally_in_middle_batches_only(dtype):
    class Late(Hidden):
        def forward(self, x: Tensor) -> Tensor:
            hidden = self.middle(x).tanh()
            return self.head(hidden + F.linear(x, self.middle.weight) if is_awkward(x) else hidden)

    return late(dtype, Late())


@architecture(may_warn=True)
def forward_method_called_directly_in_middle_batches_only(dtype):
    class Late(Hidden):
        def forward(self, x: Tensor) -> Tensor:
            call = self.middle.forward if is_awkward(x) else self.middle
            return self.head(call(x).tanh())

    return late(dtype, Late())


@architecture(may_warn=True)
def subclass_that_scales_middle_batches_only(dtype):
    class Late(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) * (0.5 if is_awkward(input) else 1.0)

    return late(dtype, Hidden(Late(16, 14)))


@architecture(may_warn=True)
def replaced_forward_that_scales_middle_batches_only(dtype):
    model = Hidden()
    original = model.middle.forward
    model.middle.forward = lambda x: original(x) * (0.5 if is_awkward(x) else 1.0)
    return late(dtype, model)


@architecture(may_warn=True)
def weight_gradient_of_its_own_in_middle_batches_only(dtype):
    class Late(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            if is_awkward(input):
                return OwnProduct.apply(input, self.weight) + self.bias
            return super().forward(input)

    return late(dtype, Hidden(Late(16, 14)))


@architecture(may_warn=True)
def other_weights_in_middle_batches_only(dtype):
    def loss(model: nn.Module, batch: Any) -> Tensor:
        if not is_awkward(batch["x"]):
            return mean_squares(model, batch)
        doubled = {name: 2 * parameter for name, parameter in model.named_parameters()}
        return ((torch.func.functional_call(model, doubled, (batch["x"],)) - batch["y"]) ** 2).mean()

    return late(dtype, Hidden(), loss)


@architecture(may_warn=True)
def gradient_penalty_in_middle_batches_only(dtype):
    def loss(model: nn.Module, batch: Any) -> Tensor:
        x = batch["x"].clone().requires_grad_()
        value = ((model(x) - batch["y"]) ** 2).mean()
        if not is_awkward(batch["x"]):
            return value
        (slope,) = torch.autograd.grad(value, x, create_graph=True)
        return value + slope.square().sum()

    return late(dtype, Hidden(), loss)


@architecture(may_warn=True)
def hook_of_the_user_overwrites_the_output_in_middle_batches_only(dtype):
    model = Hidden()
    model.middle.register_forward_hook(
        lambda module, arguments, output: output.mul_(0.5) if is_awkward(arguments[0]) else None
    )
    return late(dtype, model)
