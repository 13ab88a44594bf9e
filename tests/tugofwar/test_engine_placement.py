"""LoRA on a frozen base, and models that accelerate has taken apart: captured as if nothing had happened."""

import warnings

import pytest
import torch

import tugofwar as tow

from . import small
from .test_zoo import Oracle
from .zoo import ARCHITECTURES

accelerate = pytest.importorskip("accelerate")


def record(specimen, **settings):
    return tow.record(specimen.model, specimen.datasets, "*", 3, specimen.loss, progress=False, **settings)


@pytest.mark.parametrize("merged", [["*layers.0*", "*layers.1*"], ["*.q_proj.*", "*.v_proj.*", "*.down_proj.*"]])
def test_lora_with_blocks_merged_by_pattern(merged):
    specimen = ARCHITECTURES["lora_on_a_frozen_llama"].build(torch.float64)
    oracle = Oracle(specimen)
    recording = record(specimen, group_blocks=merged)
    assert [block.name for block in recording.blocks] == merged
    assert small.relative_error(recording.gram, oracle.gram(oracle.names, slice(None))) <= 1e-10
    for block in recording.blocks:
        assert len(block.parameters) == 12 // len(merged)
        part = recording.select(block.name)
        assert small.relative_error(part.gram, oracle.gram(list(block.parameters), slice(None))) <= 1e-10


@pytest.mark.parametrize("name", ["lora_on_a_frozen_llama", "llama", "plain_mlp", "soft_mixture_of_experts"])
def test_a_model_with_the_hooks_of_a_device_map(name):
    plain, hooked = (ARCHITECTURES[name].build(torch.float64) for _ in range(2))
    accelerate.dispatch_model(hooked.model, device_map={"": "cpu"}, force_hooks=True)
    assert any(hasattr(module, "_hf_hook") for module in hooked.model.modules())
    assert (record(hooked).gram == record(plain).gram).all()


def test_a_frozen_base_whose_weights_are_offloaded():
    """The frozen layers' weights are on no device but while they are used."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(12, 12), torch.nn.Tanh(), torch.nn.Linear(12, 6)).double()
    model[0].requires_grad_(False)
    specimen = (
        ARCHITECTURES["plain_mlp"]
        .build(torch.float64)
        ._replace(
            model=model,
            datasets={"a": small.batches(3, 1), "b": small.batches(3, 2)},
            loss=lambda model, batch: (model(batch["x"]) - batch["y"]).square().mean(),
        )
    )
    expected = record(specimen)
    accelerate.cpu_offload(model[0], execution_device=torch.device("cpu"))
    assert next(model.parameters()).is_meta
    found = record(specimen)
    assert (found.gram == expected.gram).all()


def test_an_untouched_adapter_of_lora_is_reported():
    """With B at zero, as peft initialises it, no gradient of A is anything but zero."""
    peft = pytest.importorskip("peft")
    base = ARCHITECTURES["llama"].build(torch.float64)
    config = peft.LoraConfig(r=2, target_modules=["q_proj"])
    with warnings.catch_warnings():
        # peft asks transformers for an attribute that is about to be renamed.
        warnings.simplefilter("ignore", FutureWarning)
        model = peft.get_peft_model(base.model, config).double()
    recording = record(base._replace(model=model), statistics=False)
    assert (recording.select("*.lora_A.default").gram == 0).all()
    assert (recording.select("*.lora_B.default").gram.diagonal() > 0).all()
