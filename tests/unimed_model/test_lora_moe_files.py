"""Adapters of LoRA-MoE on disk: what is saved comes back, and what is spoilt is named."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from unimed_model import lora_moe_files
from unimed_model.errors import UserError
from unimed_model.lora_moe import adapter_state, inject_lora_moe, load_adapter, save_adapter

from .lora_moe_models import KINDS, LLAMA, SMALL, adapted, descend, gpt2, layer, llama, tokens

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
