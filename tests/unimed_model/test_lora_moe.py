import copy
import json
import math
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from unimed_model import lora_moe_files
from unimed_model.errors import UserError
from unimed_model.lora_moe import (
    LoraMoELinear,
    adapter_state,
    inject_lora_moe,
    load_adapter,
    recording_router_weights,
    save_adapter,
)
from unimed_model.lora_moe_files import LoraMoESettings

SMALL = {"rank": 2, "alpha": 3.0, "num_experts": 4, "top_k": 2}
LLAMA = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GPT2 = {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.2}
GPT2 |= {"bos_token_id": 1, "eos_token_id": 2}


def llama(**changes):
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**(LLAMA | changes))).eval()


def qwen2():
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(**LLAMA)).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)
    return model


def gpt2():
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(**GPT2)).eval()


KINDS = pytest.mark.parametrize("build", [llama, lambda: llama(tie_word_embeddings=True), qwen2, gpt2])


def settle(model):
    """Give every B values, as training would; return the model."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in adapter_state(model).items():
            if "lora_B" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def adapted(build=llama, **changes):
    model = build()
    inject_lora_moe(model, **(SMALL | changes))
    return settle(model)


def layer(width_in=6, width_out=5, bias=True, dtype=torch.float64, **changes):
    base = nn.Linear(width_in, width_out, bias=bias, dtype=dtype)
    module = LoraMoELinear(base, LoraMoESettings(**({"dropout": 0.0} | SMALL | changes)))
    nn.init.normal_(module.lora_B.weight)
    return module


def tokens(*shape, seed=1):
    return torch.randint(3, 64, shape, generator=torch.Generator().manual_seed(seed))


def checkpointed(model, **kwargs):
    """Switch checkpointing on by whichever name this version of transformers gives to it."""
    enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
    enable(kwargs)
    model.enable_input_require_grads()
    return model.train()


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


# ------------------------------------------------------------------------------------------------ the layer


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


class Int8Linear(nn.Module):
    """A quantised layer that is no nn.Linear: an integer weight and a scale."""

    def __init__(self, linear):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.scale = linear.weight.detach().abs().max() / 127
        self.register_buffer("weight", (linear.weight.detach() / self.scale).round().to(torch.int8))
        self.bias = None

    def forward(self, x):
        return x @ (self.weight.to(x.dtype) * self.scale.to(x.dtype)).T


def test_quantised_layers_are_adapted_in_float32():
    model = llama()
    for block in model.model.layers:
        block.mlp.gate_proj = Int8Linear(block.mlp.gate_proj)
    model.to(torch.bfloat16)
    ids = tokens(2, 5)
    before = model(ids).logits
    names = inject_lora_moe(model, **SMALL)
    assert "model.layers.0.mlp.gate_proj" in names
    gate = model.model.layers[0].mlp.gate_proj
    assert isinstance(gate, LoraMoELinear)
    assert gate.lora_A.weight.dtype == torch.float32
    assert torch.equal(model(ids).logits, before)
    settle(model)(ids, labels=ids).loss.backward()
    assert gate.lora_A.weight.grad.abs().max() > 0
    assert gate.base_layer.weight.dtype == torch.int8


def test_autocast():
    model = adapted()
    ids = tokens(2, 5)
    wanted = model(ids).logits
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(ids, labels=ids)
    output.loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in adapter_state(model).values())
    torch.testing.assert_close(output.logits.float(), wanted, atol=0.1 * wanted.abs().max().item(), rtol=0)


def test_no_graph_break():
    torch.manual_seed(0)
    module = layer()
    x = torch.randn(2, 3, 6, dtype=torch.float64)
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), module(x))


# ------------------------------------------------------------------------------------------------ the model


@KINDS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_at_initialisation_logits_are_the_base_models(build, dtype):
    model = build().to(dtype)
    ids = tokens(2, 9)
    before = model(ids).logits
    inject_lora_moe(model)
    assert torch.equal(model(ids).logits, before)
    assert not torch.equal(settle(model)(ids).logits, before)


LLAMA_LINEARS = [
    f"model.layers.{index}.{name}"
    for index in range(2)
    for name in (
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
        "mlp.down_proj",
    )
]
GPT2_LINEARS = [
    f"transformer.h.{index}.{name}"
    for index in range(2)
    for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
]


@pytest.mark.parametrize(
    ("build", "linears"),
    [
        (llama, LLAMA_LINEARS),
        (lambda: llama(tie_word_embeddings=True), LLAMA_LINEARS),
        (qwen2, LLAMA_LINEARS),
        (gpt2, GPT2_LINEARS),
    ],
)
def test_every_linear_layer_but_the_head_is_wrapped(build, linears):
    model = build()
    head = model.get_output_embeddings()
    tied = head.weight is model.get_input_embeddings().weight
    assert inject_lora_moe(model, **SMALL) == linears
    assert all(isinstance(model.get_submodule(name), LoraMoELinear) for name in linears)
    assert model.get_output_embeddings() is head
    assert type(head) is nn.Linear
    assert (head.weight is model.get_input_embeddings().weight) is tied
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == set(adapter_state(model))
    assert trained == {f"{name}.{part}.weight" for name in linears for part in ("lora_A", "lora_B", "lora_router")}
    assert all(parameter is model.get_parameter(name) for name, parameter in adapter_state(model).items())


def test_conv1d_is_adapted_as_the_linear_map_that_it_is():
    module = adapted(gpt2).transformer.h[0].attn.c_attn
    assert (module.in_features, module.out_features) == (32, 96)
    x = torch.randn(3, 32)
    plain = nn.Linear(32, 96)
    with torch.no_grad():
        plain.weight.copy_(module.weight.T)
        plain.bias.copy_(module.bias)
    twin = LoraMoELinear(plain, module.settings)
    twin.load_state_dict({name: v for name, v in module.state_dict().items() if "lora" in name}, strict=False)
    torch.testing.assert_close(module(x), twin(x))


def test_a_layer_in_two_places_gets_one_adapter():
    shared = nn.Linear(4, 4)
    model = nn.ModuleDict({"first": nn.Sequential(shared, nn.Linear(4, 4)), "second": nn.Sequential(shared)})
    assert inject_lora_moe(model, **SMALL) == ["first.0", "first.1"]
    assert isinstance(model["second"][0], LoraMoELinear)
    assert model["second"][0] is model["first"][0]
    assert sum("lora_A" in name for name in adapter_state(model)) == 2


def test_training_or_evaluation_mode_is_kept():
    model = llama()
    inject_lora_moe(model, **SMALL, dropout=0.5)
    assert not any(module.training for module in model.modules())
    ids = tokens(1, 5)
    settle(model)
    assert torch.equal(model(ids).logits, model(ids).logits)
    model.train()
    assert not torch.equal(model(ids).logits, model(ids).logits)


def descend(model, ids, steps=30):
    optimiser = torch.optim.AdamW(adapter_state(model).values(), lr=1e-2)
    losses = []
    for _ in range(steps):
        loss = model(ids, labels=ids).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


@KINDS
def test_training_moves_the_adapters_alone(build):
    model = build().train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    before = copy.deepcopy(model.state_dict())
    inject_lora_moe(model)
    start = {name: parameter.detach().clone() for name, parameter in adapter_state(model).items()}
    losses = descend(model, tokens(4, 12))
    assert losses[-1] < 0.8 * losses[0]
    after = {name.replace(".base_layer", ""): tensor for name, tensor in model.state_dict().items()}
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert all(parameter.grad is None for name, parameter in model.named_parameters() if "lora_" not in name)
    assert all(not torch.equal(parameter, start[name]) for name, parameter in adapter_state(model).items())


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(reentrant):
    ids = tokens(2, 10)

    def gradients(model):
        model(ids, labels=ids, use_cache=False).loss.backward()
        return {name: parameter.grad for name, parameter in adapter_state(model).items()}

    wanted = gradients(adapted().train())
    model = checkpointed(adapted(), use_reentrant=reentrant)
    calls = []
    model.model.layers[0].self_attn.q_proj.register_forward_hook(lambda *_: calls.append(None))
    found = gradients(model)
    assert len(calls) == 2  # once forward, once again in backward: it was checkpointed
    assert all(grad is not None and grad.abs().max() > 0 for grad in found.values())
    assert all(torch.equal(found[name], grad) for name, grad in wanted.items())


@pytest.mark.parametrize("reentrant", [False, True])
def test_it_trains_under_gradient_checkpointing(reentrant):
    """Dropout too: what is recomputed must drop the same inputs, or the loss would not fall as it does."""
    ids = tokens(4, 12)
    plain, saving = (adapted(dropout=0.1).train() for _ in range(2))
    checkpointed(saving, use_reentrant=reentrant)
    losses = []
    for model in (plain, saving):
        torch.manual_seed(5)
        losses.append(descend(model, ids, steps=15))
    assert losses[1][-1] < 0.8 * losses[1][0]
    assert losses[0] == losses[1]


def test_counts_at_the_papers_size():
    """LLaMA-2-7B on the meta device; the widths are 4096 and 11008, seven linears in each of 32 layers."""
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(num_hidden_layers=32))
        names = inject_lora_moe(model)
    state = adapter_state(model)
    assert len(names) == 224
    assert {tensor.device.type for tensor in model.parameters()} == {"meta"}
    counts = {
        part: sum(tensor.numel() for name, tensor in state.items() if part in name)
        for part in ("lora_A", "lora_B", "lora_router")
    }
    inputs, outputs = 32 * (6 * 4096 + 11008), 32 * (5 * 4096 + 2 * 11008)
    assert counts == {"lora_A": 20 * inputs, "lora_B": 20 * outputs, "lora_router": 5 * inputs}
    assert counts == {"lora_A": 22_773_760, "lora_B": 27_197_440, "lora_router": 5_693_440}
    assert counts["lora_A"] + counts["lora_B"] == 49_971_200 == 5 * 9_994_240
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 55_664_640
    assert sum(p.numel() for p in model.parameters() if not p.requires_grad) == 6_738_415_616


def test_a_model_built_on_meta_is_filled_from_a_state_dict():
    real = adapted()
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**LLAMA)).eval()
        inject_lora_moe(model, **SMALL)
    assert all(tensor.is_meta for tensor in adapter_state(model).values())
    model.to_empty(device="cpu")
    model.model.rotary_emb = copy.deepcopy(real.model.rotary_emb)  # its buffers are in no state dict
    model.load_state_dict(real.state_dict())
    ids = tokens(2, 6)
    assert torch.equal(model(ids).logits, real(ids).logits)


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


class Around(PreTrainedModel):
    """A model around an LLM, whose post_init initialises what is not marked as initialised."""

    config_class = LlamaConfig

    def __init__(self, config):
        super().__init__(config)
        self.language_model = LlamaForCausalLM(config)
        inject_lora_moe(self.language_model, **SMALL)
        self.post_init()


def test_post_init_of_a_model_around_the_llm_leaves_b_at_zero():
    state = adapter_state(Around(LlamaConfig(**LLAMA)))
    assert len(state) == 42
    assert not any(tensor.any() for name, tensor in state.items() if "lora_B" in name)
    router = state["language_model.model.layers.0.mlp.down_proj.lora_router.weight"]
    assert router.abs().max() <= 48**-0.5  # initializer_range is 0.2, above that bound


def test_copies_casts_and_state_dicts():
    model, ids = adapted(), tokens(2, 6)
    wanted = model(ids).logits
    twin = copy.deepcopy(model)
    assert torch.equal(twin(ids).logits, wanted)
    settled = {name: tensor.detach().clone() for name, tensor in adapter_state(model).items()}
    with torch.no_grad():
        for parameter in adapter_state(twin).values():
            parameter.add_(1)
    assert all(torch.equal(tensor, settled[name]) for name, tensor in adapter_state(model).items())
    fresh = llama()
    inject_lora_moe(fresh, **SMALL)
    assert fresh.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(fresh(ids).logits, wanted)
    half = copy.deepcopy(model).to(torch.bfloat16)
    assert {tensor.dtype for tensor in adapter_state(half).values()} == {torch.bfloat16}
    assert half(ids).logits.dtype == torch.bfloat16
    double = copy.deepcopy(model).to(torch.float64)
    torch.testing.assert_close(double(ids).logits.float(), wanted, atol=1e-3, rtol=1e-3)


# ------------------------------------------------------------------------------------------------ generation


def left_padded(samples):
    longest = max(map(len, samples))
    ids = torch.stack([torch.cat([torch.zeros(longest - len(s), dtype=torch.long), s]) for s in samples])
    mask = torch.stack([torch.arange(longest) >= longest - len(s) for s in samples]).long()
    return ids, mask


@KINDS
def test_a_padded_batch_gives_each_sample_what_it_gets_alone(build):
    model = adapted(build).double()
    samples = [tokens(1, n, seed=n)[0] for n in (3, 9, 6)]
    ids, mask = left_padded(samples)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    together = model(ids, attention_mask=mask, position_ids=positions).logits
    for row, sample in zip(together, samples, strict=True):
        torch.testing.assert_close(row[-len(sample) :], model(sample[None]).logits[0], atol=1e-10, rtol=0)
    arguments = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    grown = model.generate(ids, attention_mask=mask, **arguments)
    for row, sample in zip(grown, samples, strict=True):
        alone = model.generate(sample[None], attention_mask=torch.ones_like(sample[None]), **arguments)
        assert row[len(ids[0]) :].tolist() == alone[0, len(sample) :].tolist()


def test_the_cache_changes_nothing():
    model = adapted().double()
    ids, mask = left_padded([tokens(1, 5, seed=1)[0], tokens(1, 7, seed=2)[0]])
    arguments = {"attention_mask": mask, "max_new_tokens": 10, "do_sample": False, "eos_token_id": None}
    with_cache, without = (model.generate(ids, use_cache=use, **arguments) for use in (True, False))
    assert with_cache.tolist() == without.tolist()
    # one token by hand per step, with the cache, against a plain loop over growing inputs
    grown = ids[1:]
    for _ in range(10):
        grown = torch.cat([grown, model(grown).logits[:, -1:].argmax(-1)], dim=1)
    assert with_cache[1].tolist() == grown[0].tolist()


def test_recorded_weights_are_those_of_each_token():
    model, ids = adapted(), tokens(2, 6)
    read = {}
    for name in LLAMA_LINEARS:
        model.get_submodule(name).register_forward_pre_hook(lambda _, args, name=name: read.update({name: args[0]}))
    with recording_router_weights(model) as weights:
        model(ids)
        assert list(weights) == LLAMA_LINEARS
    for name in LLAMA_LINEARS:
        assert weights[name].shape == (2, 6, 4)
        assert not weights[name].requires_grad
        scores = read[name] @ model.get_submodule(name).lora_router.weight.T
        second = scores.sort(-1, descending=True).values[..., 1:2]
        raw = torch.where(scores >= second, scores.exp(), 0)
        torch.testing.assert_close(weights[name], raw / raw.sum(-1, keepdim=True))


def test_recording_joins_the_steps_of_generation_and_ends():
    model = adapted().double()
    ids = tokens(2, 5)
    with recording_router_weights(model) as weights:
        grown = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, do_sample=False)
    steps = grown.shape[1] - 1  # the last token is never read
    with recording_router_weights(model) as whole:
        model(grown[:, :-1])
    for name in LLAMA_LINEARS:
        assert weights[name].shape == (2, steps, 4)
        torch.testing.assert_close(weights[name], whole[name], atol=1e-10, rtol=0)
    model(ids)
    assert weights[LLAMA_LINEARS[0]].shape == (2, steps, 4)
    assert not any(module._forward_hooks for module in model.modules())


def test_recording_refuses_what_cannot_be_joined():
    model = adapted()
    with recording_router_weights(model):
        model(tokens(2, 5))
        with pytest.raises(UserError, match="batches of 2 and of 3"):
            model(tokens(3, 5))
    with pytest.raises(KeyboardInterrupt), recording_router_weights(model):
        raise KeyboardInterrupt
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(UserError, match="LlamaForCausalLM carries no LoRA-MoE"), recording_router_weights(llama()):
        pass


# ------------------------------------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("rank", 0),
        ("rank", 1.5),
        ("rank", True),
        ("alpha", 0.0),
        ("alpha", -8.0),
        ("alpha", math.nan),
        ("alpha", math.inf),
        ("num_experts", 0),
        ("top_k", 0),
        ("top_k", 6),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("dropout", math.nan),
    ],
)
def test_bad_arguments_are_named_and_change_nothing(argument, value):
    model = llama()
    with pytest.raises(UserError, match=f"^LoRA-MoE: '{argument}'"):
        inject_lora_moe(model, **{argument: value})
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(isinstance(module, LoraMoELinear) for module in model.modules())


def test_more_experts_than_there_are_says_how_many():
    with pytest.raises(UserError, match=r"num_experts, which is 3 \(found 4\)"):
        inject_lora_moe(llama(), num_experts=3, top_k=4)


class HeadOnly(PreTrainedModel):
    config_class = LlamaConfig

    def __init__(self, config):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(8, 4)
        self.lm_head = nn.Linear(4, 8)
        self.post_init()

    def get_input_embeddings(self):
        return self.embed_tokens


@pytest.mark.parametrize("model", [nn.Sequential(nn.Embedding(3, 4)), nn.Linear(3, 4), HeadOnly(LlamaConfig(**LLAMA))])
def test_a_model_without_linear_layers(model):
    with pytest.raises(UserError, match="has no linear layer, besides its head"):
        inject_lora_moe(model)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_model_that_carries_adapters():
    model = adapted()
    with pytest.raises(UserError, match="carries LoRA adapters already"):
        inject_lora_moe(model)
    peft = pytest.importorskip("peft")
    model = peft.inject_adapter_in_model(peft.LoraConfig(target_modules=["q_proj"]), llama())
    with pytest.raises(UserError, match="carries LoRA adapters already"):
        inject_lora_moe(model)


# ------------------------------------------------------------------------------------------------ files


FRESH = """
import sys
from pathlib import Path
import torch
from transformers import AutoModelForCausalLM
from unimed_model.lora_moe import load_adapter

folder, threads = Path(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(threads)
model = AutoModelForCausalLM.from_pretrained(folder / "base").eval()
load_adapter(model, folder / "adapter")
ids = torch.load(folder / "ids.pt", weights_only=True)
torch.save(model(ids).logits, folder / "logits.pt")
"""


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fresh_process_gives_the_same_logits_bit_for_bit(tmp_path, dtype):
    llama(tie_word_embeddings=True).to(dtype).save_pretrained(tmp_path / "base")
    model, ids = LlamaForCausalLM.from_pretrained(tmp_path / "base").train(), tokens(2, 9)
    assert model.dtype == dtype
    inject_lora_moe(model)
    descend(model, ids, steps=3)
    save_adapter(model.eval(), tmp_path / "adapter")
    torch.save(ids, tmp_path / "ids.pt")
    command = [sys.executable, "-c", FRESH, str(tmp_path), str(torch.get_num_threads())]
    subprocess.run(command, check=True, env=os.environ, capture_output=True)
    assert torch.equal(torch.load(tmp_path / "logits.pt", weights_only=True), model(ids).logits)


@KINDS
def test_saved_and_loaded(tmp_path, build):
    model, ids = adapted(build, dropout=0.1), tokens(2, 6)
    save_adapter(model, tmp_path / "adapter")
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert json.loads((tmp_path / "adapter/adapter_config.json").read_text()) == {
        "adapter_type": "lora_moe",
        **SMALL,
        "dropout": 0.1,
    }
    fresh = build()
    load_adapter(fresh, tmp_path / "adapter")
    assert torch.equal(fresh(ids).logits, model(ids).logits)
    assert {name for name, p in fresh.named_parameters() if p.requires_grad} == set(adapter_state(model))
    assert not any(module.training for module in fresh.modules())
    save_adapter(fresh, tmp_path / "again")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "adapter" / name).read_bytes()


def test_an_adapter_keeps_the_precision_it_was_saved_in(tmp_path):
    model, ids = adapted().to(torch.bfloat16), tokens(2, 6)
    save_adapter(model, tmp_path / "adapter")
    fresh = llama().to(torch.bfloat16)
    load_adapter(fresh, tmp_path / "adapter")
    assert {tensor.dtype for tensor in adapter_state(fresh).values()} == {torch.bfloat16}
    assert torch.equal(fresh(ids).logits, model(ids).logits)


def test_a_loaded_adapter_can_be_trained_on(tmp_path):
    model = adapted()
    save_adapter(model, tmp_path / "adapter")
    fresh = llama()
    load_adapter(fresh, tmp_path / "adapter")
    assert descend(fresh, tokens(2, 8), steps=5) == descend(model, tokens(2, 8), steps=5)


def test_an_adapter_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    folder = tmp_path / "adapter"
    save_adapter(adapted(), folder)
    old = {path.name: path.read_bytes() for path in folder.iterdir()}
    with monkeypatch.context() as patch:

        def fail(*_, **__):
            raise KeyboardInterrupt

        patch.setattr(lora_moe_files, "save_file", fail)
        with pytest.raises(KeyboardInterrupt):
            save_adapter(adapted(rank=3), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == old
    save_adapter(adapted(rank=3), folder)
    assert json.loads((folder / "adapter_config.json").read_text())["rank"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_saving_never_deletes_what_is_not_an_adapter(tmp_path):
    (tmp_path / "model.safetensors").write_text("precious")
    with pytest.raises(UserError, match=r"holds model\.safetensors, which would be lost"):
        save_adapter(adapted(), tmp_path)
    with pytest.raises(UserError, match="is a file"):
        save_adapter(adapted(), tmp_path / "model.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_models_that_cannot_be_saved(tmp_path):
    with pytest.raises(UserError, match="carries no LoRA-MoE"):
        save_adapter(llama(), tmp_path / "adapter")
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**LLAMA))
        inject_lora_moe(model)
    with pytest.raises(UserError, match="meta device"):
        save_adapter(model, tmp_path / "adapter")
    model = nn.ModuleList([layer(rank=1), layer(rank=2)])
    with pytest.raises(UserError, match="differ in their settings"):
        save_adapter(model, tmp_path / "adapter")
    assert not list(tmp_path.iterdir())


def edited(change):
    def spoil(folder):
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(change(json.loads(path.read_text()))))

    return spoil


def reshaped(change):
    def spoil(folder):
        path = folder / "adapter_model.safetensors"
        tensors = change(load_file(path))
        save_file(tensors, path)

    return spoil


def truncated(folder):
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def removed(name):
    return lambda folder: (folder / name).unlink()


def written(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def without_first(tensors):
    return {name: tensors[name] for name in sorted(tensors)[1:]}


SPOILT = {
    "no folder": (lambda folder: folder.rename(folder.with_name("elsewhere")), "There is no adapter folder"),
    "no config": (removed("adapter_config.json"), "holds no adapter_config.json"),
    "no weights": (removed("adapter_model.safetensors"), "holds no adapter_model.safetensors"),
    "truncated": (truncated, r"adapter_model.safetensors is damaged"),
    "empty": (written("adapter_model.safetensors", b""), "adapter_model.safetensors is damaged"),
    "no JSON": (written("adapter_config.json", b"{"), "adapter_config.json is not valid JSON"),
    "no text": (written("adapter_config.json", b"\xff\xfe\x00"), "adapter_config.json is not valid JSON"),
    "a list": (written("adapter_config.json", b"[]"), "holds no JSON object"),
    "peft's": (edited(lambda _: {"peft_type": "LORA", "r": 4}), "of type 'LORA', not 'lora_moe'"),
    "of no type": (edited(lambda c: {"rank": c["rank"]}), "of type None, not 'lora_moe'"),
    "a missing key": (edited(lambda c: {k: v for k, v in c.items() if k != "alpha"}), "the key 'alpha' is missing"),
    "a misspelt key": (edited(lambda c: c | {"alhpa": 1}), "unknown key 'alhpa'; the nearest valid key is 'alpha'"),
    "a bad value": (edited(lambda c: c | {"top_k": 9}), "'top_k'.*which is 4"),
    "another rank": (edited(lambda c: c | {"rank": 3}), r"q_proj.lora_A.weight is torch.float32 of shape \(8, 32\)"),
    "too few": (reshaped(without_first), "lacks 1 of its tensors, the first model.layers.0.mlp.down_proj.lora_A"),
    "too many": (reshaped(lambda t: t | {"extra": torch.zeros(1)}), "has 1 of its tensors, the first extra"),
    "integers": (reshaped(lambda t: {k: v.int() for k, v in t.items()}), "is torch.int32"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_spoilt_adapters_are_named_and_leave_the_model_alone(tmp_path, case):
    spoil, sentence = SPOILT[case]
    save_adapter(adapted(), tmp_path / "adapter")
    spoil(tmp_path / "adapter")
    refused(llama(), tmp_path / "adapter", sentence)


def refused(model, folder, sentence):
    kept = {name for name, _ in model.named_parameters()}
    with pytest.raises(UserError, match=sentence) as caught:
        load_adapter(model, folder)
    assert "\n" not in str(caught.value)
    assert {name for name, _ in model.named_parameters()} == kept
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_adapters_of_another_model(tmp_path):
    save_adapter(adapted(), tmp_path / "adapter")
    refused(gpt2(), tmp_path / "adapter", r"lacks 24 of its tensors, the first transformer\.h\.0\.attn\.c_attn")
    refused(llama(num_hidden_layers=3), tmp_path / "adapter", r"lacks 21 .* model\.layers\.2\.mlp\.down_proj\.lora_A")
    refused(llama(num_hidden_layers=1), tmp_path / "adapter", r"has 21 .* model\.layers\.1\.mlp\.down_proj\.lora_A")
    refused(
        llama(intermediate_size=40), tmp_path / "adapter", r"gate_proj.lora_B.* \(48, 8\), which should be \(40, 8\)"
    )
    refused(nn.Sequential(nn.Embedding(2, 3)), tmp_path / "adapter", "no linear layer")


def test_adapters_are_not_loaded_over_others_or_onto_meta(tmp_path):
    save_adapter(adapted(), tmp_path / "adapter")
    with pytest.raises(UserError, match="carries LoRA adapters already"):
        load_adapter(adapted(), tmp_path / "adapter")
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**LLAMA))
    refused(model, tmp_path / "adapter", "on the meta device; load its own weights")
