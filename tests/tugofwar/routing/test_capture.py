"""Which weights belong to which sample, and which tokens count."""

import numpy as np
import pytest
import torch
from torch import nn

from tugofwar.errors import UserError
from tugofwar.routing.capture import by_sample, find_routers, sums_of_calls
from tugofwar.routing.outputs import parse

WEIGHTS = torch.rand(2, 3, 4, dtype=torch.float64).softmax(-1)
MASK = torch.tensor([[1, 1, 0], [1, 0, 0]])


def sums(output, batch, name="gate"):
    outputs = output if isinstance(output, list) else [output]
    return sums_of_calls(name, [parse(each, name) for each in outputs], batch, None)


@pytest.mark.parametrize("weights", [WEIGHTS, WEIGHTS.flatten(0, 1)])
def test_padding_does_not_count_flattened_or_not(weights):
    found, counted = sums(weights, {"input_ids": MASK, "attention_mask": MASK})
    assert counted == "attention_mask"
    assert found.tokens.tolist() == [2, 1]
    np.testing.assert_allclose(found.weights[0], WEIGHTS[0, :2].sum(0))
    np.testing.assert_allclose(found.weights[1], WEIGHTS[1, 0])


def test_labels_say_which_tokens_count_where_no_mask_does():
    labels = torch.tensor([[5, 5, -100], [5, -100, -100]])
    found, counted = sums(WEIGHTS, {"input_ids": MASK, "labels": labels})
    assert counted == "labels"
    assert found.tokens.tolist() == [2, 1]


def test_without_a_mask_all_tokens_count():
    found, counted = sums(WEIGHTS.flatten(0, 1), (torch.zeros(2, 9), torch.zeros(2)))
    assert counted == "all"
    np.testing.assert_allclose(found.weights, WEIGHTS.sum(dim=1))


def test_a_mask_of_another_shape_is_no_mask_of_these_tokens():
    visual = torch.rand(2, 5, 3).softmax(-1)
    found, counted = sums(visual, {"attention_mask": MASK})
    assert counted == "all"
    assert found.tokens.tolist() == [5, 5]


def test_one_row_per_sample_is_one_token_each():
    found, _ = sums(WEIGHTS[:, 0], {"x": torch.zeros(2, 7)})
    assert found.tokens.tolist() == [1, 1]


def test_rows_that_cannot_be_dealt_out_are_one_sample():
    weights, _, _ = by_sample(torch.rand(7, 4), {"x": torch.zeros(2, 7)})
    assert weights.shape == (1, 7, 4)


def test_patches_in_a_grid_are_tokens():
    weights, counted, _ = by_sample(torch.rand(2, 5, 6, 4), {"x": torch.zeros(2, 7)})
    assert weights.shape == (2, 30, 4)
    assert counted.all()


def test_a_tie_is_shared_and_entropies_are_in_bits():
    weights = torch.tensor([[[0.5, 0.5, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]]])
    found, _ = sums(weights, {"x": torch.zeros(1, 2)})
    assert found.largest.tolist() == [[0.75, 0.75, 0.25, 0.25]]
    assert found.entropy.tolist() == [3.0]


def test_a_second_call_sees_further_tokens_of_the_same_samples():
    found, _ = sums([WEIGHTS, WEIGHTS], {"x": torch.zeros(2, 3)})
    np.testing.assert_allclose(found.weights, 2 * WEIGHTS.sum(dim=1))
    assert found.tokens.tolist() == [6, 6]


def test_calls_of_single_samples_are_all_of_the_batch():
    found, _ = sums([WEIGHTS[:1], WEIGHTS[1:]], {"x": torch.zeros(2, 3)})
    np.testing.assert_allclose(found.weights, WEIGHTS.sum(dim=1))


def test_calls_that_do_not_fit_together_are_said():
    with pytest.raises(UserError, match="gate was called with 1 and 2 samples in one pass"):
        sums([WEIGHTS, WEIGHTS[:1], WEIGHTS], {"x": torch.zeros(2, 3)})


def test_padding_may_hold_anything_but_tokens_that_count_are_finite():
    broken = WEIGHTS.clone()
    broken[0, 2] = torch.nan
    found, _ = sums(broken, {"attention_mask": MASK})
    assert np.isfinite(found.weights).all()
    broken[0, 0] = torch.nan
    with pytest.raises(UserError, match="gate gives weights that are not finite"):
        sums(broken, {"attention_mask": MASK})


def model_with_gates():
    model = nn.ModuleDict({f"layer{n}": nn.ModuleDict({"gate": nn.Sequential(nn.Linear(2, 2))}) for n in range(2)})
    return nn.ModuleDict({"module": model})


def test_a_glob_finds_the_outermost_modules_behind_wrappers():
    assert list(find_routers(model_with_gates(), "layer0.gate")) == ["module.layer0.gate"]
    assert list(find_routers(model_with_gates(), "*gate*")) == ["module.layer0.gate", "module.layer1.gate"]


def test_a_glob_that_matches_nothing_names_modules_that_may_be_routers():
    with pytest.raises(
        UserError, match=r"no router 'connector.router'.*2 of its modules.*'module\.layer0\.gate', .*--router"
    ):
        find_routers(model_with_gates(), "connector.router")
    layers = nn.ModuleDict({"layers": nn.ModuleList(nn.ModuleDict({"router": nn.Linear(2, 2)}) for _ in range(8))})
    with pytest.raises(UserError, match=r"8 of its modules may be routers: 'layers\.\*\.router'\."):
        find_routers(layers, "gate")


def test_a_glob_that_matches_nothing_names_the_closest_where_no_name_says_router():
    model = nn.ModuleDict({"chooser": nn.Linear(2, 2), "gate_proj": nn.Linear(2, 2)})
    with pytest.raises(UserError, match=r"no router 'choser'.*closest names are chooser"):
        find_routers(model, "choser")
