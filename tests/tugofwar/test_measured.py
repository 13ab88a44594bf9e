"""Oracle: quadratic losses, whose change along a step is known to the last term."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import tugofwar as tow
from tugofwar.errors import UserError
from tugofwar.measured import measured_interference

from .zoo import ARCHITECTURES


class Point(nn.Module):
    """A point in the plane of its parameters, and a part that is not selected."""

    def __init__(self, dimension=6):
        super().__init__()
        self.first = nn.Parameter(torch.linspace(-1, 1, dimension, dtype=torch.float64))
        self.second = nn.Parameter(torch.full((2, 2), 0.3, dtype=torch.float64))
        self.other = nn.Parameter(torch.ones(3, dtype=torch.float64))

    def forward(self):
        return torch.cat([self.first, self.second.flatten()])


def bowl(model, batch):
    """``(theta - c)^T H (theta - c) / 2``."""
    from_centre = model() - batch["centre"]
    return from_centre @ batch["curvature"] @ from_centre / 2


def bowls(count, seed, dimension=10, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for _ in range(count):
        root = torch.randn(dimension, dimension, generator=generator, dtype=torch.float64)
        centre = torch.randn(dimension, generator=generator, dtype=torch.float64) + shift
        batches.append({"centre": centre, "curvature": root @ root.T / dimension})
    return batches


POINT = ["first", "second"]


def test_a_quadratic_loss_changes_by_its_two_terms():
    model = Point()
    data = {"a": bowls(4, 1), "b": bowls(4, 2, shift=1.0), "c": bowls(4, 3, shift=-1.0)}
    step = 0.37
    result = measured_interference(model, data, POINT, step=step, batches=4, loss=bowl, progress=False)
    theta = model().detach().numpy()
    centres = {name: [batch["centre"].numpy() for batch in batches] for name, batches in data.items()}
    curvatures = {name: [batch["curvature"].numpy() for batch in batches] for name, batches in data.items()}
    for i in data:
        for j in data:
            first, second = [], []
            for a in range(4):
                for b in range(4):
                    if i == j and a == b:
                        continue
                    along = curvatures[j][b] @ (theta - centres[j][b])
                    along = along / np.linalg.norm(along)
                    first.append(step * (curvatures[i][a] @ (theta - centres[i][a])) @ along)
                    second.append(-(step**2) / 2 * along @ curvatures[i][a] @ along)
            assert result.predicted.loc[i, j] == pytest.approx(np.mean(first), rel=1e-10)
            assert result.measured.loc[i, j] == pytest.approx(np.mean(first) + np.mean(second), rel=1e-10)
            relative = np.mean(np.abs(second)) / np.mean(np.abs(first))
            assert result.relative_error.loc[i, j] == pytest.approx(relative, rel=1e-8)
    assert (result.step, result.batches, result.untouched) == (step, 4, ())


def test_first_order_holds_in_the_limit_of_small_steps():
    specimen = ARCHITECTURES["plain_mlp"].build(torch.float64)
    steps = [0.4, 0.2, 0.1, 0.05, 0.025]
    results = measured_interference(
        specimen.model, specimen.datasets, "*", step=steps, batches=3, loss=specimen.loss, progress=False
    )
    assert [result.step for result in results] == steps
    errors = np.array([abs(result.measured - result.predicted).to_numpy() for result in results])
    # The second-order term is what is left: half the step, a quarter of the error.
    np.testing.assert_allclose(errors[-2] / errors[-1], 4, rtol=0.1)
    relative = [float(result.relative_error.to_numpy().max()) for result in results]
    assert relative == sorted(relative, reverse=True)
    assert relative[-1] < 0.05


def test_the_prediction_is_the_recordings():
    specimen = ARCHITECTURES["convolution_1d"].build(torch.float64)
    result = measured_interference(
        specimen.model, specimen.datasets, "*", step=0.1, batches=3, loss=specimen.loss, progress=False
    )
    recording = tow.record(specimen.model, specimen.datasets, "*", batches=3, loss=specimen.loss, progress=False)
    # The ratio of means of the leave-one-out kind is GD's default estimator (eq. 2).
    gd = tow.interference(recording, resamples=0).gd
    predicted = result.predicted.to_numpy()
    np.testing.assert_allclose(predicted / predicted.diagonal()[:, None], gd.to_numpy(), rtol=1e-10)


def test_only_the_selected_parameters_move_and_by_the_length_of_the_step():
    model = Point()
    start = model().detach().clone()
    seen = set()

    def watching(model, batch):
        seen.add(round(float((model().detach() - start).norm()), 12))
        assert (model.other == 1).all()
        return bowl(model, batch)

    measured_interference(model, {"a": bowls(3, 1)}, POINT, step=[0.5, 0.125], batches=3, loss=watching, progress=False)
    assert seen == {0.0, 0.125, 0.5}


def bits(model):
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("name", ["plain_mlp", "tied_linears", "lstm", "sparse_embedding", "norms"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_parameters_are_the_same_bits_afterwards(name, dtype):
    specimen = ARCHITECTURES[name].build(dtype)
    before, owned = bits(specimen.model), [id(parameter) for parameter in specimen.model.parameters()]
    measured_interference(
        specimen.model, specimen.datasets, "*", step=0.3, batches=2, loss=specimen.loss, progress=False
    )
    assert bits(specimen.model) == before
    assert [id(parameter) for parameter in specimen.model.parameters()] == owned
    assert all(parameter.grad is None and parameter.requires_grad for parameter in specimen.model.parameters())
    assert specimen.model.training


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_the_parameters_are_the_same_bits_after_an_exception(error):
    model = Point()
    with torch.no_grad():
        model.first[0] = -0.0
    start, before = model().detach().clone(), bits(model)

    def failing(model, batch):
        if (model().detach() != start).any():
            raise error("in the middle of a step")
        return bowl(model, batch)

    with pytest.raises(error, match="in the middle"):
        measured_interference(model, {"a": bowls(3, 1)}, POINT, batches=3, loss=failing, progress=False)
    assert bits(model) == before
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_dataset_that_does_not_reach_the_parameters_is_named_and_left_out():
    specimen = ARCHITECTURES["text_only_and_mixed_datasets"].build(torch.float64)
    result = measured_interference(
        specimen.model, specimen.datasets, specimen.parameters, batches=3, loss=specimen.loss, progress=False
    )
    assert result.untouched == ("text",)
    assert list(result.measured.index) == list(result.measured.columns) == ["mixed", "image"]
    # Two of the three batches of "mixed" are text: they take no step and their loss never changes.
    everything = [result.measured, result.predicted, result.measured_error, result.predicted_error]
    assert all(np.isfinite(table.to_numpy()).all() for table in everything)
    assert result.measured.loc["mixed", "mixed"] == 0
    assert result.relative_error.loc["mixed", "mixed"] == 0


def test_a_change_that_first_order_does_not_see_is_an_infinite_relative_error():
    batches = {}
    for name, axis in (("x", 0), ("y", 1)):
        slope = torch.zeros(10, dtype=torch.float64)
        slope[axis] = 1.0
        # Curved along both axes, sloped along one.
        curvature = torch.diag(torch.tensor([1.0, 1.0] + [0.0] * 8, dtype=torch.float64))
        centre = Point()().detach() - slope
        batches[name] = [{"centre": centre, "curvature": curvature}] * 2
    result = measured_interference(Point(), batches, POINT, step=0.5, batches=2, loss=bowl, progress=False)
    assert result.predicted.loc["x", "y"] == 0
    assert result.measured.loc["x", "y"] == pytest.approx(-0.125)
    assert math.isinf(result.relative_error.loc["x", "y"])


def test_standard_errors_are_the_spread_over_draws_of_batches():
    """A mean over pairs is no mean of independent numbers: naively, errors come out less than half of the spread."""
    generator = torch.Generator().manual_seed(0)
    curvature = torch.eye(10, dtype=torch.float64)

    def draw(shift):
        return [
            {"centre": shift + torch.randn(10, generator=generator, dtype=torch.float64), "curvature": curvature}
            for _ in range(6)
        ]

    model = Point()
    results = [
        measured_interference(
            model, {"a": draw(1.0), "b": draw(-2.0)}, POINT, step=0.1, batches=6, loss=bowl, progress=False
        )
        for _ in range(60)
    ]
    for i, j in (("a", "a"), ("a", "b"), ("b", "a")):
        spread = np.std([result.measured.loc[i, j] for result in results], ddof=1)
        stated = np.sqrt(np.mean([result.measured_error.loc[i, j] ** 2 for result in results]))
        assert stated == pytest.approx(spread, rel=0.3)


def test_shuffled_and_refilled_loaders_give_one_set_of_batches():
    specimen = ARCHITECTURES["loader_that_refills_its_tensors"].build(torch.float64)
    plain = {name: [*list.__iter__(source)] for name, source in specimen.datasets.items()}
    arguments = {"parameters": "*", "step": 0.1, "batches": 3, "loss": specimen.loss, "progress": False}
    refilled = measured_interference(specimen.model, specimen.datasets, **arguments)
    assert refilled.measured.equals(measured_interference(specimen.model, plain, **arguments).measured)
    once = {name: iter(source) for name, source in plain.items()}
    assert refilled.measured.equals(measured_interference(specimen.model, once, **arguments).measured)
    loaders = {name: torch.utils.data.DataLoader(s, batch_size=None, shuffle=True) for name, s in plain.items()}
    seeds = [measured_interference(specimen.model, loaders, **{**arguments, "batches": 2}, seed=s) for s in (0, 0, 2)]
    assert seeds[0].measured.equals(seeds[1].measured)
    assert not seeds[0].measured.equals(seeds[2].measured)


def test_a_loss_that_takes_a_gradient_and_the_default_loss():
    class WithLoss(Point):
        def forward(self, centre):
            return SimpleNamespace(loss=(self.first - centre).square().mean())

    def penalised(model, batch):
        centre = batch["centre"].clone().requires_grad_()
        value = model(centre).loss
        (slope,) = torch.autograd.grad(value, centre, create_graph=True)
        return value + slope.square().sum()

    data = {"a": [{"centre": batch["centre"][:6]} for batch in bowls(2, 1)]}
    for loss in (None, penalised):
        result = measured_interference(WithLoss(), data, "first", step=1e-4, batches=2, loss=loss, progress=False)
        assert result.relative_error.loc["a", "a"] < 0.01


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"step": 0.0}, "positive and finite"),
        ({"step": [0.1, math.inf]}, "positive and finite"),
        ({"step": []}, "positive and finite"),
        ({"step": math.nan}, "positive and finite"),
        ({"batches": 1}, "no batch is paired with itself"),
        ({"batches": 9}, "'a' has 4 batches but 9"),
        ({"parameters": "frist"}, "closest names are first"),
        ({"loss": lambda model, batch: bowl(model, batch).exp(), "step": 1e3}, "after a step of length 1000 along one"),
    ],
)
def test_a_mistake_is_one_clear_sentence(arguments, message):
    settings = {"parameters": POINT, "batches": 4, "loss": bowl, "progress": False, **arguments}
    with pytest.raises(UserError, match=message):
        measured_interference(Point(), {"a": bowls(4, 1)}, **settings)
