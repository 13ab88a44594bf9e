"""Small LLMs of three families, with LoRA-MoE or without, and one such layer by itself."""

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from unimed_model.lora_moe import LoraMoELinear, adapter_state, inject_lora_moe
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
