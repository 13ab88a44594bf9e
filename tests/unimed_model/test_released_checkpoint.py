"""Checkpoints in the layout of the authors' released code, written here and read back by ``convert``.

The oracle is the released forward pass in plain torch on the file's own tensors: task token first, sigmoid normalised,
experts summed; and peft's own model around the LLM.
"""

import json
import random
import re
import shlex
import shutil
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors import safe_open
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    Blip2VisionConfig,
    Blip2VisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    ViTImageProcessorPil,
)

from unimed_model.bases import digest_of
from unimed_model.configuration import UniMedConfig
from unimed_model.errors import UserError
from unimed_model.loading import open_run
from unimed_model.modeling import UniMedForConditionalGeneration
from unimed_model.presets import resolve
from unimed_model.processing import Turn, UniMedProcessor
from unimed_model.released_checkpoint import convert
from unimed_model.released_file import ReleasedFile, open_released
from unimed_model.released_settings import Facts, read_settings

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


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    path = tmp_path_factory.mktemp("preset") / "toy.yaml"
    path.write_text(yaml.safe_dump(PRESET))
    return str(path)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
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


@pytest.fixture(scope="module")
def llm_state(weights):
    torch.manual_seed(2)
    return adapters(peft_llm(weights))


@pytest.fixture
def run(tmp_path, weights, preset, llm_state):
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


CASES = [
    ("soft", "token_task", 2 * WIDTH, {}),
    ("soft", "token", WIDTH, {"strategy": "token"}),
    ("soft", "task", WIDTH, {"strategy": "task"}),
    ("sparse", "token_task", 2 * WIDTH, {"router": "sparse"}),
    ("sparse", "token", WIDTH, {"router": "sparse", "strategy": "token"}),
    ("hard", "token_task", 2 * WIDTH, {"router": "hard"}),
    ("constant", "token_task", 2 * WIDTH, {"router": "constant"}),
]


@pytest.mark.parametrize(("router", "strategy", "reads", "arguments"), CASES)
@pytest.mark.parametrize(("experts", "layers"), [(5, 2), (6, 1)])
def test_the_converted_connector_is_the_released_one(run, weights, router, strategy, reads, arguments, experts, layers):
    torch.manual_seed(5)
    state = mixture(experts, layers, reads)
    _, out = run(state, **arguments)
    connector = opened(out, weights).connector
    tokens = torch.randn(3, 4, WIDTH)
    for index, task in enumerate(TASKS):
        wanted = released_connector(state, tokens, task, router, strategy)
        found = connector(tokens, torch.full((3,), index)).tokens
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_projection_without_experts(run, weights, layers):
    """``linear`` has no index in its keys, ``mlp2x_gelu`` and ``mlp3x_gelu`` have."""
    torch.manual_seed(6)
    state = task_tokens()
    net = [torch.nn.Linear(WIDTH, LLM)]
    for _ in range(layers - 1):
        net += [torch.nn.GELU(), torch.nn.Linear(LLM, LLM)]
    plain = torch.nn.Sequential(*net)
    saved = {f"llm_proj.{key}": tensor for key, tensor in plain.state_dict().items()}
    if layers == 1:
        saved = {key.replace("proj.0", "proj"): tensor for key, tensor in saved.items()}
    done, out = run(state | saved)
    tokens = torch.randn(2, 4, WIDTH)
    found = opened(out, weights).connector(tokens).tokens
    torch.testing.assert_close(found, plain(tokens), atol=1e-6, rtol=0)
    assert done.connector["kind"] == ("linear" if layers == 1 else "mlp")
    assert set(task_tokens()) <= set(done.unused)


def test_the_llm_speaks_as_peft_does(run, weights):
    torch.manual_seed(7)
    wrapped = peft_llm(weights)
    _, out = run(mixture(), adapters(wrapped))
    ids = torch.randint(0, 40, (2, 9))
    found = opened(out, weights).language_model(ids).logits
    plain = LlamaForCausalLM.from_pretrained(weights / "llama-toy")(ids).logits
    torch.testing.assert_close(found, wrapped(ids).logits, atol=1e-6, rtol=0)
    assert (found - plain).abs().max() > 0.1


@torch.no_grad()
def test_the_whole_model_is_the_released_one(run, weights):
    """Pixels to logits: encoder without CLS and norm parameters, strips of four patches, experts, peft's LLM."""
    torch.manual_seed(8)
    wrapped, state = peft_llm(weights), mixture()
    _, out = run(state, adapters(wrapped))
    model = opened(out, weights)
    pixels, text = torch.randn(2, 3, IMAGE, IMAGE), torch.randint(0, 40, (2, 5))

    hidden = Blip2VisionModel.from_pretrained(weights / "eva-toy").eval()
    hidden.post_layernorm = torch.nn.Identity()
    patches = hidden(pixel_values=pixels).last_hidden_state
    patches = torch.nn.functional.layer_norm(patches, (ENCODER,), eps=1e-5)[:, 1:]
    tokens = patches.reshape(2, (IMAGE // PATCH) ** 2 // RATE, WIDTH)
    aligned = released_connector(state, tokens, "identify")
    words = wrapped.get_input_embeddings()(text)
    wanted = wrapped(inputs_embeds=torch.cat([words[:, :2], aligned, words[:, 2:]], dim=1)).logits

    holders = torch.full((2, tokens.shape[1]), model.config.image_token_id)
    ids = torch.cat([text[:, :2], holders, text[:, 2:]], dim=1)
    found = model(input_ids=ids, pixel_values=pixels, task_ids=torch.tensor([2, 2])).logits
    torch.testing.assert_close(found, wanted, atol=1e-5 * wanted.abs().max().item(), rtol=0)


def test_every_key_is_accounted_for(run, weights, llm_state):
    state = mixture()
    done, out = run(state | {"something.else": torch.ones(2)})
    assert set(done.duplicates) == {key for key in state if key.startswith("llm_proj.")}
    buffers = {key for key in llm_state if key.endswith("inv_freq")}
    assert set(done.unused) == {"something.else"} | buffers
    assert done.absent == ()
    used = len(state) + len(llm_state) - len(done.duplicates) - len(buffers)
    assert done.tensors == used
    trained = [t for key, t in (state | llm_state).items() if key not in {*done.duplicates, *buffers}]
    assert done.parameters == sum(tensor.numel() for tensor in trained)
    for key in done.unused:
        assert f"\n  {key}\n" in done.text() + "\n"
    assert json.loads(json.dumps(done.to_dict()))["unused"] == list(done.unused)
    with safe_open(out / "model.safetensors", "pt") as file:
        assert all(name.startswith("connector.") or ".lora_" in name for name in file.keys())  # noqa: SIM118
    assert done.epoch == 0


def test_a_router_that_is_never_read_is_named(run):
    done, _ = run(mixture(), router="hard")
    unread = {f"router.{layer}.{kind}" for layer in ("fc1", "fc2") for kind in ("weight", "bias")}
    assert unread | set(task_tokens()) <= set(done.unused)


def test_what_is_recorded_of_the_bases(run, weights):
    done, out = run(mixture())
    config = UniMedConfig.from_pretrained(out)
    for part, name in (("vision", "eva-toy"), ("llm", "llama-toy")):
        assert config.bases[part]["digest"] == done.bases[part].digest == digest_of(weights / name)
    assert config.holds_bases is False
    assert "not at hand" not in done.text()


def test_the_processor_is_saved_where_the_bases_are(run, weights):
    done, out = run(mixture())
    assert done.without_processor == ""
    processor = UniMedProcessor.from_pretrained(out)
    assert (processor.profile, processor.image_tokens, processor.context) == ("released", 4, 64)
    assert UniMedConfig.from_pretrained(out).image_token_id == processor.image_token_id
    assert opened(out, weights).config.image_token_id == processor.image_token_id


def test_the_folder_opens_as_a_run_and_answers(run, weights):
    _, out = run(mixture())
    model, processor = open_run(out, weights)
    picture = Image.new("RGB", (20, 30), "white")
    batch = processor.generation_batch([Turn("VQA", "a b", picture), Turn("QA", "c", None)])
    answers = model.generate(**batch, max_new_tokens=3, do_sample=False, pad_token_id=processor.tokenizer.pad_token_id)
    assert answers.shape[0] == 2
    assert model.generation_config.eos_token_id == processor.tokenizer.eos_token_id


def test_a_base_without_tokenizer_leaves_the_processor_out(run, weights, tmp_path):
    shutil.copytree(weights, tmp_path / "weights")
    for path in (tmp_path / "weights" / "llama-toy").glob("*token*"):
        path.unlink()
    done, _ = run(mixture(), bases=tmp_path / "weights")
    assert done.without_processor
    assert f"not saved: {done.without_processor}" in done.text()


def test_bases_that_are_not_at_hand_have_no_digest(run, weights):
    done, out = run(mixture(), bases=None)
    assert {part: (base.name, base.folder, base.digest) for part, base in done.bases.items()} == {
        "vision": ("lavis/eva-toy", "", ""),
        "llm": ("meta/llama-toy", "", ""),
    }
    assert UniMedConfig.from_pretrained(out).bases["llm"]["digest"] == ""
    assert "lavis/eva-toy and meta/llama-toy" in done.without_processor
    assert done.text().count("digest is unknown") == 2
    assert not list(out.glob("*processor*"))
    with pytest.warns(UserWarning, match="unknown"):
        model = opened(out, weights)
    assert model.config.image_token_id == 40


def test_a_base_in_the_hubs_cache_is_at_hand(run, weights, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    repository = cache / "models--lavis--eva-toy"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    shutil.copytree(weights / "eva-toy", repository / "snapshots" / ("0" * 40))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    done, _ = run(mixture(), bases=None)
    assert done.bases["vision"].digest == digest_of(weights / "eva-toy")
    assert done.bases["llm"].digest == ""


@pytest.mark.parametrize(("part", "name"), [("vision", "llama-toy"), ("llm", "eva-toy")])
def test_a_base_of_the_other_kind(tmp_path, weights, llm_state, part, name):
    wrong = PRESET | {part: PRESET[part] | {"pretrained": f"hub/{name}"}}
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(wrong))
    path = save(tmp_path / "checkpoint_0.pth", mixture() | llm_state)
    with pytest.raises(UserError, match=rf"{name} holds a .* cannot be {part}\.pretrained"):
        convert(path, tmp_path / "out", weights=weights, preset=str(tmp_path / "wrong.yaml"), quiet=True)


def test_a_base_that_lacks_a_shard_is_not_at_hand(run, weights, tmp_path):
    shutil.copytree(weights, tmp_path / "weights")
    whole = tmp_path / "weights" / "llama-toy" / "model.safetensors"
    whole.rename(whole.with_name("model-00001-of-00002.safetensors"))
    done, _ = run(mixture(), bases=tmp_path / "weights")
    assert done.bases["llm"].digest == ""
    assert done.bases["vision"].digest


def test_sizes_that_only_the_config_entry_tells(run):
    entry = config_entry(
        router_type="sparse", router_method="router_task", sparse_topk=3, lora_alpha=32, image_size=IMAGE, has_moe=True
    )
    done, out = run(mixture(reads=WIDTH), config=entry)
    config = UniMedConfig.from_pretrained(out)
    connector = config.connector_settings
    assert (connector.router, connector.strategy, connector.top_k) == ("sparse", "task", 3)
    assert config.language_use.adapter.alpha == 32
    assert done.assumed == ()


def test_what_nothing_tells_is_reported_as_assumed(run):
    done, out = run(mixture())
    assert set(done.assumed) == {"router=soft", "alpha=16.0"}
    assert "router=soft" in done.text()
    assert UniMedConfig.from_pretrained(out).language_use.adapter.alpha == 16


def test_the_released_defaults_stand_for_what_the_config_entry_lacks(run):
    done, out = run(mixture(), config=config_entry())
    assert done.assumed == ()
    assert UniMedConfig.from_pretrained(out).connector_settings.strategy == "token_task"


@pytest.mark.parametrize("prefixed", [False, True])
def test_distributed_training_prefixes_every_key(run, weights, llm_state, prefixed):
    torch.manual_seed(9)
    prefix = "module." if prefixed else ""
    state = mixture()
    done, out = run({prefix + key: t for key, t in state.items()}, {prefix + key: t for key, t in llm_state.items()})
    assert all(key.startswith("module.") == prefixed for key in (*done.unused, *done.duplicates))
    tokens = torch.randn(1, 4, WIDTH)
    found = opened(out, weights).connector(tokens, torch.tensor([4])).tokens
    torch.testing.assert_close(found, released_connector(state, tokens, "cls"), atol=1e-6, rtol=0)


def test_layers_that_were_not_adapted_hold_lora_that_adds_nothing(run, weights):
    """With the released code's default targets, q and v, the other five kinds of layers have no LoRA in the file."""
    torch.manual_seed(10)
    wrapped = peft_llm(weights, ("q_proj", "v_proj"))
    done, out = run(mixture(), adapters(wrapped))
    assert len(done.absent) == 2 * 5 * 2
    assert not any("q_proj" in name or "v_proj" in name for name in done.absent)
    assert all(f"  {name}" in done.text() for name in done.absent)
    ids = torch.randint(0, 40, (2, 7))
    model = opened(out, weights)
    torch.testing.assert_close(model.language_model(ids).logits, wrapped(ids).logits, atol=1e-6, rtol=0)
    fresh = model.get_parameter("language_model.model.layers.0.mlp.up_proj.lora_A.default.weight")
    assert fresh.abs().min() > 0


def test_a_llm_trained_in_full(run, weights):
    """Half precision in the file; the base is only needed for its configuration."""
    torch.manual_seed(11)
    llm = LlamaForCausalLM.from_pretrained(weights / "llama-toy")
    llm.load_state_dict({name: (1.5 * tensor).half() for name, tensor in llm.state_dict().items()})
    state = {f"llm_model.{name}": tensor.half() for name, tensor in llm.state_dict().items()}
    state["llm_model.model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    done, out = run(mixture(), state)
    assert done.unused == ("llm_model.model.layers.0.self_attn.rotary_emb.inv_freq",)
    ids = torch.randint(0, 40, (2, 7))
    found = opened(out, weights).language_model(ids).logits
    torch.testing.assert_close(found, llm(ids).logits, atol=1e-6, rtol=0)


def test_a_llm_trained_in_full_needs_its_bases_configuration(run, weights):
    llm = LlamaForCausalLM.from_pretrained(weights / "llama-toy")
    state = {f"llm_model.{name}": tensor for name, tensor in llm.state_dict().items()}
    with pytest.raises(UserError, match="--weights"):
        run(mixture(), state, bases=None)


def test_a_llm_trained_in_full_whose_head_is_its_embedding(run, weights, tmp_path):
    """The file then holds one tensor under two keys."""
    shutil.copytree(weights, tmp_path / "weights")
    config = LlamaConfig.from_pretrained(weights / "llama-toy", tie_word_embeddings=True)
    llm = LlamaForCausalLM(config)
    llm.save_pretrained(tmp_path / "weights" / "llama-toy")
    _, out = run(
        mixture(), {f"llm_model.{name}": t for name, t in llm.state_dict().items()}, bases=tmp_path / "weights"
    )
    ids = torch.randint(0, 40, (2, 7))
    assert torch.equal(opened(out, tmp_path / "weights").language_model(ids).logits, llm(ids).logits)


def test_a_llm_that_was_not_trained(run, weights):
    done, out = run(mixture(), {"llm_model.model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)})
    assert done.llm == {"trainable": False, "adapter": None}
    ids = torch.randint(0, 40, (2, 7))
    plain = LlamaForCausalLM.from_pretrained(weights / "llama-toy")(ids).logits
    assert torch.equal(opened(out, weights).language_model(ids).logits, plain)


@pytest.mark.parametrize("kind", ["average", "max"])
def test_pooled_tokens(run, kind):
    done, out = run(mixture(reads=2 * ENCODER, width=ENCODER), resampler=kind)
    settings = UniMedConfig.from_pretrained(out).resampler_settings
    assert (settings.kind, settings.rate, settings.window) == (kind, 4, (2, 2))
    assert done.resampler["kind"] == kind


def test_tokens_left_as_they_are(run):
    _, out = run(mixture(reads=2 * ENCODER, width=ENCODER), resampler="projection")
    assert UniMedConfig.from_pretrained(out).image_tokens == (IMAGE // PATCH) ** 2


@given(
    experts=st.integers(1, 9),
    layers=st.integers(1, 3),
    rate=st.sampled_from((2, 4, 8)),
    hidden=st.integers(1, 20),
    inner=st.integers(1, 20),
    rank=st.integers(1, 9),
    strategy=st.sampled_from(("token", "task", "token_task")),
)
def test_sizes_are_read_off_the_tensors(experts, layers, rate, hidden, inner, rank, strategy):
    width = ENCODER * rate
    state = {f"task_tokens.{task}": torch.zeros(1, 1, width) for task in TASKS}
    for expert in range(experts):
        for layer in range(layers):
            rows = LLM if layer == layers - 1 else inner
            state[f"moe_layers.{expert}.{2 * layer}.weight"] = torch.zeros(rows, width if layer == 0 else inner)
    state["router.fc1.weight"] = torch.zeros(hidden, 2 * width if strategy == "token_task" else width)
    state[f"{PEFT}model.layers.0.self_attn.q_proj.lora_A.default.weight"] = torch.zeros(rank, LLM)
    file = ReleasedFile("checkpoint_0.pth", state, {}, None)
    asked = resolve("released", [f"vision.architecture.width={ENCODER}", "vision.architecture.heads=2"])
    settings = read_settings(file, Facts(file, {"strategy": strategy}), asked, ENCODER)
    connector, adapter = settings.connector, settings.llm.adapter
    assert (connector.num_experts, connector.layers, connector.router_hidden) == (experts, layers, hidden)
    assert (connector.hidden or LLM) == (inner if layers > 1 else LLM)
    assert connector.strategy == strategy
    assert (settings.resampler.rate, adapter.rank, adapter.dropout) == (rate, rank, 0.05)


def broken(state, key, change):
    return state | {key: change(state[key].clone())}


def poisoned(value):
    def change(tensor):
        tensor.view(-1)[-1] = value
        return tensor

    return change


def without(state, *keys):
    return {key: tensor for key, tensor in state.items() if key not in keys}


Q_A, Q_B = (f"{PEFT}model.layers.1.self_attn.q_proj.lora_{letter}.default.weight" for letter in "AB")

WRONG_TENSORS = {
    "NaN": (lambda s: broken(s, "moe_layers.3.2.bias", poisoned(float("nan"))), r"moe_layers\.3\.2\.bias.*NaN"),
    "infinite": (lambda s: broken(s, "router.fc1.weight", poisoned(-float("inf"))), r"router\.fc1\.weight.*infinite"),
    "whole numbers": (lambda s: broken(s, "router.fc2.bias", torch.Tensor.long), r"router\.fc2\.bias"),
    "expert's shape": (
        lambda s: broken(s, "moe_layers.2.0.weight", lambda t: t[:-1]),
        rf"moe_layers\.2\.0\.weight has the shape \({LLM - 1}, {WIDTH}\), where \({LLM}, {WIDTH}\) is needed",
    ),
    "other LLM": (
        lambda s: {k: torch.cat([t, t]) if re.match(r"(moe_layers|llm_proj)\.\d\.2", k) else t for k, t in s.items()},
        rf"moe_layers\.0\.2\.weight has the shape \({2 * LLM}, {LLM}\), where \({LLM}, {LLM}\) is needed",
    ),
    "task token's shape": (
        lambda s: broken(s, "task_tokens.caption", lambda t: t[..., 1:]),
        rf"task_tokens\.caption has the shape \(1, 1, {WIDTH - 1}\)",
    ),
    "two task tokens": (
        lambda s: {k: t.repeat(1, 2, 1) if k.startswith("task") else t for k, t in s.items()},
        rf"task_tokens\.vqa has the shape \(1, 2, {WIDTH}\), where \(1, 1, {WIDTH}\)",
    ),
    "router's outputs": (
        lambda s: broken(s, "router.fc2.weight", lambda t: t[:4]),
        r"router\.fc2\.weight has the shape",
    ),
    "router's inputs": (
        lambda s: broken(s, "router.fc1.weight", lambda t: t[:, 1:]),
        rf"router\.fc1\.weight has {2 * WIDTH - 1} columns.*{WIDTH} for token.*{2 * WIDTH} for token_task",
    ),
    "no matrix": (lambda s: broken(s, "router.fc1.weight", lambda t: t[0]), r"router\.fc1\.weight has the shape"),
    "nothing": (
        lambda s: broken(s, "moe_layers.0.0.weight", lambda t: t[:0]),
        r"moe_layers\.0\.0\.weight has the shape",
    ),
    "scalar task token": (lambda s: broken(s, "task_tokens.vqa", lambda t: t.sum()), r"router\.fc1\.weight has"),
    "LoRA's rank": (lambda s: broken(s, Q_A, lambda t: t[:2]), r"lora_A\.default\.weight has the shape \(2, 16\)"),
    "expert missing": (
        lambda s: without(s, *(k for k in s if k.startswith("moe_layers.2."))),
        r"holds no moe_layers\.2\.0\.weight",
    ),
    "bias missing": (lambda s: without(s, "moe_layers.4.0.bias"), r"holds no moe_layers\.4\.0\.bias"),
    "last layer missing": (lambda s: without(s, "moe_layers.0.2.weight"), r"holds no moe_layers\.0\.2\.weight"),
    "router missing": (lambda s: without(s, "router.fc1.weight"), r"holds no router\.fc1\.weight"),
    "task token missing": (lambda s: without(s, "task_tokens.cls"), r"holds no task_tokens\.cls"),
    "half a LoRA": (lambda s: without(s, Q_B), rf"holds no {re.escape(Q_B)}"),
    "one layer's LoRA": (lambda s: without(s, Q_A, Q_B), rf"holds no {re.escape(Q_A)}"),
    "a layer too many": (lambda s: s | {Q_A.replace("s.1.", "s.2."): s[Q_A]}, r"layers\.2.*the LLM has no place"),
    "LoRA on the head": (
        lambda s: s | {f"{PEFT}lm_head.lora_A.default.weight": torch.ones(3, 16)},
        r"lm_head\.lora_A.*the LLM has no place",
    ),
    "no connector": (
        lambda s: {k: t for k, t in s.items() if not k.startswith(("moe_layers", "llm_proj"))},
        "neither experts .moe_layers. nor a projection",
    ),
    "twins that differ": (
        lambda s: broken(s, "llm_proj.1.0.weight", poisoned(9.0)),
        r"llm_proj\.1\.0\.weight and moe_layers\.1\.0\.weight",
    ),
    "twins of two types": (
        lambda s: broken(s, "llm_proj.1.0.weight", torch.Tensor.double),
        r"llm_proj\.1\.0\.weight and",
    ),
    "trained encoder": (
        lambda s: s | {"visual_encoder.cls_token": torch.ones(1)},
        r"visual_encoder\.cls_token.*freeze_vit",
    ),
}


@pytest.mark.parametrize(("change", "sentence"), WRONG_TENSORS.values(), ids=WRONG_TENSORS)
def test_tensors_that_do_not_fit(run, tmp_path, llm_state, change, sentence):
    torch.manual_seed(12)
    with pytest.raises(UserError, match=sentence):
        run(change(mixture() | llm_state), {})
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint_0.pth"]


WRONG_ARGUMENTS = {
    "strategy open": ({"reads": WIDTH}, {}, None, "--strategy token or task"),
    "strategy of another width": ({}, {"strategy": "token"}, None, "does not fit token"),
    "unknown strategy": ({}, {"strategy": "tokens"}, None, "does not fit tokens"),
    "resampler open": ({"width": ENCODER, "reads": 2 * ENCODER}, {}, None, "--resampler average, max or projection"),
    "resampler of another width": ({}, {"resampler": "max"}, None, "does not fit max"),
    "unknown resampler": ({"width": ENCODER, "reads": 2 * ENCODER}, {"resampler": "mean"}, None, "'resampler.kind'"),
    "no multiple": ({"width": 12, "reads": 24}, {}, None, r"moe_layers\.0\.0\.weight has 12 columns"),
    "unknown router": ({}, {"router": "softt"}, None, r"connector\.router"),
    "too few experts": ({"num_experts": 4}, {"router": "hard"}, None, "num_experts 4 is too few"),
    "too large k": ({}, {"router": "sparse", "top_k": 6}, None, "top_k 6 is more"),
    "k of a soft router": ({}, {"top_k": 2}, None, "without top_k"),
    "strategy of a hard router": ({}, {"router": "hard", "strategy": "token"}, None, "without strategy"),
    "alpha": ({}, {"alpha": 0.0}, None, "alpha"),
    "contradiction": ({}, {"router": "hard"}, config_entry(router_type="soft"), "with router soft.*not hard"),
    "entry of another router": ({}, {}, config_entry(router_method="router_token"), "does not fit token"),
    "entry of another LLM": ({}, {}, config_entry(sft_type="full"), "sft_type full.*sft_type lora"),
    "entry of lists": ({}, {}, config_entry(router_type=["soft"]), r"model\.router_type"),
    "entry of another image": ({}, {}, config_entry(image_size=18), "image_size"),
    "preset": ({}, {"preset": "tiny"}, None, "vision.pretrained"),
    "weights": ({}, {"weights": "nowhere"}, None, "no folder nowhere"),
}


@pytest.mark.parametrize(("layout", "arguments", "entry", "sentence"), WRONG_ARGUMENTS.values(), ids=WRONG_ARGUMENTS)
def test_arguments_that_do_not_fit(tmp_path, weights, preset, llm_state, layout, arguments, entry, sentence):
    others = {} if entry is None else {"config": entry}
    path = save(tmp_path / "checkpoint_0.pth", mixture(**layout) | llm_state, **others)
    given = {"weights": weights, "preset": preset} | arguments
    given["weights"] = Path(given["weights"])
    with pytest.raises(UserError, match=sentence):
        convert(path, tmp_path / "out", quiet=True, **given)
    assert not (tmp_path / "out").exists()


def test_no_checkpoint(tmp_path):
    for path in (tmp_path / "missing.pth", tmp_path):
        with pytest.raises(UserError, match="There is no checkpoint"):
            convert(path, tmp_path / "out", quiet=True)


def test_what_stands_in_the_folders_place_is_not_touched(tmp_path, run):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with pytest.raises(UserError, match="there already"):
        run(mixture())
    assert (tmp_path / "out" / "mine").read_text() == "mine"


@pytest.mark.parametrize("kept", [0.999, 0.5, 0.01])
def test_a_truncated_file(tmp_path, kept):
    path = save(tmp_path / "checkpoint_0.pth", mixture())
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(UserError, match="truncated"):
        convert(path, tmp_path / "out", quiet=True)


def test_a_file_of_another_kind(tmp_path):
    path = tmp_path / "checkpoint_0.pth"
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match=r"no file that torch\.save writes"):
        convert(path, tmp_path / "out", quiet=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "<x/>")
    with pytest.raises(UserError, match="damaged"):
        convert(path, tmp_path / "out", quiet=True)
    torch.save(mixture(), path, _use_new_zipfile_serialization=False)
    with pytest.raises(UserError, match=r"no file that torch\.save writes"):
        convert(path, tmp_path / "out", quiet=True)


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": {}}, {"model": {}}, {"model": 3}, torch.ones(2)])
def test_a_file_with_other_content(tmp_path, content):
    path = tmp_path / "checkpoint_0.pth"
    torch.save(content, path)
    with pytest.raises(UserError, match="no entry 'model' with tensors"):
        convert(path, tmp_path / "out", quiet=True)


@pytest.mark.parametrize("model", [{"a": 1}, {3: torch.ones(1)}, {"a": torch.ones(1), "b": [torch.ones(1)]}])
def test_a_model_entry_that_holds_no_tensors(tmp_path, model):
    path = tmp_path / "checkpoint_0.pth"
    torch.save({"model": model}, path)
    with pytest.raises(UserError, match="is no tensor"):
        convert(path, tmp_path / "out", quiet=True)


def test_damage_anywhere_is_one_sentence(tmp_path):
    """Random bytes replaced: the file opens, or it is refused; nothing else is raised."""
    path = save(tmp_path / "checkpoint_0.pth", {f"key{i}": torch.randn(3) for i in range(3)})
    whole, chance, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(600):
        damaged = bytearray(whole)
        for _ in range(chance.choice((1, 3, 20))):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            open_released(path)
        except UserError:
            refused += 1
    assert 100 < refused < 600


def test_a_damaged_pickle(tmp_path):
    whole, path = tmp_path / "whole.pth", tmp_path / "checkpoint_0.pth"
    save(whole, mixture())
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            target.writestr(name, data[: len(data) // 2] if name.endswith("data.pkl") else data)
    with pytest.raises(UserError, match="damaged"):
        convert(path, tmp_path / "out", quiet=True)


def test_classes_of_its_own_are_named_and_never_made(tmp_path, run, weights, preset, llm_state):
    """As with a config entry that was not turned into plain values: a marker shows that nothing of it was run."""
    module = tmp_path / "its_own.py"
    module.write_text(
        "from pathlib import Path\n"
        "class Node:\n"
        "    def __reduce__(self):\n"
        f"        return make, ({str(tmp_path / 'it ran')!r},)\n"
        "def make(path):\n"
        "    Path(path).touch()\n"
        "    return Node()\n"
    )
    sys.path.insert(0, str(tmp_path))
    try:
        import its_own

        path = save(tmp_path / "checkpoint 0's.pth", mixture() | llm_state, config=its_own.Node())
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("its_own", None)
    with pytest.raises(UserError, match=r"its_own\.make") as caught:
        convert(path, tmp_path / "out", weights=weights, preset=preset, quiet=True)
    assert not (tmp_path / "it ran").exists()

    command = shlex.split(str(caught.value)[str(caught.value).index("python -c") :])
    subprocess.run([sys.executable, *command[1:]], check=True, cwd=tmp_path)
    alone = tmp_path / "checkpoint 0's_model.pth"
    assert convert(alone, tmp_path / "out", weights=weights, preset=preset, quiet=True).tensors > 0


def test_tensors_stay_on_disk_until_they_are_looked_at(tmp_path):
    """So does the optimizer's state, to which nobody looks."""
    process = pytest.importorskip("psutil").Process()
    path = save(tmp_path / "checkpoint_0.pth", {"large": torch.zeros(2**26)})
    before = process.memory_info().rss
    file = open_released(path)
    assert process.memory_info().rss - before < 2**26
    assert file.tensors["large"].sum() == 0
    assert process.memory_info().rss - before > 2**27


def test_interrupted_writing_leaves_nothing(tmp_path, run, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("unimed_model.released_checkpoint.save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(mixture())
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint_0.pth"]


def test_the_file_is_opened_as_it_was_saved(tmp_path):
    state = mixture()
    file = open_released(save(tmp_path / "checkpoint_0.pth", state))
    assert list(file.tensors) == list(state)
    assert all(torch.equal(file.tensors[key], tensor) for key, tensor in state.items())
