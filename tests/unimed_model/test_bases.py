"""Models on pretrained bases: what is trained, what is saved, and how a base is found again."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer

from unimed_model import UniMedForConditionalGeneration
from unimed_model.building import build
from unimed_model.errors import UserError
from unimed_model.loading import open_run
from unimed_model.probing import load_for_probing
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
torch.set_num_threads(int(sys.argv[3]))  # sums depend on how many share them
from unimed_model.loading import open_run
from tests.unimed_model.test_bases import TURNS
model, processor = open_run(__import__("pathlib").Path(sys.argv[1]))
torch.save(model(**processor.training_batch(TURNS)).logits, sys.argv[2])
"""


def test_a_fresh_process_gives_the_same_logits(run, tmp_path, request):
    model, processor = open_run(run)
    wanted = model(**processor.training_batch(TURNS)).logits
    command = [sys.executable, "-c", LOGITS, str(run), str(tmp_path / "logits.pt"), str(torch.get_num_threads())]
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


def trained_names(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("full", [True, False])
def test_what_is_frozen_stays_frozen(run, full, tmp_path):
    model, _ = open_run(run)
    names = trained_names(model)
    assert names == {n for n, _ in model.named_parameters() if n.startswith("connector.") or ".lora_" in n}
    model.save_pretrained(tmp_path / "copy", full=full)
    assert trained_names(UniMedForConditionalGeneration.from_pretrained(tmp_path / "copy")) == names
    assert trained_names(open_run_of(tmp_path / "copy", run)) == names


def open_run_of(copy, run):
    for path in run.iterdir():
        if path.is_file() and not (copy / path.name).exists():
            shutil.copy(path, copy)
    return open_run(copy)[0]


@pytest.mark.parametrize("family", ["vit", "dinov2", "clip_vision_model", "siglip_vision_model"])
def test_a_pretrained_encoder_that_is_trained_on_is_saved(family, bases, corpus, tmp_path):
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 64, "patch_size": 16}
    AutoModel.from_config(AutoConfig.for_model(family, **sizes)).save_pretrained(tmp_path / "encoder")
    shutil.copy(bases / "toy-vision" / "preprocessor_config.json", tmp_path / "encoder")
    vision = f"vision={{pretrained: {tmp_path / 'encoder'}, image_size: 64, trainable: true}}"
    out = tmp_path / "run"
    assert train(on_bases(vision, "training.steps=1"), corpus, out, weights=bases, quiet=True)
    first, processor = open_run(out)
    assert {n.split(".")[0] for n in trained_names(first)} == {"vision_model", "connector", "language_model"}
    batch = processor.training_batch(TURNS)
    first.save_pretrained(tmp_path / "again", full=True)
    again = UniMedForConditionalGeneration.from_pretrained(tmp_path / "again").eval()
    assert torch.equal(again(**batch).logits, first(**batch).logits)


def test_arguments_that_are_not_taken_are_named(run, tmp_path):
    with pytest.raises(UserError, match="device_map: not taken for a model saved without its bases"):
        UniMedForConditionalGeneration.from_pretrained(run, device_map="cpu")
    with pytest.raises(UserError, match="dtype is not taken"):
        UniMedForConditionalGeneration.from_pretrained(run, dtype=torch.bfloat16)


def test_values_that_are_no_numbers_are_named(run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    weights = load_file(copy / "model.safetensors")
    weights["connector.experts.1.0.bias"][3] = torch.nan
    save_file(weights, copy / "model.safetensors")
    with pytest.raises(UserError, match=r"connector.experts.1.0.bias holds values that are no finite numbers"):
        open_run(copy)


@pytest.mark.parametrize(("layers", "word"), [(2, "unexpected"), (4, "missing")])
def test_an_llm_of_another_depth_than_its_weights_is_refused(bases, layers, word, tmp_path):
    others = tmp_path / "others"
    shutil.copytree(bases, others)
    config = json.loads((others / "toy-llm" / "config.json").read_text())
    config["num_hidden_layers"] = layers
    (others / "toy-llm" / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=f"LLM in .* do not fit its configuration: .* {word} tensors"):
        build(on_bases(), (), others)


def test_damaged_bases_are_one_sentence(bases, tmp_path):
    others = tmp_path / "others"
    shutil.copytree(bases, others)
    for part, what in (("toy-llm", "LLM"), ("toy-vision", "vision encoder")):
        path = others / part / "model.safetensors"
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(UserError, match=f"The {what} in .* cannot be opened"):
            build(on_bases(), (), others)
        path.write_bytes(whole)
    (others / "toy-vision" / "preprocessor_config.json").write_text("{")
    with pytest.raises(UserError, match=r"preprocessor_config.json is not valid JSON"):
        build(on_bases(), (), others)


def test_left_padding_is_right_for_absolute_positions(bases, tmp_path):
    """GPT-2 counts positions itself unless it is told them."""
    tokenizer = AutoTokenizer.from_pretrained(bases / "toy-llm")
    torch.manual_seed(0)
    config = AutoConfig.for_model("gpt2", n_embd=16, n_layer=2, n_head=2, vocab_size=len(tokenizer), n_positions=256)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "gpt2")
    tokenizer.save_pretrained(tmp_path / "gpt2")
    model, processor = build(on_bases(f"llm={{pretrained: {tmp_path / 'gpt2'}}}"), (), bases)
    turns = [TURNS[0], Turn("QA", "Is it so, or is it not so, and if so why?"), Turn("QA", "A?")]
    options = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False}
    together = model.eval().generate(**processor.generation_batch(turns), **options)[:, -8:]
    for turn, row in zip(turns, together, strict=True):
        assert torch.equal(model.generate(**processor.generation_batch([turn]), **options)[0, -8:], row)


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


def test_bases_that_moved_are_named_by_the_environment(run, bases, tmp_path, monkeypatch):
    """For the instrument's commands, which have no --weights."""
    monkeypatch.setenv("UNIMED_WEIGHTS", str(bases))
    copy = moved_run(run, tmp_path)
    setup = load_for_probing(copy, [], None, 1, 1, 0, False)
    assert trained_names(setup.model) == trained_names(open_run(run)[0])


def test_a_damaged_or_unsuitable_encoder_is_named(bases, tmp_path):
    others = tmp_path / "others"
    shutil.copytree(bases, others)
    (others / "toy-vision" / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"The vision encoder in .*toy-vision cannot be opened"):
        build(on_bases(), (), others)
    AutoConfig.for_model("resnet").save_pretrained(others / "toy-vision")
    with pytest.raises(UserError, match="holds a resnet model, which is no vision transformer with patches"):
        build(on_bases(), (), others)


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
