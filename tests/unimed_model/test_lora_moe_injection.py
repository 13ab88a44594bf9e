"""What LoRA-MoE replaces in an LLM, what it leaves as it was, and what it refuses."""

import copy
import math

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from unimed_model.errors import UserError
from unimed_model.lora_moe import LoraMoELinear, adapter_state, inject_lora_moe

from .lora_moe_models import KINDS, LLAMA, LLAMA_LINEARS, SMALL, adapted, gpt2, llama, qwen2, settle, tokens


@KINDS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_at_initialisation_logits_are_the_base_models(build, dtype):
    model = build().to(dtype)
    ids = tokens(2, 9)
    before = model(ids).logits
    inject_lora_moe(model)
    assert torch.equal(model(ids).logits, before)
    assert not torch.equal(settle(model)(ids).logits, before)


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
