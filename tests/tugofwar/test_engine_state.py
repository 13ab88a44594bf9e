"""Whatever goes wrong, and whenever: the model and its surroundings are as before, and nothing is left behind."""

import gc
import random
import weakref

import numpy as np
import pytest
import torch

import tugofwar as tow
from tugofwar import recorder
from tugofwar.engine import assembly
from tugofwar.engine.outputs import MeansFile

from . import small
from .test_zoo import trace


def surroundings():
    return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist(), torch.is_grad_enabled()


def prepared():
    """A model in an unusual state: partly in evaluation mode, partly frozen, with gradients and a hook."""
    model = small.build()
    model.experts[0].eval()
    model.norm.bias.requires_grad_(False)
    model.router.weight.grad = torch.ones_like(model.router.weight)
    model.router.register_forward_hook(lambda *_: None)
    return model


def interrupting(batches):
    yield from batches
    raise KeyboardInterrupt


def failing_at(call):
    calls = []

    def loss(model, batch):
        calls.append(batch)
        if len(calls) == call:
            raise ValueError("no such token")
        return small.loss(model, batch)

    return loss


def fail(*_):
    raise ValueError("no such token")


PHASES = {
    "first pass": ({"loss": failing_at(1)}, {}),
    "second pass of the first batch": ({"loss": failing_at(2)}, {}),
    "second batch": ({"loss": failing_at(3)}, {}),
    "second dataset": ({"loss": failing_at(6)}, {}),
    "iterable": ({"datasets": {"a": interrupting(small.batches(2, 1))}}, {}),
    "products": ({}, {(assembly, "gradient_chunks"): fail}),
    "file of means": ({}, {(MeansFile, "__call__"): fail}),
    "file that cannot be begun": ({}, {(recorder, "ScoresFile"): fail}),
    "interrupted in the products": ({}, {(assembly.Assembly, "_add_part"): lambda *_: interrupting([]).__next__()}),
}


@pytest.mark.parametrize("phase", PHASES)
def test_everything_is_put_back(tmp_path, monkeypatch, phase):
    settings, patches = PHASES[phase]
    model = prepared()
    before = trace(model), surroundings()
    gradient = model.router.weight.grad.clone()
    data = {"a": small.batches(3, 1), "b": small.batches(3, 2)}
    arguments = {"datasets": data, "loss": small.loss, **settings}
    files = {"workspace": tmp_path, "keep_means": True, "keep_scores": True}
    with monkeypatch.context() as patch:
        for (owner, name), replacement in patches.items():
            patch.setattr(owner, name, replacement)
        with pytest.raises((ValueError, KeyboardInterrupt)):
            tow.record(model, parameters="*", batches=3, progress=False, **arguments, **files)
    after = trace(model), surroundings()
    state_before, state_after = (each[0].pop("state") for each in (before, after))
    assert all(torch.equal(state_before[name], state_after[name]) for name in state_before)
    assert after == before
    assert torch.equal(model.router.weight.grad, gradient)
    assert [path.name for path in tmp_path.iterdir() if path.name != "factors"] == []

    recording = tow.record(model, data, "*", 3, small.loss, progress=False, **files)
    model.zero_grad()
    assert small.relative_error(recording.gram, small.gram(model, data)) <= 1e-12
    assert sorted(path.name for path in tmp_path.iterdir()) == ["means.safetensors", "scores.safetensors"]


class Box:
    """What a graph holds in the place of a tensor that it saves for its backward pass."""

    def __init__(self, tensor):
        self.tensor = tensor


@pytest.mark.parametrize("parameters", ["*", "norm.*", "experts.*.2.*"])
def test_no_graph_outlives_its_batch(parameters):
    """What a batch computed is gone when the next one begins, without waiting for the garbage collector.

    Of a model that is selected in part, backward passes visit, and so free, a part only.
    """
    saved: list[list[weakref.ref]] = []
    left_over = []

    def pack(tensor):
        # Detached, because an output that is saved would hold the graph that holds it.
        box = Box(tensor.detach())
        saved[-1].append(weakref.ref(box))
        return box

    def watched(model, batch):
        left_over.append(sum(reference() is not None for references in saved for reference in references))
        saved.append([])
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda box: box.tensor):
            return small.loss(model, batch)

    gc.collect()
    gc.disable()
    try:
        data = {"a": small.batches(3, 1), "b": small.batches(3, 2)}
        tow.record(small.build(), data, parameters, 3, watched, progress=False)
    finally:
        gc.enable()
    assert len(saved) == 8
    assert min(map(len, saved)) >= 10
    assert left_over == [0] * 8
