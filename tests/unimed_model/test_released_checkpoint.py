"""Checkpoints in the layout of the authors' released code, read back by ``convert``.

The oracle is the released forward pass in plain torch on the file's own tensors: task token first, sigmoid normalised,
experts summed; and peft's own model around the LLM.
"""

import json
import shutil

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors import safe_open
from transformers import (
    Blip2VisionModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from unimed_model.bases import digest_of
from unimed_model.configuration import UniMedConfig
from unimed_model.errors import UserError
from unimed_model.loading import open_run
from unimed_model.presets import resolve
from unimed_model.processing import Turn, UniMedProcessor
from unimed_model.released_checkpoint import convert
from unimed_model.released_file import ReleasedFile
from unimed_model.released_settings import Facts, read_settings

from .released_layout import (  # noqa: F401 - fixtures
    ENCODER,
    IMAGE,
    KINDS,
    LLM,
    PATCH,
    PEFT,
    PRESET,
    RATE,
    TASKS,
    WIDTH,
    adapters,
    config_entry,
    linear,
    llm_state_fixture,
    mixture,
    opened,
    peft_llm,
    preset_fixture,
    released_connector,
    run_fixture,
    save,
    task_tokens,
    tokenizer,
    weights_fixture,
)

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
