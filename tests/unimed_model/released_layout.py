"""Checkpoints in the layout of the authors' released code, written by the tests themselves, and toy bases for them."""

import warnings

import pytest
import torch
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    Blip2VisionConfig,
    Blip2VisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    ViTImageProcessorPil,
)

from unimed_model.modeling import UniMedForConditionalGeneration
from unimed_model.released_checkpoint import convert

TASKS = ("vqa", "refer", "identify", "caption", "cls")
ENCODER, LLM, RATE = 8, 16, 4  # widths of the tiny encoder and LLM; visual tokens made into one
WIDTH = ENCODER * RATE
IMAGE, PATCH = 16, 4
KINDS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
PEFT = "llm_model.base_model.model."

PRESET = {
    "vision": {
        "pretrained": "lavis/eva-toy",
        "architecture": {
            "type": "blip_2_vision_model",
            "image_size": IMAGE,
            "patch_size": PATCH,
            "width": ENCODER,
            "layers": 2,
            "heads": 2,
            "feedforward": 16,
        },
        "image_size": IMAGE,
        "final_norm": "parameter_free",
    },
    "llm": {
        "pretrained": "meta/llama-toy",
        "architecture": {
            "width": LLM,
            "layers": 2,
            "heads": 2,
            "feedforward": 24,
            "context": 64,
            "vocabulary": 40,
            "tied": False,
        },
    },
    "prompt": {"profile": "released"},
    "training": {"steps": 1, "peak_learning_rate": 1e-5, "floor_learning_rate": 0, "warmup_steps": 0},
}


@pytest.fixture(scope="module", name="preset")
def preset_fixture(tmp_path_factory):
    path = tmp_path_factory.mktemp("preset") / "toy.yaml"
    path.write_text(yaml.safe_dump(PRESET))
    return str(path)


@pytest.fixture(scope="module", name="weights")
def weights_fixture(tmp_path_factory):
    """An encoder and a LLaMA of toy size, as ``unimed-data weights`` leaves the real ones."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(1)
    vision = Blip2VisionConfig(
        hidden_size=ENCODER,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=IMAGE,
        patch_size=PATCH,
        layer_norm_eps=1e-6,
        initializer_range=0.5,
    )
    Blip2VisionModel(vision).save_pretrained(folder / "eva-toy")
    sizes = {"height": IMAGE, "width": IMAGE}
    ViTImageProcessorPil(size=sizes, image_mean=[0.5] * 3, image_std=[0.2] * 3).save_pretrained(folder / "eva-toy")
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=LLM,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,
        rms_norm_eps=1e-5,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "llama-toy")
    tokenizer().save_pretrained(folder / "llama-toy")
    return folder


def tokenizer():
    pieces = ["<unk>", "<s>", "</s>", "$$", "[", "]", "INST", "/", "Img", "<", ">", "vqa", "a", "b", "c"]
    made = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>", model_max_length=64
    )


def linear(state, name, rows, columns):
    state[f"{name}.weight"] = torch.randn(rows, columns) / columns**0.5
    state[f"{name}.bias"] = torch.randn(rows) / 3


def task_tokens(width=WIDTH):
    return {f"task_tokens.{task}": torch.randn(1, 1, width) for task in TASKS}


def mixture(num_experts=5, layers=2, reads=2 * WIDTH, hidden=None, width=WIDTH):
    """Experts under both of their names, and a router of the released shape."""
    state = task_tokens(width)
    for expert in range(num_experts):
        for layer in range(layers):
            linear(state, f"moe_layers.{expert}.{2 * layer}", LLM, width if layer == 0 else LLM)
    linear(state, "router.fc1", hidden or 4 * reads, reads)
    linear(state, "router.fc2", num_experts, hidden or 4 * reads)
    return state | {key.replace("moe_layers", "llm_proj"): t for key, t in state.items() if key.startswith("moe")}


def peft_llm(weights, kinds=KINDS, rank=3):
    """The LLaMA inside peft's own model, as the released code wraps it, its LoRA no longer zero."""
    from peft import LoraConfig, get_peft_model

    llm = LlamaForCausalLM.from_pretrained(weights / "llama-toy")
    config = LoraConfig(r=rank, lora_alpha=16, lora_dropout=0.05, target_modules=list(kinds), task_type="CAUSAL_LM")
    with warnings.catch_warnings():
        # peft asks transformers by a deprecated name
        warnings.simplefilter("ignore", FutureWarning)
        wrapped = get_peft_model(llm, config)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn_like(parameter))
    return wrapped.eval()


def adapters(wrapped):
    """What the released code saves of the LLM: parameters that are trained, and buffers."""
    state = {f"llm_model.{name}": p.detach() for name, p in wrapped.named_parameters() if p.requires_grad}
    rotary = {f"{PEFT}model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(4) for i in range(2)}
    return state | rotary


def save(path, model, **others):
    optimizer = {"state": {0: {"step": torch.tensor(7.0), "exp_avg": torch.randn(8)}}, "param_groups": [{"lr": 1e-5}]}
    torch.save({"model": model, "optimizer": optimizer, "scaler": {"scale": 65536.0}, "epoch": 0, **others}, path)
    return path


def config_entry(**model):
    return {"model": {"arch": "uni_med", "lora_target_modules": ["all"], **model}, "run": {"init_lr": 1e-5}}


@pytest.fixture(scope="module", name="llm_state")
def llm_state_fixture(weights):
    torch.manual_seed(2)
    return adapters(peft_llm(weights))


@pytest.fixture(name="run")
def run_fixture(tmp_path, weights, preset, llm_state):
    """Save connector and LLM in the released layout, convert them, open the result."""

    def run(connector, llm=None, config=None, *, bases=weights, **arguments):
        others = {} if config is None else {"config": config}
        path = save(tmp_path / "checkpoint_0.pth", connector | (llm_state if llm is None else llm), **others)
        out = tmp_path / "out"
        done = convert(path, out, weights=bases, preset=preset, quiet=True, **arguments)
        return done, out

    return run


def opened(out, weights):
    return UniMedForConditionalGeneration.from_pretrained(out, weights=weights)


def released_connector(state, tokens, task, router="soft", strategy="token_task"):
    """The released forward pass: (batch, tokens, WIDTH) -> (batch, tokens, LLM), in plain torch."""

    def apply(name, x):
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def gelu(x):
        return x * 0.5 * (1 + torch.erf(x / 2**0.5))

    experts = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("moe_layers"))
    token = state[f"task_tokens.{task}"].expand(len(tokens), tokens.shape[1], -1)
    read = {"token": tokens, "task": token, "token_task": torch.cat([token, tokens], dim=-1)}[strategy]
    if router == "hard":
        chosen = torch.nn.functional.one_hot(torch.tensor(TASKS.index(task)), experts).float()
        weights = chosen.expand(*tokens.shape[:2], -1)
    elif router == "constant":
        weights = torch.full((*tokens.shape[:2], experts), 1 / experts)
    else:
        scores = apply("router.fc2", gelu(apply("router.fc1", read)))
        if router == "soft":
            weights = 1 / (1 + torch.exp(-scores))
            weights = weights / weights.sum(-1, keepdim=True)
        else:
            kth = scores.sort(dim=-1, descending=True).values[..., 1:2]
            raised = torch.where(scores >= kth, torch.exp(scores), torch.zeros(()))
            weights = raised / raised.sum(-1, keepdim=True)
    total = torch.zeros(*tokens.shape[:2], LLM)
    for expert in range(experts):
        output = apply(f"moe_layers.{expert}.0", tokens)
        if f"moe_layers.{expert}.2.weight" in state:
            output = apply(f"moe_layers.{expert}.2", gelu(output))
        total = total + weights[..., expert : expert + 1] * output
    return total
