"""Outputs of routers in every form that is known, read and with an expert switched off."""

from collections import OrderedDict, namedtuple

import pytest
import torch

from tugofwar.errors import UserError
from tugofwar.routing.outputs import parse, without_expert

WEIGHTS = torch.tensor([[0.5, 0.3, 0.2], [0.0, 1.0, 0.0]])
LOGITS = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, -1.0]])
Pair = namedtuple("Pair", "gates loss")


def close(found, expected):
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=torch.float64), rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    "output",
    [WEIGHTS, (WEIGHTS,), (WEIGHTS, torch.tensor(0.3)), OrderedDict(a=WEIGHTS), Pair(WEIGHTS, 1.0), [WEIGHTS, None]],
)
def test_rows_that_are_distributions_are_weights(output):
    parsed = parse(output, "gate")
    assert parsed.gives == "weights"
    close(parsed.weights(), WEIGHTS)
    off = without_expert(output, parsed, 1)
    assert type(off) is type(output)
    # the second row had nothing but the expert that is off
    expected = [[0.5 / 0.7, 0, 0.2 / 0.7], [0, 0, 0]]
    close(_first(off).double(), expected)
    close(_first(output).double(), WEIGHTS)


def test_other_rows_are_logits_whose_softmax_is_taken():
    parsed = parse(LOGITS, "gate")
    assert parsed.gives == "logits"
    close(parsed.weights(), LOGITS.double().softmax(-1))
    off = without_expert(LOGITS, parsed, 2)
    close(off.double().softmax(-1)[0], [*LOGITS[0, :2].double().softmax(-1), 0])


def test_only_the_best_k_logits_count_where_the_model_keeps_k():
    weights = parse(LOGITS, "gate").weights(top_k=2)
    close(weights[0], [0, *LOGITS[0, 1:].double().softmax(-1)])
    assert (weights > 0).sum(dim=-1).tolist() == [2, 2]


def test_masked_logits_are_logits():
    masked = LOGITS.masked_fill(LOGITS > 2, -torch.inf)
    parsed = parse(masked, "gate")
    assert parsed.gives == "logits"
    assert parsed.weights()[0, 2] == 0


def test_a_top_k_gate_is_read_as_what_the_mixture_uses():
    scores, numbers = torch.tensor([[0.6, 0.2], [0.9, 0.1]]), torch.tensor([[2, 0], [1, 2]])
    output = (LOGITS, scores, numbers)
    parsed = parse(output, "gate")
    assert parsed.gives == "weights"
    close(parsed.weights(), [[0.25, 0, 0.75], [0, 0.9, 0.1]])
    logits, changed, same = without_expert(output, parsed, 2)
    assert logits is LOGITS
    assert same is numbers
    close(changed.double(), [[0, 0.8], [1, 0]])  # rows sum to what they summed to


def test_logits_among_other_tensors_are_read_but_not_switched():
    grouped = (torch.tensor([3, 1, 2, 0]), torch.tensor([0.5, 0.2, 0.9, 0.7]), [2, 2, 0], LOGITS)
    parsed = parse(grouped, "gate")
    assert (parsed.gives, parsed.switchable) == ("logits", False)
    close(parsed.weights(), LOGITS.double().softmax(-1))


def test_a_dispatch_mask_of_whole_numbers_is_a_distribution():
    mask = torch.tensor([[[0, 1], [1, 0]]])
    output = (mask, torch.tensor([[[0.9], [0.6]]]), torch.randn(1, 2, 2))
    parsed = parse(output, "router")
    assert (parsed.gives, parsed.switchable) == ("weights", True)
    close(parsed.weights(), mask)
    assert without_expert(output, parsed, 0)[0].tolist() == [[[0, 1], [0, 0]]]


def test_half_precision_weights_are_weights():
    weights = torch.randn(50, 7).softmax(-1).bfloat16()
    parsed = parse(weights, "gate")
    assert parsed.gives == "weights"
    close(parsed.weights().sum(-1), [1.0] * 50)


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (None, "gives a NoneType"),
        (object(), "gives a object"),
        ((), "gives a tuple"),
        (torch.tensor([3, 4]), "int64"),
        (torch.tensor(0.5), "float32"),
    ],
)
def test_what_holds_no_weights_is_no_router(output, reason):
    with pytest.raises(UserError, match=f"the.gate is no router.*{reason}"):
        parse(output, "the.gate")


def test_no_rows_are_nothing():
    assert parse(torch.zeros(0, 3), "gate") is None


def _first(output):
    if isinstance(output, torch.Tensor):
        return output
    return next(iter(output.values())) if isinstance(output, dict) else output[0]
