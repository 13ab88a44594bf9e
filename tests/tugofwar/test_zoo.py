"""record() on all of the zoo. Oracle: one plain backward per batch, flattened and multiplied in float64."""

import fnmatch
import warnings
from contextlib import contextmanager

import numpy as np
import pytest
import torch

import tugofwar as tow

from .zoo import ARCHITECTURES, Specimen
from .zoo.frame import BATCHES

# Largest |difference of an entry| / (norm of the one gradient x norm of the other).
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5}

CASES = [
    pytest.param(entry, dtype, id=f"{entry.name}-{str(dtype).removeprefix('torch.')}")
    for entry in ARCHITECTURES.values()
    for dtype in entry.dtypes
]
ONE_OF_EACH = [pytest.param(entry, entry.dtypes[0], id=entry.name) for entry in ARCHITECTURES.values()]
MUST_WARN = [
    pytest.param(entry, dtype, id=f"{entry.name}-{str(dtype).removeprefix('torch.')}")
    for entry in ARCHITECTURES.values()
    for dtype in entry.dtypes
    if entry.must_name
]


@contextmanager
def warnings_if_allowed(entry):
    """Warnings stay errors (pyproject.toml), except those of an architecture that may fall back."""
    if not entry.may_warn:
        yield []
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught


def recorded(entry, specimen):
    with warnings_if_allowed(entry) as caught:
        recording = tow.record(
            specimen.model,
            specimen.datasets,
            specimen.parameters,
            batches=BATCHES,
            loss=specimen.loss,
            progress=False,
        )
    return recording, [str(warning.message) for warning in caught]


class Oracle:
    """The rows of every parameter, ``(n, numel)`` float64, and the losses, ``(n,)``, of all batches in order."""

    def __init__(self, specimen: Specimen) -> None:
        self.model = specimen.model
        self.names = [
            name
            for name, parameter in specimen.model.named_parameters()
            if parameter.requires_grad and fnmatch.fnmatchcase(name, specimen.parameters)
        ]
        self.losses, self.datasets, rows = [], [], []
        modes = {module: module.training for module in specimen.model.modules()}
        specimen.model.eval()
        for name, batches in specimen.datasets.items():
            for batch in batches:
                rows.append(self._backward(specimen, batch))
                self.datasets.append(name)
        for module, mode in modes.items():
            module.training = mode
        self.rows = {name: torch.stack([row[name] for row in rows]) for name in self.names}

    def _backward(self, specimen: Specimen, batch) -> dict[str, torch.Tensor]:
        value = specimen.loss(self.model, batch) if specimen.loss else self.model(**batch)["loss"]
        value.backward()
        self.losses.append(float(value.detach()))
        row = {}
        for name, parameter in self.model.named_parameters():
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            dense = gradient.to_dense() if gradient.is_sparse else gradient
            row[name] = dense.detach().flatten().double()
            parameter.grad = None
        return row

    def gram(self, names, kept) -> np.ndarray:
        rows = torch.cat([self.rows[name] for name in names], 1)[kept]
        return (rows @ rows.T).numpy()


def relative_error(measured, exact):
    """``max |dK_ab| / sqrt(K_aa K_bb)``; where a gradient is zero its products have to be zero exactly."""
    norms = np.sqrt(np.diagonal(exact))
    scale = np.outer(norms, norms)
    assert (measured[scale == 0] == 0).all()
    return float((abs(measured - exact)[scale > 0] / scale[scale > 0]).max(initial=0.0))


def test_the_zoo_is_large_and_its_oracle_sees_something():
    assert len(ARCHITECTURES) > 70  # as the README says
    for entry in (ARCHITECTURES["plain_mlp"], ARCHITECTURES["gradient_penalty_inside_the_loss"]):
        oracle = Oracle(entry.build(torch.float64))
        assert (oracle.gram(oracle.names, slice(None)).diagonal() > 1e-6).all()


@pytest.mark.parametrize(("entry", "dtype"), CASES)
def test_gram_equals_plain_autograd(entry, dtype):
    tolerance = entry.tolerance or TOLERANCE[dtype]
    specimen = entry.build(dtype)
    oracle = Oracle(specimen)
    recording, _ = recorded(entry, specimen)

    assert recording.untouched == entry.untouched
    kept = [row for row, name in enumerate(oracle.datasets) if name not in entry.untouched]
    assert recording.datasets == [oracle.datasets[row] for row in kept]
    np.testing.assert_allclose(recording.losses, np.array(oracle.losses)[kept], rtol=tolerance)
    assert list(recording.parameters) == oracle.names
    exact = oracle.gram(oracle.names, kept)
    assert exact.max() > 0
    assert relative_error(recording.gram, exact) <= tolerance
    for block in recording.blocks:
        part = recording.select(block.name) if block.name != "(model)" else recording
        names = [name for other in part.blocks for name in other.parameters]
        assert relative_error(part.gram, oracle.gram(names, kept)) <= tolerance, block.name


def trace(model):
    """Everything about a model that a probe might leave changed."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks")
    return {
        "state": {name: value.clone() for name, value in model.state_dict().items() if name != "page"},
        "parameters": [id(parameter) for parameter in model.parameters()],
        "requires_grad": [parameter.requires_grad for parameter in model.parameters()],
        "grad": [parameter.grad for parameter in model.parameters()],
        "tensor hooks": [len(parameter._backward_hooks or ()) for parameter in model.parameters()],
        "training": [module.training for module in model.modules()],
        "classes": [type(module) for module in model.modules()],
        "attributes": [sorted(vars(module)) for module in model.modules()],
        "hooks": [[list(getattr(module, kind)) for kind in hooks] for module in model.modules()],
    }


@pytest.mark.parametrize(("entry", "dtype"), ONE_OF_EACH)
def test_the_model_is_left_as_it_was(entry, dtype):
    specimen = entry.build(dtype)
    # A model may prepare itself on its first call, as those of transformers do.
    Oracle(specimen)
    specimen.model.train()
    before = trace(specimen.model)
    recorded(entry, specimen)
    after = trace(specimen.model)
    states = before.pop("state"), after.pop("state")
    assert states[0].keys() == states[1].keys()
    assert all((states[0][name] == states[1][name]).all() for name in states[0])
    assert after == before


@pytest.mark.parametrize(("entry", "dtype"), ONE_OF_EACH)
def test_recorded_again_the_numbers_are_the_same(entry, dtype):
    specimen = entry.build(dtype)
    first, _ = recorded(entry, specimen)
    second, _ = recorded(entry, specimen)
    assert (first.gram == second.gram).all()


def test_an_input_overwritten_after_it_was_read_is_refused_or_right():
    """Plain autograd refuses this; an engine may refuse as well or measure what was read, nothing else."""

    class Overwriting(torch.nn.Module):
        def __init__(self, in_place: bool) -> None:
            super().__init__()
            self.in_place = in_place
            self.middle = torch.nn.Linear(16, 14)
            self.head = torch.nn.Linear(14, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            read = x.sin()
            hidden = self.middle(read)
            read = read.mul_(3) if self.in_place else read * 3
            return self.head(hidden.tanh() + read[:, :14])

    mlp = ARCHITECTURES["plain_mlp"].build(torch.float64)
    models = {in_place: Overwriting(in_place).double() for in_place in (False, True)}
    models[True].load_state_dict(models[False].state_dict())
    oracle = Oracle(mlp._replace(model=models[False]))
    refusal, gram = None, None
    try:
        gram = tow.record(models[True], mlp.datasets, "*", batches=BATCHES, loss=mlp.loss, progress=False).gram
    except (RuntimeError, tow.UserError) as error:
        refusal = str(error)
    if gram is None:
        assert "in-place" in refusal or "inplace" in refusal
    else:
        assert relative_error(gram, oracle.gram(oracle.names, slice(None))) <= 1e-10


def test_autocast_agrees_with_the_product_of_its_factors():
    """bfloat16 holds 8 bits, and a layer's own weight gradient is rounded to it; the product in float64 is not."""
    specimen = ARCHITECTURES["autocast_bfloat16"].build(torch.float32)
    rows = []

    def watch(module, arguments, output):
        read = arguments[0].detach().bfloat16().double()
        output.register_hook(
            lambda gradient: rows.append(torch.cat([(gradient.double().T @ read).flatten(), gradient.double().sum(0)]))
        )

    handle = specimen.model[2].register_forward_hook(watch)
    Oracle(specimen)
    handle.remove()
    stacked = torch.stack(rows)
    recording, _ = recorded(ARCHITECTURES["autocast_bfloat16"], specimen)
    assert relative_error(recording.select("2").gram, (stacked @ stacked.T).numpy()) <= 5e-3


@pytest.mark.parametrize(("entry", "dtype"), MUST_WARN)
def test_a_fall_back_is_announced_and_names_the_module(entry, dtype):
    _, messages = recorded(entry, entry.build(dtype))
    assert any(entry.must_name in message for message in messages)
