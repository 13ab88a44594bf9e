"""Hooks on models of every shape, against pooling by hand."""

from collections import OrderedDict
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import pytest
import torch
from torch import nn

from tugofwar.errors import UserError
from tugofwar.features.capture import capture_features, find_module, require_comparable


@dataclass
class Output:
    loss: torch.Tensor
    tokens: torch.Tensor
    inputs: torch.Tensor


class Doubling(nn.Module):
    """Twice its input, given back in the wanted form."""

    def __init__(self, form):
        super().__init__()
        self.form = form

    def forward(self, ids, tokens):
        doubled = 2 * tokens
        loss = doubled.mean()
        return {
            "tensor": doubled,
            "tuple": (loss, doubled, tokens),
            "mapping": OrderedDict(loss=loss, last=doubled, first=tokens),
            "dataclass": Output(loss, doubled, tokens),
            "nested": ((loss,), {"x": [doubled]}),
        }[self.form]


class Model(nn.Module):
    def __init__(self, form="tensor", by_keyword=False, times=1):
        super().__init__()
        self.shared = Doubling(form)
        self.head = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))
        self.by_keyword, self.times = by_keyword, times

    def forward(self, tokens, attention_mask=None, text=False):
        ids = torch.zeros(len(tokens), 2, dtype=torch.long)
        for part in tokens.chunk(self.times, dim=1) if not text else ():
            _ = self.shared(ids=ids, tokens=part) if self.by_keyword else self.shared(ids, part)
        return self.head(tokens)


def tokens_of(batches, rows=4, tokens=6, width=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, tokens, width, generator=generator) for _ in range(batches)]


def captured(model, datasets, samples=8, module="shared", **options):
    return capture_features(model, datasets, module, samples, **options)


@pytest.mark.parametrize("by_keyword", [False, True])
@pytest.mark.parametrize("form", ["tensor", "tuple", "mapping", "dataclass", "nested"])
def test_the_first_wide_enough_tensor_of_every_form_is_averaged_over_tokens(form, by_keyword):
    batches = tokens_of(2)
    found = captured(Model(form, by_keyword), {"a": [{"tokens": each} for each in batches]})
    expected = torch.cat(batches).mean(1).numpy()
    np.testing.assert_allclose(found.stages["before"], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.stages["after"], 2 * expected, rtol=1e-5, atol=1e-6)
    assert found.datasets == ("a",) * 8
    assert found.stages["after"].dtype == np.float32


def test_padding_does_not_count_whatever_it_holds():
    (tokens,) = tokens_of(1)
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1], [0, 1, 0, 1, 0, 0]])
    padded = tokens.clone()
    padded[mask == 0] = float("nan")
    found = captured(Model(), {"a": [{"tokens": padded, "attention_mask": mask}]}, samples=4)
    expected = [row[keep == 1].mean(0).numpy() for row, keep in zip(tokens, mask, strict=True)]
    np.testing.assert_allclose(found.stages["before"], np.stack(expected), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.stages["after"], 2 * np.stack(expected), rtol=1e-5, atol=1e-6)


def test_a_mask_of_another_shape_is_that_of_something_else():
    (tokens,) = tokens_of(1)
    mask = torch.zeros(4, 9, dtype=torch.long)
    found = captured(Model(), {"a": [{"tokens": tokens, "attention_mask": mask}]}, samples=4)
    np.testing.assert_allclose(found.stages["before"], tokens.mean(1).numpy(), rtol=1e-5, atol=1e-6)


def test_a_row_of_padding_alone_has_no_mean():
    batch = {"tokens": tokens_of(1)[0], "attention_mask": torch.zeros(4, 6, dtype=torch.long)}
    with pytest.raises(UserError, match=r"shared on dataset a has a row without a token"):
        captured(Model(), {"a": [batch]})


def test_tokens_of_several_calls_are_averaged_together():
    batches = tokens_of(2)
    found = captured(Model(times=3), {"a": [{"tokens": each} for each in batches]})
    assert found.calls == 3
    np.testing.assert_allclose(found.stages["before"], torch.cat(batches).mean(1).numpy(), atol=1e-6)


def test_a_module_without_tokens_keeps_its_rows():
    x = torch.randn(5, 3)
    model = nn.Sequential(nn.Linear(3, 2))
    found = captured(model, {"a": [x]}, samples=5, module="0", forward=lambda model, batch: model(batch))
    np.testing.assert_array_equal(found.stages["before"], x.numpy())
    assert found.stages["after"].shape == (5, 2)


def test_half_precision_is_averaged_in_full():
    x = torch.full((2, 4096, 1), 1.001).to(torch.bfloat16)
    found = captured(nn.Sequential(nn.Identity()), {"a": [x]}, 2, "0", forward=lambda model, batch: model(batch))
    np.testing.assert_allclose(found.stages["before"], x.float().mean(1).numpy(), rtol=1e-6)


def test_no_more_samples_than_asked_for_and_no_more_batches_than_that():
    endless = {"images": repeat({"tokens": tokens_of(1)[0]}), "text": repeat({"tokens": tokens_of(1)[0], "text": True})}
    found = captured(Model(), endless, samples=6)
    assert found.datasets == ("images",) * 6
    assert found.untouched == ("text",)
    assert found.stages["before"].shape == (6, 3)


def test_the_model_comes_back_as_it_was_and_was_evaluated_meanwhile():
    model = Model()
    model.train()
    model.head[1].eval()
    model.head[0].weight.grad = torch.ones(3, 3)
    modes = []

    def forward(model, batch):
        modes.append((model.training, torch.is_grad_enabled()))
        return model(**batch)

    state = torch.get_rng_state()
    captured(model, {"a": [{"tokens": each} for each in tokens_of(2)]}, forward=forward)
    assert modes == [(False, False)] * 2
    assert model.training
    assert model.head[0].training
    assert not model.head[1].training
    assert (model.head[0].weight.grad == 1).all()
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.shared._forward_hooks


def test_a_failing_pass_leaves_no_hook():
    model = Model()
    with pytest.raises(ZeroDivisionError):
        captured(model, {"a": [{"tokens": tokens_of(1)[0]}]}, forward=lambda model, batch: 1 / 0)
    assert not model.shared._forward_hooks


def test_a_glob_must_match_one_module():
    model = nn.ModuleDict({"wrapped": Model()})
    assert find_module(model, "shared")[0] == "wrapped.shared"
    assert find_module(model, "head.0")[1] is model["wrapped"].head[0]
    with pytest.raises(UserError, match=r"'shard' matches no module of the model; the closest names are .*shared"):
        find_module(model, "shard")
    with pytest.raises(UserError, match=r"matches 2 modules \(wrapped.head.0, wrapped.head.1\); name one"):
        find_module(model, "head.*")


def image_batch(*shape):
    return {"a": [torch.ones(shape)]}


@pytest.mark.parametrize(
    ("module", "datasets", "message"),
    [
        (nn.Conv2d(3, 2, 1), image_batch(2, 3, 4, 4), r"input of 0 on dataset a has the shape \(2, 3, 4, 4\)"),
        (nn.Identity(), {"a": [torch.ones(2, 3, dtype=torch.long)]}, r"input of 0 on dataset a has no such tensor"),
        (nn.Flatten(0, 1), image_batch(2, 3, 4), "takes 2 rows and gives 6"),
        (nn.Identity(), image_batch(2, 3, 4) | {"b": [torch.full((2, 3, 4), torch.inf)]}, "on dataset b hold NaN"),
        (nn.Identity(), {"a": [torch.ones(2, 3), torch.ones(2, 4)]}, "have 3 numbers in one batch and 4 in another"),
    ],
)
def test_what_cannot_be_compared_is_said_in_a_sentence(module, datasets, message):
    model = nn.Sequential(module)
    with pytest.raises(UserError, match=message):
        captured(model, datasets, module="0", forward=lambda model, batch: model(batch))


def test_datasets_of_different_widths_are_an_error():
    datasets = {"a": [torch.ones(2, 3)], "b": [torch.ones(2, 4)]}
    with pytest.raises(UserError, match="dataset b have 4 numbers, those of dataset a 3"):
        captured(nn.Sequential(nn.Identity()), datasets, module="0", forward=lambda model, batch: model(batch))


def test_calls_with_different_rows_are_an_error():
    class Twice(Model):
        def forward(self, tokens):
            ids = torch.zeros(1, 1, dtype=torch.long)
            self.shared(ids, tokens)
            self.shared(ids, tokens[:1])

    with pytest.raises(UserError, match=r"changes between the calls .* \(1 rows of width 3 and 4 rows"):
        captured(Twice(), {"a": [{"tokens": tokens_of(1)[0]}]})


def test_a_module_that_nothing_reaches_is_an_error():
    with pytest.raises(UserError, match="No batch of a, b reaches the module shared"):
        captured(Model(), {name: [{"tokens": tokens_of(1)[0], "text": True}] for name in "ab"})


def test_batches_that_are_no_mappings_need_a_loss():
    with pytest.raises(UserError, match=r"model\(\*\*batch\), but a batch is a Tensor"):
        captured(Model(), {"a": tokens_of(1)})


def test_features_must_be_several_and_differ():
    same = captured(Model(), {"a": [{"tokens": torch.ones(12, 6, 3)}]}, samples=12)
    with pytest.raises(UserError, match="All 12 samples have the same features before the module shared"):
        require_comparable(same, 10)
    one = captured(Model(), {"a": [{"tokens": tokens_of(1)[0]}]}, samples=1)
    with pytest.raises(UserError, match=r"features of 1 sample only at the module shared; at least 10"):
        require_comparable(one, 10)
    require_comparable(captured(Model(), {"a": [{"tokens": tokens_of(1, rows=12)[0]}]}, samples=12), 10)
