"""Oracles: the closed form of least squares, and one plain backward per batch on all of the zoo."""

from collections import namedtuple
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tugofwar.errors import UserError
from tugofwar.functional import functional_gradients

from .zoo import ARCHITECTURES

# What torch.func does not differentiate, and how it says so.
OUTSIDE_TORCH_FUNC = {
    "input_lives_in_a_buffer_that_every_batch_reuses": "in-place operation",
    "backward_hook_of_the_user_scales_the_gradient": "setup_context",
    "custom_autograd_function": "setup_context",
    "custom_autograd_function_with_its_own_weight_gradient": "setup_context",
    "gradient_penalty_inside_the_loss": "requires_grad_",
    "loss_that_asks_for_a_gradient_first": "requires_grad_",
    "weight_gradient_of_its_own_in_middle_batches_only": "setup_context",
    "gradient_penalty_in_middle_batches_only": "requires_grad_",
    "checkpointing": "saved tensor hooks",
    "checkpointing_behind_what_is_not_selected": "saved tensor hooks",
    "reentrant_checkpointing": "setup_context",
    "reentrant_checkpointing_behind_what_is_not_selected": "setup_context",
}
# Replaced parameters do not have the parameters' own hooks.
HOOKED_PARAMETER = "gradient_of_the_weight_is_clipped_by_a_hook"
INSIDE = [
    pytest.param(entry, id=name)
    for name, entry in ARCHITECTURES.items()
    if name not in {*OUTSIDE_TORCH_FUNC, HOOKED_PARAMETER}
]


def plain_gradients(model, batch, loss, names):
    """One backward; ``.grad`` is cleared again."""
    value = loss(model, batch) if loss else model(**batch)["loss"]
    value.backward()
    gradients = {}
    for name in names:
        parameter = model.get_parameter(name)
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        gradients[name] = gradient.to_dense() if gradient.is_sparse else gradient
    for parameter in model.parameters():
        parameter.grad = None
    return gradients


def largest_difference(measured, exact):
    return max(float((measured[name] - exact[name]).abs().max()) for name in exact)


@pytest.mark.parametrize("entry", INSIDE)
def test_rows_equal_plain_autograd(entry):
    dtype = entry.dtypes[0]
    specimen = entry.build(dtype)
    model = specimen.model
    model.train()
    owned = [id(parameter) for parameter in model.parameters()]
    measured = {
        name: functional_gradients(model, source, specimen.parameters, specimen.loss)
        for name, source in specimen.datasets.items()
    }
    assert all(module.training for module in model.modules())
    assert [id(parameter) for parameter in model.parameters()] == owned
    assert all(parameter.grad is None for parameter in model.parameters())
    model.eval()
    for name, source in specimen.datasets.items():
        for row, batch in enumerate(source):
            exact = plain_gradients(model, batch, specimen.loss, measured[name])
            got = {parameter: values[row] for parameter, values in measured[name].items()}
            assert largest_difference(got, exact) <= (1e-12 if dtype == torch.float64 else 1e-6)


@pytest.mark.parametrize("name", OUTSIDE_TORCH_FUNC)
def test_what_torch_func_cannot_do_is_its_own_error(name):
    specimen = ARCHITECTURES[name].build(torch.float64)
    with pytest.raises(RuntimeError, match=OUTSIDE_TORCH_FUNC[name]):
        functional_gradients(specimen.model, specimen.datasets["a"], specimen.parameters, specimen.loss)


def test_hooks_on_parameters_do_not_fire():
    hooked = ARCHITECTURES[HOOKED_PARAMETER].build(torch.float64)
    measured = functional_gradients(hooked.model, hooked.datasets["a"], "*", hooked.loss)
    hooked.model.middle.weight._backward_hooks.clear()
    for row, batch in enumerate(hooked.datasets["a"]):
        exact = plain_gradients(hooked.model, batch, hooked.loss, measured)
        assert largest_difference({name: rows[row] for name, rows in measured.items()}, exact) <= 1e-12
        assert float(exact["middle.weight"].abs().max()) > 0.01


PER_SAMPLE = [
    "plain_mlp",
    "convolution_2d_grouped_and_dilated",
    "norms",
    "embedding_with_padding",
    "tied_linears",
    "shared_instance_in_sequential_containers",
    "multihead_attention",
    "llama",
]


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("name", PER_SAMPLE)
def test_samples_equal_batches_of_one(name):
    specimen = ARCHITECTURES[name].build(torch.float64)
    batches = specimen.datasets["a"][:2]
    measured = functional_gradients(specimen.model, batches, specimen.parameters, specimen.loss, per_sample=True)
    singles = [
        {key: value[sample : sample + 1] for key, value in batch.items()}
        for batch in batches
        for sample in range(len(next(iter(batch.values()))))
    ]
    specimen.model.eval()
    for row, single in enumerate(singles):
        exact = plain_gradients(specimen.model, single, specimen.loss, measured)
        got = {parameter: values[row] for parameter, values in measured.items()}
        assert largest_difference(got, exact) <= 1e-12
    assert all(len(values) == len(singles) for values in measured.values())


def squares(model, batch):
    return ((model(batch["x"]) - batch["y"]) ** 2).mean()


@pytest.fixture
def line():
    torch.manual_seed(0)
    return nn.Linear(3, 1, bias=False).double()


def points(count=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "x": torch.randn(count, 3, generator=generator, dtype=torch.float64),
        "y": torch.randn(count, 1, generator=generator, dtype=torch.float64),
    }


def test_least_squares_in_closed_form(line):
    batch = points()
    weight = line.weight.detach()
    residual = batch["x"] @ weight.T - batch["y"]
    got = functional_gradients(line, [batch], "*", squares)["weight"]
    torch.testing.assert_close(got[0], 2 * residual.T @ batch["x"] / 4)
    rows = functional_gradients(line, [batch], "*", squares, per_sample=True)["weight"]
    torch.testing.assert_close(rows[:, 0], 2 * residual * batch["x"])
    assert not got.requires_grad


def test_the_mean_of_the_samples_is_the_batch():
    specimen = ARCHITECTURES["norms"].build(torch.float64)
    batch = specimen.datasets["a"][0]
    whole = functional_gradients(specimen.model, [batch], "*", specimen.loss)
    samples = functional_gradients(specimen.model, [batch], "*", specimen.loss, per_sample=True)
    for name, rows in samples.items():
        torch.testing.assert_close(rows.mean(0), whole[name][0])


def test_a_loss_may_use_the_models_parts_and_a_batch_may_be_a_tuple():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1)).double()
    Pair = namedtuple("Pair", "x y")
    batch = Pair(points()["x"], points()["y"])

    def loss(model, batch):
        return ((model[1](model[0](batch.x)) - batch.y) ** 2).mean() + model[0].weight.square().sum()

    for per_sample in (False, True):
        got = functional_gradients(model, [batch], "*", loss, per_sample=per_sample)
        exact = plain_gradients(model, batch, loss, got)
        assert largest_difference({name: rows.mean(0) for name, rows in got.items()}, exact) <= 1e-12


def test_a_loss_that_is_a_module_is_no_part_of_the_model(line):
    class Scored(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

        def forward(self, model, batch):
            return self.weight * squares(model, batch)

    got = functional_gradients(line, [points()], "*", Scored())
    assert list(got) == ["weight"]
    plain = functional_gradients(line, [points()], "*", squares)
    torch.testing.assert_close(got["weight"], 2 * plain["weight"])


def test_the_default_loss_is_the_models(line):
    class WithLoss(nn.Module):
        def __init__(self):
            super().__init__()
            self.line = line

        def forward(self, x, y):
            return SimpleNamespace(loss=((self.line(x) - y) ** 2).mean())

    batches = (points(seed=seed) for seed in range(3))
    got = functional_gradients(WithLoss(), batches, "line.*")
    assert got["line.weight"].shape == (3, 1, 3)


def test_unselected_parameters_have_no_rows_and_keep_their_flags():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2), nn.Linear(2, 1)).double()
    model[1].requires_grad_(False)
    assert list(functional_gradients(model, [points()], ["0.*"], squares)) == [
        "0.weight",
        "0.bias",
    ]
    assert [parameter.requires_grad for parameter in model.parameters()] == [True, True, False, False, True, True]


def test_a_failing_loss_leaves_the_model_as_it_was(line):
    line.weight.grad = torch.ones_like(line.weight)
    owned, kept = line.weight, line.weight.grad

    def fails(model, batch):
        model(batch["x"])
        raise KeyError("labels")

    with pytest.raises(KeyError, match="labels"):
        functional_gradients(line, [points()], "*", fails)
    assert line.weight is owned
    assert line.weight.grad is kept
    assert line.training


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batches": points()}, "one dict, not a list of batches"),
        ({"batches": points()["x"]}, "one Tensor, not a list of batches"),
        ({"batches": []}, "`batches` is empty"),
        ({"parameters": "heda.*"}, "selects no parameter"),
        ({"loss": lambda model, batch: model(batch["x"])}, r"not a scalar tensor but shape \(4, 1\)"),
        ({"loss": lambda model, batch: 1.0}, "not a scalar tensor but float"),
        ({"loss": lambda model, batch: squares(model, batch) / 0}, "loss of batch 1 is not finite"),
        ({"loss": lambda model, batch: (model.weight * 0).sum().sqrt()}, "gradient of weight in batch 1 is not finite"),
        ({"loss": None, "batches": [[1]]}, "a batch is a list"),
        ({"per_sample": True, "batches": [{"x": torch.ones(2, 3), "y": torch.ones(1)}]}, r"shapes \(2, 3\), \(1,\)"),
        ({"per_sample": True, "batches": [{"x": torch.ones(2, 3), "y": torch.tensor(1.0)}]}, r"\(2, 3\), \(\)"),
        ({"per_sample": True, "batches": [{"text": "a"}]}, "there are none"),
        ({"per_sample": True, "batches": [{"x": torch.ones(0, 3)}]}, "no samples in batch 1"),
    ],
)
def test_a_mistake_is_one_clear_sentence(line, arguments, message):
    with pytest.raises(UserError, match=message):
        functional_gradients(line, **{"batches": [points()], "parameters": "*", "loss": squares, **arguments})


def test_a_model_that_cannot_be_vectorised_is_refused_with_the_way_out():
    specimen = ARCHITECTURES["sparse_experts_that_are_skipped"].build(torch.float64)
    with pytest.raises(UserError, match="pass batches of one sample without per_sample"):
        functional_gradients(
            specimen.model, specimen.datasets["a"], specimen.parameters, specimen.loss, per_sample=True
        )
