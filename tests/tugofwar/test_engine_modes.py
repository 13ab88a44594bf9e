"""Every way to keep and to multiply gradients gives the Gram matrix of plain autograd, in float64."""

import pytest
import torch
from torch import nn

import tugofwar as tow
from tugofwar.engine import assembly, passes
from tugofwar.engine.choice import Keeping, Operations

from . import small
from .test_zoo import Oracle, warnings_if_allowed
from .zoo import ARCHITECTURES
from .zoo.frame import BATCHES

SLOW = ("llava", "llama", "gpt2", "lora_on_a_frozen_llama")
MODES = ("factors", "dense", "token kernel", "rebuilt")
CASES = [entry for entry in ARCHITECTURES.values() if torch.float64 in entry.dtypes and entry.name not in SLOW]


def force(monkeypatch, mode):
    """Make the engine keep, or multiply, every part in one way, wherever it has the choice."""
    if mode in ("factors", "dense"):
        monkeypatch.setattr(passes, "choose_keeping", lambda *_: Keeping(mode, "forced"))
    else:
        monkeypatch.setattr(passes, "choose_keeping", lambda *_: Keeping("factors", "forced"))
        kernel = 0.0 if mode == "token kernel" else 2.0
        monkeypatch.setattr(assembly, "count_operations", lambda *_: Operations(1.0, kernel))


def record_zoo(entry, **settings):
    specimen = entry.build(torch.float64)
    oracle = Oracle(specimen)
    with warnings_if_allowed(entry):
        recording = tow.record(
            specimen.model,
            specimen.datasets,
            specimen.parameters,
            batches=BATCHES,
            loss=specimen.loss,
            progress=False,
            **settings,
        )
    kept = [row for row, name in enumerate(oracle.datasets) if name not in entry.untouched]
    return recording, oracle.gram(oracle.names, kept)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("entry", CASES, ids=lambda entry: entry.name)
def test_forced_modes_agree_with_autograd(monkeypatch, entry, mode):
    force(monkeypatch, mode)
    recording, exact = record_zoo(entry, statistics=False)
    assert small.relative_error(recording.gram, exact) <= 1e-10


@pytest.mark.parametrize("name", SLOW)
def test_pretrained_architectures_by_the_token_kernel(monkeypatch, name):
    force(monkeypatch, "token kernel")
    recording, exact = record_zoo(ARCHITECTURES[name])
    assert small.relative_error(recording.gram, exact) <= 1e-10


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("entry", CASES[::4], ids=lambda entry: entry.name)
def test_a_tiny_budget_rebuilds_single_rows_to_the_same_matrix(monkeypatch, tmp_path, entry, mode):
    force(monkeypatch, mode)
    # The token kernel takes pairs of batches; where even those do not fit, single rows are rebuilt.
    recording, exact = record_zoo(
        entry, memory=20_000 if mode == "token kernel" else 1000, workspace=tmp_path, resume=False
    )
    assert small.relative_error(recording.gram, exact) <= 1e-10
    assert list(tmp_path.iterdir()) == []


def forced(monkeypatch, mode, **settings):
    force(monkeypatch, mode)
    data = {"a": small.batches(4, 1), "b": small.batches(4, 2, idle=(1,))}
    recording = tow.record(small.build(), data, "*", batches=4, loss=small.loss, progress=False, **settings)
    return recording, small.gram(small.build(), data)


@pytest.mark.parametrize(
    ("mode", "kept", "products"),
    [
        ("factors", "factors", "rebuilt"),
        ("dense", "dense", "dense rows"),
        ("token kernel", "factors", "token kernel"),
        ("rebuilt", "factors", "rebuilt"),
    ],
)
def test_a_forced_mode_is_really_taken_and_reported(monkeypatch, mode, kept, products):
    recording, exact = forced(monkeypatch, mode)
    assert small.relative_error(recording.gram, exact) <= 1e-12
    choices = {choice.part: choice for choice in recording.choices}
    assert (choices["experts.0.0.weight"].kept, choices["experts.0.0.weight"].multiplied) == (kept, products)
    assert choices["norm.weight, norm.bias"].kept == "dense"


@pytest.mark.parametrize("mode", ["token kernel", "rebuilt"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_rounded_factors(monkeypatch, mode, dtype):
    recording, exact = forced(monkeypatch, mode, factor_dtype=dtype)
    error = small.relative_error(recording.gram, exact)
    assert 0 < error <= (1e-6 if dtype == torch.float32 else 5e-3)


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_factors_beyond_the_range_of_float16_are_refused(monkeypatch, scale):
    force(monkeypatch, "factors")
    model, data = small.build(dtype=torch.float32), {"a": small.batches(2, 1, dtype=torch.float32)}

    def scaled(model, batch):
        return scale * small.loss(model, batch)

    settings = {"batches": 2, "loss": scaled, "progress": False}
    with pytest.raises(tow.UserError, match=r"batch 1 of dataset 'a' are too large or too small for float16"):
        tow.record(model, data, "*", factor_dtype=torch.float16, **settings)
    rounded = tow.record(model, data, "*", factor_dtype=torch.bfloat16, **settings)
    assert small.relative_error(rounded.gram / scale**2, small.gram(model, data)) <= 5e-3


def test_factors_are_stored_in_a_floating_precision():
    with pytest.raises(tow.UserError, match=r"such as torch\.bfloat16; got torch\.int8"):
        tow.record(small.build(), {"a": small.batches(1, 1)}, "*", 1, small.loss, factor_dtype=torch.int8)


def test_statistics_do_not_depend_on_the_mode(monkeypatch, tmp_path):
    counts = []
    for mode in MODES:
        with monkeypatch.context() as patch:
            recording, _ = forced(patch, mode, memory=20_000 if mode == "rebuilt" else None, workspace=tmp_path)
            counts.append({name: array for name, array in recording.statistics.to_arrays().items() if "ten" in name})
    assert counts[0]
    for other in counts[1:]:
        assert all((other[name] == counts[0][name]).all() for name in counts[0])


def test_few_tokens_at_a_wide_layer_choose_the_token_kernel_by_themselves():
    torch.manual_seed(0)
    model = nn.Linear(200, 150, bias=False).double()
    data = {"a": [{"input": torch.randn(20, 200, dtype=torch.float64)} for _ in range(5)]}
    settings = {"batches": 5, "loss": lambda model, batch: model(**batch).square().mean(), "progress": False}
    kernel = tow.record(model, data, "*", statistics=False, **settings)
    rebuilt = tow.record(model, data, "*", **settings)
    assert [choice.multiplied for choice in (*kernel.choices, *rebuilt.choices)] == ["token kernel", "rebuilt"]
    assert small.relative_error(kernel.gram, rebuilt.gram) <= 1e-12


def test_a_batch_of_many_tokens_does_not_go_through_the_token_kernel_beyond_the_buffer():
    """Its products alone would be ``tokens^2``."""
    torch.manual_seed(0)
    model = nn.Linear(200, 150, bias=False).double()
    data = {"a": [{"input": torch.randn(60, 200, dtype=torch.float64)}]}
    settings = {"loss": lambda model, batch: model(**batch).square().mean(), "progress": False, "statistics": False}
    multiplied = {}
    for memory in ("8MB", "400kB"):
        recording = tow.record(model, data, "*", 1, memory=memory, **settings)
        multiplied[memory] = recording.choices[0].multiplied
        exact = small.gram(model, data, loss=settings["loss"])
        assert small.relative_error(recording.gram, exact) <= 1e-12
    assert multiplied == {"8MB": "token kernel", "400kB": "rebuilt"}


def test_report_says_what_was_chosen_with_numbers():
    report = tow.record(
        small.build(), {"a": small.batches(2, 1)}, "*", 2, small.loss, progress=False, statistics=False
    ).report()
    lines = {line.split()[0]: line for line in report.splitlines()}
    assert "factors" in lines["experts.0.0.weight"]
    assert "dense 1.34 kB per batch" in lines["experts.0.0.weight"]
    assert "multiply-adds" in lines["experts.0.0.weight"]
    assert "dense rows" in lines["token"]


def test_blocks_merged_by_pattern_sum_to_the_whole():
    data = {"a": small.batches(3, 1), "b": small.batches(3, 2)}
    model = small.build()
    settings = {"batches": 3, "loss": small.loss, "progress": False}
    merged = tow.record(model, data, "*", group_blocks=["experts.0.*", "experts.1.*"], **settings)
    assert [block.name for block in merged.blocks] == ["(model)", "experts.0.*", "experts.1.*", "router", "norm"]
    assert small.relative_error(merged.gram, small.gram(model, data)) <= 1e-12
    names = [name for name, _ in model.named_parameters() if name.startswith("experts.1.")]
    assert small.relative_error(merged.select("experts.1.*").gram, small.gram(model, data, names=names)) <= 1e-12
    apart = tow.record(model, data, "*", **settings)
    assert small.relative_error(merged.gram, apart.gram) <= 1e-14
