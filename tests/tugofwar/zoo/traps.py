"""Models on which an engine that watches ``nn.Linear`` from outside sees something else than autograd does."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .frame import Specimen, architecture, mean_squares, normal, regression, regression_data, two_datasets


class Hidden(nn.Module):
    """``head(tanh(middle(x)))``, the part that most traps change."""

    def __init__(self, middle: nn.Module | None = None) -> None:
        super().__init__()
        self.middle = middle or nn.Linear(16, 14)
        self.head = nn.Linear(14, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(x).tanh())


@architecture(must_name="middle")
def weight_used_functionally_too(dtype):
    class Both(Hidden):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.middle(x).tanh() + F.linear(x.cos(), self.middle.weight))

    return regression(Both(), dtype)


@architecture(must_name="middle")
def transposed_weight_decodes(dtype):
    class Autoencoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.middle = nn.Linear(16, 14)

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(self.middle(x).tanh(), self.middle.weight.T)

    return regression(Autoencoder(), dtype, outputs=16)


@architecture(must_name="middle")
def weight_decay_inside_the_loss(dtype):
    def loss(model: nn.Module, batch: Any) -> Tensor:
        return mean_squares(model, batch) + 0.1 * model.middle.weight.square().sum()

    return Specimen(Hidden().to(dtype), regression_data(dtype), "*", loss)


@architecture(must_name="middle")
def forward_method_called_directly(dtype):
    class Direct(Hidden):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.middle.forward(x).tanh())

    return regression(Direct(), dtype)


@architecture(may_warn=True)
def forward_method_called_directly_beside_a_call(dtype):
    class Direct(Hidden):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.middle(x).tanh() + self.middle.forward(x.cos()))

    return regression(Direct(), dtype)


class Scaled(nn.Linear):
    """A linear layer that halves its output."""

    def forward(self, input: Tensor) -> Tensor:
        return 0.5 * super().forward(input)


@architecture(may_warn=True)
def subclass_with_its_own_forward(dtype):
    return regression(Hidden(Scaled(16, 14)), dtype)


@architecture(may_warn=True)
def scaled_expert_that_idles_in_the_first_batches(dtype):
    class Choice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.plain = nn.Linear(16, 8)
            self.scaled = Scaled(16, 8)

        def forward(self, x: Tensor) -> Tensor:
            return (self.scaled if x[0, 0] > 1 else self.plain)(x).tanh()

    def batch(number: int) -> dict[str, Tensor]:
        x = normal(number, 3, 16, dtype=dtype)
        x[0, 0] = 2.0 if number in (2, 4, 5) else 0.0
        return {"x": x, "y": normal(100 + number, 3, 8, dtype=dtype)}

    return Specimen(Choice().to(dtype), two_datasets(batch), "*", mean_squares)


@architecture(may_warn=True)
def subclass_that_centres_its_weight(dtype):
    class Centred(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return F.linear(input, self.weight - self.weight.mean(1, keepdim=True), self.bias)

    return regression(Hidden(Centred(16, 14)), dtype)


@architecture(may_warn=True)
def input_overwritten_after_a_copy_was_read(dtype):
    class Copying(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input.clone())

    class Overwriting(Hidden):
        def forward(self, x: Tensor) -> Tensor:
            read = x.sin()
            hidden = self.middle(read)
            read.mul_(3)
            return self.head(hidden.tanh() + read[:, :14])

    return regression(Overwriting(Copying(16, 14)), dtype)


@architecture()
def input_lives_in_a_buffer_that_every_batch_reuses(dtype):
    class Buffered(Hidden):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("page", torch.zeros(3, 16))

        def forward(self, x: Tensor) -> Tensor:
            self.page.copy_(x)
            return super().forward(self.page)

    return regression(Buffered(), dtype)


class Refilled(list):
    """Batches whose tensors are the same objects, refilled from batch to batch."""

    def __iter__(self):
        page = {name: torch.empty_like(value) for name, value in self[0].items()}
        for batch in super().__iter__():
            for name, value in batch.items():
                page[name].copy_(value)
            yield page


@architecture()
def loader_that_refills_its_tensors(dtype):
    datasets = {name: Refilled(batches) for name, batches in regression_data(dtype).items()}
    return Specimen(Hidden().to(dtype), datasets, "*", mean_squares)


@architecture()
def inplace_activation_behind_a_frozen_input(dtype):
    model = nn.Sequential(nn.Linear(16, 14), nn.ReLU(inplace=True), nn.Linear(14, 12), nn.ELU(inplace=True))
    return regression(model.append(nn.Linear(12, 8)), dtype)


@architecture()
def output_overwritten_in_place(dtype):
    class Residual(Hidden):
        def forward(self, x: Tensor) -> Tensor:
            hidden = self.middle(x)
            hidden += x[:, :14]
            hidden[:, 0] = 0.0
            return self.head(hidden.mul_(0.5).tanh())

    return regression(Residual(), dtype)


@architecture()
def output_read_twice_and_partly_detached(dtype):
    class Branching(Hidden):
        def forward(self, x: Tensor) -> Tensor:
            hidden = self.middle(x)
            return self.head(hidden.tanh() + hidden.detach().exp() + hidden[:, :1] * hidden)

    return regression(Branching(), dtype)


@architecture(may_warn=True)
def input_given_by_keyword(dtype):
    class Keyword(Hidden):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(input=self.middle(input=x).tanh())

    return regression(Keyword(), dtype)


@architecture()
def inputs_with_strides(dtype):
    class Strided(Hidden):
        def forward(self, x: Tensor) -> Tensor:
            flipped = x.reshape(3, 16, 2).transpose(1, 2)[:, ::2].expand(2, 3, 1, 16)
            return self.head(self.middle(flipped).tanh()).mean((0, 2))

    def batch(number: int) -> dict[str, Tensor]:
        return {"x": normal(number, 3, 32, dtype=dtype), "y": normal(100 + number, 3, 8, dtype=dtype)}

    return Specimen(Strided().to(dtype), two_datasets(batch), "*", mean_squares)


@architecture(may_warn=True)
def hook_of_the_user_scales_the_output(dtype):
    model = Hidden()
    model.middle.register_forward_hook(lambda module, arguments, output: 3 * output.sin())
    return regression(model, dtype)


@architecture(may_warn=True)
def hook_of_the_user_changes_the_input(dtype):
    model = Hidden()
    model.middle.register_forward_pre_hook(lambda module, arguments: (arguments[0].cos(),))
    return regression(model, dtype)


@architecture(may_warn=True)
def backward_hook_of_the_user_scales_the_gradient(dtype):
    model = Hidden()
    model.middle.register_full_backward_hook(lambda module, into, out: tuple(g if g is None else 2 * g for g in into))
    return regression(nn.Sequential(nn.Linear(16, 16), model), dtype)


@architecture(may_warn=True)
def gradient_of_the_weight_is_clipped_by_a_hook(dtype):
    model = Hidden()
    model.middle.weight.register_hook(lambda gradient: gradient.clamp(-0.01, 0.01))
    return regression(model, dtype)


@architecture(may_warn=True)
def gradient_of_the_output_is_halved_by_a_hook(dtype):
    class Hooked(Hidden):
        def forward(self, x: Tensor) -> Tensor:
            hidden = self.middle(x)
            hidden.register_hook(lambda gradient: 0.5 * gradient)
            return self.head(hidden.tanh())

    return regression(Hooked(), dtype)


class Doubling(torch.autograd.Function):
    """The identity whose gradient is twice what calculus says."""

    @staticmethod
    def forward(context, value):
        return value.view_as(value)

    @staticmethod
    def backward(context, gradient):
        return 2 * gradient


@architecture()
def custom_autograd_function(dtype):
    class Custom(Hidden):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(Doubling.apply(self.middle(x)).tanh())

    return regression(Custom(), dtype)


class OwnProduct(torch.autograd.Function):
    """``x @ weight.T`` whose weight gradient is clipped."""

    @staticmethod
    def forward(context, x, weight):
        context.save_for_backward(x, weight)
        return x @ weight.T

    @staticmethod
    def backward(context, gradient):
        x, weight = context.saved_tensors
        return gradient @ weight, (gradient.T @ x).clamp(-0.05, 0.05)


@architecture(may_warn=True)
def custom_autograd_function_with_its_own_weight_gradient(dtype):
    class Clipped(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return OwnProduct.apply(input, self.weight) + self.bias

    return regression(Hidden(Clipped(16, 14)), dtype)


@architecture(may_warn=True)
def gradient_penalty_inside_the_loss(dtype):
    def loss(model: nn.Module, batch: Any) -> Tensor:
        x = batch["x"].clone().requires_grad_()
        value = ((model(x) - batch["y"]) ** 2).mean()
        (slope,) = torch.autograd.grad(value, x, create_graph=True)
        return value + slope.square().sum()

    return Specimen(Hidden().to(dtype), regression_data(dtype), "*", loss)


@architecture(may_warn=True)
def loss_that_asks_for_a_gradient_first(dtype):
    """The step of an adversary: an inner gradient that the loss does not differentiate through."""

    def loss(model: nn.Module, batch: Any) -> Tensor:
        x = batch["x"].clone().requires_grad_()
        (slope,) = torch.autograd.grad(((model(x) - batch["y"]) ** 2).mean(), x)
        return ((model(batch["x"] + 0.1 * slope.sign()) - batch["y"]) ** 2).mean()

    return Specimen(Hidden().to(dtype), regression_data(dtype), "*", loss)


@architecture(may_warn=True)
def called_with_other_weights(dtype):
    def loss(model: nn.Module, batch: Any) -> Tensor:
        doubled = {name: 2 * parameter for name, parameter in model.named_parameters()}
        return ((torch.func.functional_call(model, doubled, (batch["x"],)) - batch["y"]) ** 2).mean()

    return Specimen(Hidden().to(dtype), regression_data(dtype), "*", loss)


class Checkpointed(nn.Module):
    """Three linear layers, the middle two recomputed during backward."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.reentrant = reentrant
        self.first = nn.Linear(16, 16)
        self.connector = nn.Sequential(nn.Linear(16, 14), nn.Tanh(), nn.Linear(14, 16))
        self.head = nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(checkpoint(self.connector, self.first(x).tanh(), use_reentrant=self.reentrant))


@architecture(may_warn=True)
def checkpointing(dtype):
    return regression(Checkpointed(reentrant=False), dtype)


@architecture(may_warn=True)
def checkpointing_behind_what_is_not_selected(dtype):
    return regression(Checkpointed(reentrant=False), dtype, parameters="connector.*")


@architecture(may_warn=True)
def reentrant_checkpointing(dtype):
    return regression(Checkpointed(reentrant=True), dtype)


@architecture(may_warn=True)
def reentrant_checkpointing_behind_what_is_not_selected(dtype):
    return regression(Checkpointed(reentrant=True), dtype, parameters="connector.*")
