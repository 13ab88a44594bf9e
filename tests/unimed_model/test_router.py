"""Routers against closed forms, in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unimed_model.router import build_router
from unimed_model.settings import ConnectorSettings

WIDTH = 5


def router(**chosen):
    return build_router(WIDTH, ConnectorSettings(**{"router_hidden": 7, **chosen})).double()


def inputs(seed=0):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(3, 4, WIDTH, generator=generator, dtype=torch.float64)
    return tokens, torch.randn(3, WIDTH, generator=generator, dtype=torch.float64), torch.tensor([0, 4, 2])


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["constant", "hard", "sparse", "soft"]),
    strategy=st.sampled_from(["token", "task", "token_task"]),
    normalisation=st.sampled_from(["sigmoid", "softmax", None]),
    masking=st.sampled_from(["infinity", "zero"]),
    experts=st.integers(5, 8),
    top_k=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_weights_are_a_partition_of_one(kind, strategy, normalisation, masking, experts, top_k, seed):
    torch.manual_seed(seed)
    module = router(
        router=kind, strategy=strategy, normalisation=normalisation, masking=masking, num_experts=experts, top_k=top_k
    )
    tokens, task_tokens, tasks = inputs(seed)
    weights = module(tokens, None if strategy == "token" else task_tokens, tasks)
    assert weights.shape == (3, 4, experts)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 4, dtype=torch.float64), atol=1e-12, rtol=0)
    if kind == "sparse" and masking == "infinity":
        assert ((weights > 0).sum(-1) == top_k).all()
    if kind == "sparse" and masking == "zero":
        assert (weights > 0).all()


def test_constant_and_hard_routers_read_nothing():
    tokens, _, tasks = inputs()
    assert torch.equal(
        router(router="constant", num_experts=4)(tokens, None, None), torch.full((3, 4, 4), 0.25).double()
    )
    weights = router(router="hard", num_experts=6)(tokens, None, tasks)
    for image, task in enumerate(tasks):
        assert torch.equal(weights[image], torch.eye(6).double()[task].expand(4, -1))


@pytest.mark.parametrize("masking", ["infinity", "zero"])
@pytest.mark.parametrize("normalisation", ["softmax", "sigmoid"])
def test_sparse_weights_by_hand(masking, normalisation):
    module = router(router="sparse", strategy="token", top_k=2, masking=masking, normalisation=normalisation)
    tokens, _, _ = inputs()
    weights = module(tokens, None, None)
    for image in range(3):
        for token in range(4):
            scores = module.layers(tokens[image, token])
            kept = scores.argsort(descending=True)[:2].tolist()
            squash = torch.exp if normalisation == "softmax" else torch.sigmoid
            masked = torch.exp(torch.tensor(0.0)) if normalisation == "softmax" else torch.tensor(0.5)
            others = masked.double() if masking == "zero" else torch.zeros((), dtype=torch.float64)
            raw = torch.stack([squash(scores[e]) if e in kept else others for e in range(5)])
            torch.testing.assert_close(weights[image, token], raw / raw.sum(), atol=1e-12, rtol=0)


def test_default_normalisation_is_that_of_the_released_code():
    tokens, task_tokens, tasks = inputs()
    for kind, named in (("soft", "sigmoid"), ("sparse", "softmax")):
        torch.manual_seed(0)
        default = router(router=kind)(tokens, task_tokens, tasks)
        torch.manual_seed(0)
        assert torch.equal(default, router(router=kind, normalisation=named)(tokens, task_tokens, tasks))


def test_the_task_strategy_gives_all_tokens_of_an_image_the_same_weights():
    tokens, task_tokens, tasks = inputs()
    module = router(strategy="task")
    weights = module(tokens, task_tokens, tasks)
    assert torch.equal(weights, weights[:, :1].expand_as(weights))
    scores = module.layers(task_tokens).sigmoid()
    torch.testing.assert_close(weights[:, 0], scores / scores.sum(-1, keepdim=True), atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", ["soft", "sparse"])
def test_gradients_against_finite_differences(kind):
    module = router(router=kind)
    tokens, task_tokens, _ = inputs()
    tokens.requires_grad_(True)
    task_tokens.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x, t: module(x, t, None), (tokens, task_tokens))


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ({"router": "hard", "num_experts": 4}, "num_experts 4 is too few"),
        ({"router": "sparse", "num_experts": 2, "top_k": 3}, "top_k 3 is more than num_experts 2"),
    ],
)
def test_impossible_routers_are_refused(chosen, says):
    with pytest.raises(ValueError, match=says):
        ConnectorSettings(**chosen)
