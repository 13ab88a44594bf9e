"""Architectures of transformers and peft, tiny and freshly initialised."""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from .frame import Specimen, architecture, integers, normal, token_data


@architecture(may_warn=True)
def gpt2(dtype):
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=11, n_positions=8, n_embd=24, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    return Specimen(GPT2LMHeadModel(config).to(dtype), token_data(), "*", None)


def _llama_settings() -> dict[str, Any]:
    return {
        "vocab_size": 11,
        "hidden_size": 24,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 32,
    }


@architecture()
def llama(dtype):
    from transformers import LlamaConfig, LlamaForCausalLM

    return Specimen(LlamaForCausalLM(LlamaConfig(**_llama_settings())).to(dtype), token_data(), "model.layers.*", None)


@architecture(may_warn=True)
def lora_on_a_frozen_llama(dtype):
    from transformers import LlamaConfig, LlamaForCausalLM

    peft = pytest.importorskip("peft")
    base = LlamaForCausalLM(LlamaConfig(**_llama_settings()))
    # Not the default initialisation, with which B is zero and so is every gradient of A.
    config = peft.LoraConfig(
        r=2, lora_alpha=3, lora_dropout=0.5, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False
    )
    with warnings.catch_warnings():
        # peft asks transformers for an attribute that is about to be renamed.
        warnings.simplefilter("ignore", FutureWarning)
        model = peft.get_peft_model(base, config)
    return Specimen(model.to(dtype), token_data(), "*", None)


IMAGE_TOKEN = 10


@architecture(may_warn=True, untouched=("text",))
def llava(dtype):
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    vision = CLIPVisionConfig(
        hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=8, patch_size=4
    )
    config = LlavaConfig(
        vision_config=vision, text_config=LlamaConfig(**_llama_settings()), image_token_index=IMAGE_TOKEN
    )
    model = LlavaForConditionalGeneration(config).to(dtype)

    def text(number: int) -> dict[str, Tensor]:
        ids = integers(number, IMAGE_TOKEN, 1, 4)
        return {"input_ids": ids, "labels": ids.clone()}

    def image(number: int) -> dict[str, Tensor]:
        words = integers(number, IMAGE_TOKEN, 1, 4)
        ids = torch.cat([torch.full((1, 4), IMAGE_TOKEN), words], 1)
        pixels = normal(number, 1, 3, 8, 8, dtype=dtype)
        return {"input_ids": ids, "labels": ids.masked_fill(ids == IMAGE_TOKEN, -100), "pixel_values": pixels}

    datasets = {
        "vqa": [image(0), image(1), image(2)],
        "text": [text(3), text(4), text(5)],
        "mixed": [image(6), text(7), image(8)],
    }
    return Specimen(model, datasets, "model.multi_modal_projector.*", None)
