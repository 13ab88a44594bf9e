"""Forecasts against what the recording then takes; sizes exactly, times roughly."""

import time

import pytest
import torch
from torch import nn

import tugofwar as tow
from tugofwar import planning
from tugofwar.engine.store import Store


class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.connector = nn.Sequential(nn.Linear(96, 64), nn.GELU(), nn.Linear(64, 48))
        self.head = nn.Linear(48, 1)

    def forward(self, labels, x=None):
        hidden = self.connector(x) if x is not None else torch.ones(len(labels), 48)
        return {"loss": ((self.head(hidden) - labels) ** 2).mean()}


def batches(count, seed):
    generator = torch.Generator().manual_seed(seed)
    return [
        {"x": torch.randn(5, 96, generator=generator), "labels": torch.randn(5, 1, generator=generator)}
        for _ in range(count)
    ]


def texts(count):
    return [{"labels": torch.ones(5, 1)} for _ in range(count)]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Wide()


def datasets(count):
    return {"a": batches(count, 1), "text": texts(count), "b": batches(count, 2)}


def test_sizes_are_those_of_the_recording(model, monkeypatch):
    kept = []
    put = Store.put

    def counting(self, tensor):
        result = put(self, tensor)
        kept.append(result.numel() * result.element_size())
        return result

    forecast = tow.plan(model, datasets(10), batches=10)
    monkeypatch.setattr(Store, "put", counting)
    recording = tow.record(model, datasets(10), batches=10, progress=False)
    assert forecast.factor_bytes == pytest.approx(sum(kept), rel=0.01)
    assert forecast.rows == len(recording) == 20
    assert forecast.untouched == ("text",)
    assert forecast.parameters == sum(recording.parameters.values())
    assert forecast.recording_bytes == sum(triangle.nbytes for triangle in recording.upper_triangles.values())
    assert forecast.advice == ()
    assert forecast.text().endswith("fits")


def test_passes_are_timed(model):
    def slow(model, batch):
        time.sleep(0.01)
        return model(**batch)["loss"]

    forecast = tow.plan(model, datasets(2), batches=50, loss=slow)
    assert forecast.pass_seconds > 3 * 50 * 0.01
    assert forecast.product_seconds > 0


def test_the_model_is_left_as_it_was(model):
    model.train()
    state = torch.get_rng_state()
    tow.plan(model, datasets(2), batches=5)
    assert model.training
    assert (torch.get_rng_state() == state).all()
    assert all(not module._forward_hooks for module in model.modules())


def test_what_does_not_fit_names_the_setting_to_change(model, monkeypatch, tmp_path):
    tight = tow.plan(model, datasets(2), batches=2000, memory="4MB")
    assert "workspace" in tight.advice[0]
    assert "bfloat16" in tight.advice[0]
    monkeypatch.setattr(planning, "free_disk", lambda folder: 1000)
    full = tow.plan(model, datasets(2), batches=2000, workspace=tmp_path)
    assert "disk" in full.advice[0]
    assert full.disk_bytes >= full.factor_bytes
    assert list(tmp_path.iterdir()) == []
    assert "does not fit: the disk" in full.text()
    assert any("merge blocks" in advice for advice in tight.advice)


def test_factors_in_half_precision_are_half_as_large(model):
    whole, half = (
        tow.plan(model, datasets(2), batches=10, factor_dtype=dtype).factor_bytes for dtype in (None, torch.bfloat16)
    )
    assert half < 0.65 * whole


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"datasets": {}}, "no datasets"),
        ({"datasets": {"empty": []}}, "'empty' has no batches"),
        ({"datasets": {"text": texts(2)}}, "Nothing to measure"),
        ({"parameters": "conector.*"}, "closest names"),
        ({"memory": "much"}, "not a size in bytes"),
    ],
)
def test_a_mistake_is_one_clear_sentence(model, arguments, message):
    with pytest.raises(tow.UserError, match=message):
        tow.plan(model, **{"datasets": datasets(2), **arguments})
