"""The LLM: any transformers causal LM, its own weights trained or frozen, with LoRA or LoRA-MoE beside them."""

import re
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from .lora_moe import inject_lora_moe
from .pretrained import open_whole
from .settings import AdapterSettings, LanguageUse

_ADAPTER = re.compile(r"(^|\.)lora_")


def fresh_language_model(config: PreTrainedConfig, use: LanguageUse) -> PreTrainedModel:
    """Return a causal LM with fresh weights in the precision of ``use``."""
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, use.precision))
    return model


def make_trainable(model: PreTrainedModel, use: LanguageUse) -> None:
    """Freeze an LLM or not, in place, and put the adapter beside its weights.

    Raises:
        UserError: an adapter that does not suit the LLM.
    """
    if use.adapter is not None:
        _adapt(model, use.adapter)
    freeze(model, use)


def freeze(model: PreTrainedModel, use: LanguageUse) -> None:
    """Let an LLM's own weights be trained or not, and its adapter's always."""
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point():  # quantised weights are integers
            parameter.requires_grad_(use.trainable or is_adapter(name))


def is_adapter(name: str) -> bool:
    """Whether a parameter of this name belongs to a LoRA or a LoRA expert."""
    return _ADAPTER.search(name) is not None


def _adapt(model: PreTrainedModel, adapter: AdapterSettings) -> None:
    if adapter.kind == "lora_moe":
        inject_lora_moe(
            model,
            rank=adapter.rank,
            alpha=adapter.alpha,
            num_experts=adapter.num_experts,
            top_k=adapter.top_k,
            dropout=adapter.dropout,
        )
        return
    from peft import LoraConfig, TaskType, inject_adapter_in_model

    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules="all-linear",
        task_type=TaskType.CAUSAL_LM,
    )
    inject_adapter_in_model(config, model)
    _adapters_in_full_precision(model)


def _adapters_in_full_precision(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if is_adapter(name) and not parameter.is_meta:
            parameter.data = parameter.data.float()


def load_pretrained(folder: str, use: LanguageUse) -> PreTrainedModel:
    """Return a causal LM with the weights of a folder or hub name, quantised if ``use`` says so.

    Raises:
        UserError: weights that are damaged or lack a tensor; quantisation without bitsandbytes.
    """
    options: dict[str, Any] = {"dtype": getattr(torch, use.precision)}
    if use.quantisation is not None:
        options["quantization_config"] = _quantisation(use)
    model: PreTrainedModel = open_whole(AutoModelForCausalLM, folder, "LLM", strict=True, **options)
    return model


def _quantisation(use: LanguageUse) -> Any:
    from importlib.util import find_spec

    from transformers import BitsAndBytesConfig

    from .errors import UserError

    if find_spec("bitsandbytes") is None:
        raise UserError(f"llm.quantisation={use.quantisation} needs the package bitsandbytes, which is not installed.")
    if use.quantisation == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=getattr(torch, use.precision)
    )
