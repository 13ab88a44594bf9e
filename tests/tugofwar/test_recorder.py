"""Oracle: one plain backward per batch, flattened and multiplied."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import tugofwar as tow
from tugofwar.errors import UserError
from tugofwar.probing import move_to


class Model(nn.Module):
    """Images pass a connector on their way to the head; text goes to the head directly."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        self.vision = nn.Linear(6, 5, dtype=dtype)
        self.connector = nn.Sequential(nn.Linear(5, 4, dtype=dtype), nn.Tanh(), nn.Linear(4, 3, dtype=dtype))
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(3, 1, dtype=dtype)

    def forward(self, labels, pixels=None, text=None):
        hidden = self.connector(self.vision(pixels["values"])) if pixels is not None else text
        return SimpleNamespace(loss=((self.head(self.dropout(hidden)) - labels) ** 2).mean())


def images(count, seed, dtype=torch.float64, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return [
        {
            "pixels": {"values": torch.randn(4, 6, generator=generator, dtype=dtype)},
            "labels": scale * torch.randn(4, 1, generator=generator, dtype=dtype) + scale,
        }
        for _ in range(count)
    ]


def texts(count):
    generator = torch.Generator().manual_seed(9)
    return [
        {
            "text": torch.randn(4, 3, generator=generator, dtype=torch.float64),
            "labels": torch.ones(4, 1).double(),
        }
        for _ in range(count)
    ]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Model()


def plain_gram(model, batches, prefix="connector"):
    model.eval()
    rows = []
    for batch in batches:
        model.zero_grad()
        model(**batch).loss.backward()
        rows.append(torch.cat([p.grad.flatten() for n, p in model.named_parameters() if n.startswith(prefix)]))
    model.zero_grad()
    stacked = torch.stack(rows).double()
    return (stacked @ stacked.T).numpy()


def test_gram_equals_plain_autograd(model):
    data = {"a": images(3, 1), "b": images(3, 2)}
    recording = tow.record(model, data, batches=3, progress=False)
    exact = plain_gram(model, data["a"] + data["b"])
    np.testing.assert_allclose(recording.gram, exact, rtol=1e-12)
    assert (recording.gram == recording.gram.T).all()
    assert recording.datasets == ["a"] * 3 + ["b"] * 3
    assert [block.name for block in recording.blocks] == ["connector.0", "connector.2"]
    first = recording.select("connector.0").gram
    np.testing.assert_allclose(first, plain_gram(model, data["a"] + data["b"], "connector.0"), rtol=1e-12)


def test_float32_models_are_as_exact_as_float32():
    torch.manual_seed(0)
    model = Model(torch.float32)
    data = {"a": images(3, 1, torch.float32)}
    gram = tow.record(model, data, batches=3, progress=False).gram
    exact = plain_gram(model, data["a"])
    norms = np.sqrt(np.diagonal(exact))
    assert (abs(gram - exact) / np.outer(norms, norms)).max() < 2e-6


def state_of(model):
    return (
        [module.training for module in model.modules()],
        [parameter.requires_grad for parameter in model.parameters()],
        [parameter.grad for parameter in model.parameters()],
        torch.get_rng_state().tolist(),
        random.getstate(),
        np.random.get_state()[1].tolist(),
    )


def failing(batches):
    yield from batches
    raise RuntimeError("the disk is gone")


@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_put_back(model, fails):
    model.train()
    model.vision.eval()
    model.head.bias.requires_grad_(False)
    model.connector[0].weight.grad = torch.ones_like(model.connector[0].weight)
    before = state_of(model)
    kept = before[2][2].clone()
    if fails:
        with pytest.raises(RuntimeError, match="disk is gone"):
            tow.record(model, {"a": failing(images(2, 1))}, batches=3, progress=False)
    else:
        tow.record(model, {"a": images(2, 1)}, batches=2, progress=False)
    after = state_of(model)
    assert after[:2] == before[:2]
    assert all(mine is theirs for mine, theirs in zip(after[2], before[2], strict=True))
    assert (after[2][2] == kept).all()
    assert after[3:] == before[3:]


def test_dropout_is_off_even_in_a_model_that_trains(model):
    model.train()
    first = tow.record(model, {"a": images(3, 1)}, batches=3, progress=False)
    second = tow.record(model, {"a": images(3, 1)}, batches=3, seed=5, progress=False)
    assert (first.gram == second.gram).all()


def test_recording_works_inside_no_grad(model):
    with torch.no_grad():
        assert tow.record(model, {"a": images(2, 1)}, batches=2, progress=False).gram[0, 0] > 0


def test_a_text_only_dataset_is_untouched_and_has_no_rows(model):
    recording = tow.record(model, {"text": texts(3), "a": images(3, 1)}, batches=3, progress=False)
    assert recording.untouched == ("text",)
    assert recording.datasets == ["a"] * 3
    with pytest.raises(UserError, match="not touching the selected parameters, because no gradient reaches them: text"):
        tow.record(model, {"text": texts(3)}, batches=3, progress=False)


def test_a_mixed_dataset_has_zero_rows_for_its_text(model):
    mixed = [texts(1)[0], *images(2, 1)]
    gram = tow.record(model, {"mixed": mixed}, batches=3, progress=False).gram
    assert (gram[0] == 0).all()
    assert (np.diagonal(gram)[1:] > 0).all()


def test_the_loss_can_be_the_callers(model):
    data = {"a": images(2, 1)}
    plain = tow.record(model, data, batches=2, progress=False)
    doubled = tow.record(model, data, batches=2, progress=False, loss=lambda model, batch: 2 * model(**batch).loss)
    np.testing.assert_allclose(doubled.gram, 4 * plain.gram, rtol=1e-12)
    np.testing.assert_allclose(doubled.losses, 2 * plain.losses, rtol=1e-12)


def test_a_shuffling_loader_is_repeatable_by_seed(model):
    data = images(6, 1)
    loader = torch.utils.data.DataLoader(data, batch_size=None, shuffle=True)
    grams = [tow.record(model, {"a": loader}, batches=3, seed=s, progress=False).gram for s in (0, 0, 1)]
    assert (grams[0] == grams[1]).all()
    assert (grams[0] != grams[2]).any()


def test_batches_are_moved_with_their_structure():
    pair = SimpleNamespace(untouched=1)
    moved = move_to({"a": [torch.ones(1)], "b": (torch.ones(1), "text"), "c": pair}, torch.device("meta"))
    assert moved["a"][0].is_meta
    assert moved["b"][0].is_meta
    assert moved["b"][1] == "text"
    assert moved["c"] is pair


def with_nan(batches):
    batches[1]["labels"][0] = float("nan")
    return batches


def fail_in_gradient(model, batch):
    # sqrt has a finite value and an infinite slope at zero.
    return torch.sqrt((model.connector[0].weight * 0).sum())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"datasets": {}}, "no datasets"),
        ({"batches": 0}, "at least 1"),
        ({"batches": 2.0}, r"at least 1; got 2\.0"),
        ({"seed": -1}, "whole number from 0; got -1"),
        ({"datasets": {"short": images(2, 1)}}, "'short' has 2 batches but 3 are asked for"),
        ({"datasets": {"stream": iter(images(2, 1))}}, "'stream' has 2 batches but 3 are asked for"),
        ({"datasets": {"bad": with_nan(images(3, 1))}}, "loss of batch 2 of dataset 'bad' is nan"),
        (
            {"loss": fail_in_gradient},
            "gradient of connector.0.weight in batch 1 of dataset 'a' is not finite",
        ),
        (
            {"loss": lambda model, batch: model.head(torch.ones(2, 3).double())},
            "not a scalar tensor but shape",
        ),
        ({"loss": lambda model, batch: 1.0}, "not a scalar tensor but float"),
        ({"loss": lambda model, batch: model(**batch).loss + torch.rand(())}, "when computed twice"),
        ({"datasets": {"a": [[1], [2], [3]]}}, "a batch is a list"),
        ({"metadata": {"when": object()}}, "strict JSON"),
        ({"metadata": {"loss": float("nan")}}, "strict JSON"),
        ({"parameters": "conector.*"}, "closest names"),
    ],
)
def test_a_mistake_is_one_clear_sentence(model, arguments, message):
    settings = {"datasets": {"a": images(3, 1)}, "batches": 3, "progress": False, **arguments}
    with pytest.raises(UserError, match=message):
        tow.record(model, **settings)


def test_a_model_without_loss_is_an_error():
    with pytest.raises(UserError, match="returned no loss"):
        tow.record(nn.Linear(1, 1), {"a": [{"input": torch.ones(1)}]}, "*", batches=1, progress=False)


def test_progress_goes_to_stderr_only(model, capsys):
    tow.record(model, {"a": images(2, 1)}, batches=2)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "2/2" in printed.err


def test_a_complex_parameter_is_named():
    model = nn.Module()
    model.scale = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    with pytest.raises(UserError, match="scale is complex"):
        tow.record(model, {"a": [1]}, "*", 1, lambda model, _: model.scale.abs().sum(), progress=False)
