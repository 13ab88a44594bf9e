"""The mathematics of one LoRA-MoE layer."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from unimed_model.lora_moe import LoraMoELinear
from unimed_model.lora_moe_files import LoraMoESettings

from .lora_moe_models import layer


def naive(module, x):
    """Equation 15 one token, one expert and one sorted score list at a time; never a batched product."""
    s = module.settings
    rows = []
    for token in x.reshape(-1, module.in_features):
        scores = (module.lora_router.weight.detach() @ token.detach()).tolist()
        kept = sorted(range(s.num_experts), key=lambda k: -scores[k])[: s.top_k]
        total = sum(math.exp(scores[k] - scores[kept[0]]) for k in kept)
        out = module.base_layer.weight @ token
        if module.base_layer.bias is not None:
            out = out + module.base_layer.bias
        for k in kept:
            a = module.lora_A.weight[k * s.rank : (k + 1) * s.rank]
            b = module.lora_B.weight[:, k * s.rank : (k + 1) * s.rank]
            out = out + s.alpha / s.rank * math.exp(scores[k] - scores[kept[0]]) / total * (b @ (a @ token))
        rows.append(out)
    return torch.stack(rows).reshape(*x.shape[:-1], module.out_features)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_layer_is_equation_15_token_by_token(data):
    def whole(low, high):
        return data.draw(st.integers(low, high))

    torch.manual_seed(whole(0, 10_000))
    experts = whole(1, 6)
    module = layer(
        whole(1, 9),
        whole(1, 9),
        bias=data.draw(st.booleans()),
        rank=whole(1, 4),
        alpha=data.draw(st.floats(0.1, 16)),
        num_experts=experts,
        top_k=whole(1, experts),
    )
    x = torch.randn(*data.draw(st.lists(st.integers(1, 3), max_size=3)), module.in_features, dtype=torch.float64)
    torch.testing.assert_close(module(x), naive(module, x), atol=1e-12, rtol=1e-12)


def test_all_experts_chosen_is_the_dense_sum():
    torch.manual_seed(0)
    module = layer(num_experts=5, top_k=5)
    x = torch.randn(3, 4, 6, dtype=torch.float64)
    weights = torch.softmax(x @ module.lora_router.weight.T, dim=-1)
    a = module.lora_A.weight.reshape(5, 2, 6)
    b = module.lora_B.weight.reshape(5, 5, 2)  # (d_out, N, r)
    dense = sum(weights[..., k, None] * (x @ (b[:, k] @ a[k]).T) for k in range(5))
    wanted = x @ module.base_layer.weight.T + module.base_layer.bias + 1.5 * dense
    torch.testing.assert_close(module(x), wanted, atol=1e-12, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_expert_is_pefts_lora(dtype):
    """Same precision rules, too: the results are equal, not close."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(6, 5)).to(dtype)
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["0"], lora_dropout=0.0)
    wrapped = peft.get_peft_model(copy.deepcopy(base), config)
    module = LoraMoELinear(base[0], LoraMoESettings(rank=4, alpha=8.0, num_experts=1, top_k=1, dropout=0.0))
    with torch.no_grad():
        for name, weight in wrapped.named_parameters():
            for part in ("lora_A", "lora_B"):
                if part in name:
                    assert weight.dtype == getattr(module, part).weight.dtype == torch.float32
                    getattr(module, part).weight.copy_(weight.normal_())
    x = torch.randn(7, 6, dtype=dtype)
    assert module(x).dtype == dtype
    assert torch.equal(module(x), wrapped(x))


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_exactly_k_weights_are_non_zero_and_they_sum_to_one(data):
    experts = data.draw(st.integers(1, 7))
    module = layer(num_experts=experts, top_k=data.draw(st.integers(1, experts)))
    # few distinct values: ties are the rule
    values = st.lists(st.integers(-3, 3), min_size=4 * experts, max_size=4 * experts)
    scores = torch.tensor(data.draw(values), dtype=torch.float64).reshape(4, experts)
    weights = module.routing_weights(scores)
    assert ((weights > 0).sum(-1) == module.settings.top_k).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(4, dtype=torch.float64), atol=1e-15, rtol=0)
    # none that was left out scores higher than one that was chosen
    lowest = scores.masked_fill(weights == 0, math.inf).amin(-1)
    assert (scores.masked_fill(weights > 0, -math.inf).amax(-1) <= lowest).all()


def test_weights_stay_finite_at_extreme_scores():
    scores = torch.tensor([[1e30, -1e30, 0.0, 5.0], [-1e30, -1e30, -1e30, -1e30]])
    weights = layer().routing_weights(scores)
    assert torch.equal(weights.sum(-1), torch.ones(2))


@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_gradients_against_finite_differences(top_k):
    torch.manual_seed(0)
    module = layer(top_k=top_k)
    names = [name for name, _ in module.named_parameters()]
    x = torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True)

    def function(x, *parameters):
        return torch.func.functional_call(module, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(function, (x, *(p.detach().requires_grad_() for p in module.parameters())))


def test_idle_experts_get_no_gradient():
    torch.manual_seed(0)
    module = layer(top_k=1, num_experts=3)
    with torch.no_grad():
        module.lora_router.weight.zero_()
        module.lora_router.weight[1] = 1.0
    x = torch.rand(4, 6, dtype=torch.float64)  # positive, so expert 1 wins everywhere
    module(x).square().sum().backward()
    touched_a = module.lora_A.weight.grad.reshape(3, 2, 6).abs().amax((1, 2)) > 0
    touched_b = module.lora_B.weight.grad.reshape(5, 3, 2).abs().amax((0, 2)) > 0
    assert touched_a.tolist() == touched_b.tolist() == [False, True, False]


def test_dropout_is_on_the_experts_input_alone():
    torch.manual_seed(0)
    module = layer(dropout=0.5).train()
    x = torch.randn(5, 6, dtype=torch.float64)
    torch.manual_seed(3)
    trained = module(x)
    torch.manual_seed(3)
    dropped = nn.functional.dropout(x, 0.5)
    weights = module.routing_weights(module.lora_router(x))
    hidden = (dropped @ module.lora_A.weight.T).reshape(5, 4, 2) * weights[..., None]
    wanted = module.base_layer(x) + 1.5 * hidden.reshape(5, 8) @ module.lora_B.weight.T
    torch.testing.assert_close(trained, wanted, atol=1e-12, rtol=0)
    torch.testing.assert_close(module.eval()(x), naive(module, x), atol=1e-12, rtol=0)


@pytest.mark.parametrize("width", [16, 1024])
def test_initial_values(width):
    """A: Gaussian with the variance of peft's default, 1 / (3 d_in), which makes (A x)_i of the size of x; B: zero."""
    torch.manual_seed(0)
    base = nn.Linear(width, 4)
    module = LoraMoELinear(base, LoraMoESettings(rank=8, alpha=8.0, num_experts=32, top_k=2, dropout=0.0))
    assert not module.lora_B.weight.any()
    a = module.lora_A.weight * math.sqrt(3 * width)
    assert a.std().item() == pytest.approx(1, abs=0.05)
    assert (a**4).mean().item() == pytest.approx(3, abs=0.3)  # the kurtosis of a Gaussian; a uniform one has 1.8
    assert module.lora_router.weight.abs().max() <= width**-0.5
    assert module.lora_router.weight.std() > 0.4 * width**-0.5


def test_layers_that_left_meta_empty_can_be_reset():
    with torch.device("meta"):
        module = layer()
    module.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(math.nan)
    module.reset_lora_parameters()
    assert not module.lora_B.weight.any()
    assert 0 < module.lora_A.weight.std() < 1
    assert 0 < module.lora_router.weight.std() < 1


def test_weight_and_bias_read_through():
    module = layer()
    assert module.weight is module.base_layer.weight
    assert module.bias is module.base_layer.bias
    assert layer(bias=False).bias is None
    assert (module.in_features, module.out_features) == (6, 5)
    assert "rank=2" in repr(module)
    assert not {"weight", "bias"} & set(module.state_dict())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_adapter_precision_follows_peft(dtype):
    module = layer(dtype=dtype)
    wanted = torch.float64 if dtype == torch.float64 else torch.float32
    assert {getattr(module, part).weight.dtype for part in ("lora_A", "lora_B", "lora_router")} == {wanted}
    x = torch.randn(3, 6, dtype=dtype, requires_grad=True)
    y = module(x)
    assert y.dtype == dtype
    y.float().sum().backward()
    assert x.grad.dtype == dtype
    assert module.lora_A.weight.grad.dtype == wanted


def test_no_graph_break():
    torch.manual_seed(0)
    module = layer()
    x = torch.randn(2, 3, 6, dtype=torch.float64)
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), module(x))
