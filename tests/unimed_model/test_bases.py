"""Models on pretrained bases: what is trained, what is saved, and how a base is found again."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText

from unimed_model import UniMedForConditionalGeneration
from unimed_model.building import build
from unimed_model.errors import UserError
from unimed_model.loading import open_run
from unimed_model.processing import Turn
from unimed_model.training import train

from .conftest import on_bases


def picture(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Image.fromarray(torch.randint(0, 256, (50, 40, 3), generator=generator).byte().numpy())


TURNS = [Turn("VQA", "Which plane?", picture(0), "axial"), Turn("QA", "Is it so?", None, "yes")]
LORA, MOE = "llm.adapter={kind: lora, rank: 2}", "llm.adapter={kind: lora_moe, rank: 2, num_experts: 3, top_k: 2}"


@pytest.fixture(scope="module", params=[LORA, MOE], ids=["lora", "lora_moe"])
def run(request, corpus, bases, tmp_path_factory):
    out = tmp_path_factory.mktemp("on_bases") / "run"
    assert train(on_bases(request.param), corpus, out, weights=bases, quiet=True)
    return out


def test_a_fresh_adapter_changes_nothing(bases):
    """The LLM alone, through our class, gives exactly what transformers' own class gives."""
    plain = AutoModelForCausalLM.from_pretrained(bases / "toy-llm").eval()
    for adapter in (LORA, MOE):
        model, processor = build(on_bases(adapter), (), bases)
        batch = processor.generation_batch([TURNS[1]])
        assert torch.equal(model.eval()(**batch).logits, plain(**batch).logits)


def test_vision_features_are_those_of_the_base(bases):
    model, processor = build(on_bases(), (), bases)
    pixels = processor.training_batch(TURNS)["pixel_values"]
    plain = AutoModel.from_pretrained(bases / "toy-vision").eval()
    wanted = plain(pixel_values=pixels).last_hidden_state[:, 1:]
    assert torch.equal(model.get_image_features(pixels, torch.tensor([0])).inputs, wanted.reshape(1, 4, 128))


def test_pixels_are_normalised_as_the_base_wants(bases):
    _, processor = build(on_bases(), (), bases)
    white = processor.training_batch([Turn("VQA", "?", Image.new("RGB", (9, 9), "white"), "a")])["pixel_values"]
    torch.testing.assert_close(white, torch.full((1, 3, 64, 64), (1 - 0.5) / 0.2))


def test_only_what_was_trained_is_saved(run):
    with safe_open(run / "model.safetensors", "pt") as file:
        names = list(file.keys())
    assert all(name.startswith("connector.") or ".lora_" in name for name in names)
    config = json.loads((run / "config.json").read_text())
    assert config["holds_bases"] is False
    assert {part: base["name"] for part, base in config["bases"].items()} == {
        "vision": "hub/toy-vision",
        "llm": "hub/toy-llm",
    }


def test_training_moves_the_connector_and_the_adapters_alone(run, bases):
    model, _ = open_run(run)
    plain = AutoModelForCausalLM.from_pretrained(bases / "toy-llm").state_dict()
    for name, tensor in model.language_model.state_dict().items():
        if ".lora_" not in name:
            assert torch.equal(tensor, plain[name.replace(".base_layer", "")]), name
    moved = [
        n for n, p in model.named_parameters() if n.endswith(("lora_B.weight", "lora_B.default.weight")) and p.any()
    ]
    assert len(moved) == 3 * 7


LOGITS = """
import sys, torch
from unimed_model.loading import open_run
from tests.unimed_model.test_bases import TURNS
model, processor = open_run(__import__("pathlib").Path(sys.argv[1]))
torch.save(model(**processor.training_batch(TURNS)).logits, sys.argv[2])
"""


def test_a_fresh_process_gives_the_same_logits(run, tmp_path, request):
    model, processor = open_run(run)
    wanted = model(**processor.training_batch(TURNS)).logits
    command = [sys.executable, "-c", LOGITS, str(run), str(tmp_path / "logits.pt")]
    done = subprocess.run(command, cwd=request.config.rootpath, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert torch.equal(torch.load(tmp_path / "logits.pt"), wanted)


@pytest.mark.parametrize("full", [True, False])
def test_save_and_load(run, full, tmp_path):
    model, processor = open_run(run)
    batch = processor.training_batch(TURNS)
    model.save_pretrained(tmp_path / "copy", full=full)
    again = UniMedForConditionalGeneration.from_pretrained(tmp_path / "copy").eval()
    assert torch.equal(again(**batch).logits, model(**batch).logits)
    auto = AutoModelForImageTextToText.from_pretrained(tmp_path / "copy").eval()
    assert isinstance(auto, UniMedForConditionalGeneration)
    assert torch.equal(auto(**batch).logits, model(**batch).logits)


def moved_run(run, tmp_path):
    """A copy of the run whose bases are no longer where they were."""
    copy = tmp_path / "moved"
    shutil.copytree(run, copy)
    config = json.loads((copy / "config.json").read_text())
    for base in config["bases"].values():
        base["folder"] = str(tmp_path / "gone")
    (copy / "config.json").write_text(json.dumps(config))
    return copy


def test_bases_that_moved_are_named_by_the_weights_folder(run, bases, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    copy = moved_run(run, tmp_path)
    with pytest.raises(UserError, match=r"'hub/toy-vision' are neither in .* nor to be had from the hub"):
        open_run(copy)
    model, processor = open_run(copy, bases)
    first, _ = open_run(run)
    batch = processor.training_batch(TURNS)
    assert torch.equal(model(**batch).logits, first(**batch).logits)


def test_other_weights_under_the_same_name_are_refused(run, bases, tmp_path):
    copy = moved_run(run, tmp_path)
    others = tmp_path / "others"
    shutil.copytree(bases, others)
    model = AutoModelForCausalLM.from_pretrained(others / "toy-llm")
    with torch.no_grad():
        model.get_input_embeddings().weight[0, 0] += 1
    model.save_pretrained(others / "toy-llm")
    with pytest.raises(UserError, match=r"toy-llm .* are not those that the model was trained on"):
        open_run(copy, others)


def test_damaged_trained_weights_are_one_sentence(run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    whole = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"model.safetensors cannot be read"):
        open_run(copy)
    (copy / "model.safetensors").write_bytes(whole)
    config = json.loads((copy / "config.json").read_text())
    config["connector"]["num_experts"] = 6
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        UserError, match=r"do not fit the configuration beside them: \d+ missing tensors, the first connector.experts.5"
    ):
        open_run(copy)


def test_routers_weights_are_outputs(run):
    model, processor = open_run(run)
    batch = processor.training_batch(TURNS)
    silent, heard = model(**batch), model(**batch, output_router_weights=True)
    assert silent.router_weights is None
    assert silent.lora_router_weights is None
    assert heard.router_weights.shape == (1, 4, 5)
    torch.testing.assert_close(heard.router_weights.sum(-1), torch.ones(1, 4))
    if model.config.language_use.adapter.kind == "lora_moe":
        assert len(heard.lora_router_weights) == 3 * 7
        for weights in heard.lora_router_weights.values():
            assert weights.shape == (*batch["input_ids"].shape, 3)
            assert ((weights > 0).sum(-1) == 2).all()
    else:
        assert heard.lora_router_weights is None


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable:FutureWarning")
def test_it_trains_under_gradient_checkpointing(bases):
    model, processor = build(on_bases(MOE), (), bases)
    batch = processor.training_batch(TURNS)
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    wanted = torch.autograd.grad(model(**batch).loss, list(parameters.values()), allow_unused=True)
    model.train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model(**batch).loss.backward()
    for (name, parameter), gradient in zip(parameters.items(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, msg=name)


@pytest.mark.parametrize("precision", ["bfloat16"])
def test_half_precision_bases_leave_what_is_trained_in_full(bases, precision, tmp_path):
    model, processor = build(on_bases(f"llm.precision={precision}", f"vision.precision={precision}"), (), bases)
    kinds = {(p.requires_grad, p.dtype) for p in model.parameters()}
    assert kinds == {(True, torch.float32), (False, torch.bfloat16)}
    loss = model(**processor.training_batch(TURNS)).loss
    loss.backward()
    assert torch.isfinite(loss)
    for full in (True, False):
        model.save_pretrained(tmp_path / str(full), full=full)
        again = UniMedForConditionalGeneration.from_pretrained(tmp_path / str(full))
        for (name, one), (_, other) in zip(model.named_parameters(), again.named_parameters(), strict=True):
            assert one.dtype == other.dtype, name
            assert torch.equal(one, other), name


def test_4_bit_weights_are_not_trained_on_a_cpu(corpus, bases, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"llm.quantisation=4bit cannot be trained on a CPU"):
        train(on_bases("llm.quantisation=4bit"), corpus, tmp_path / "run", weights=bases, quiet=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("vision.pretrained=hub/absent", "'hub/absent' are neither in"),
        ("llm.quantisation=4bit", "needs the package bitsandbytes"),
        ("vision.layer=9", "the encoder has 3 layers, there is no layer 9"),
        ("resampler.rate=3", "16 patches cannot be"),
    ],
)
def test_what_does_not_fit_is_named(bases, override, says, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    settings = on_bases(override, *(["vision.final_norm=none"] if "layer" in override else []))
    with pytest.raises(UserError, match=says):
        build(settings, (), bases)
