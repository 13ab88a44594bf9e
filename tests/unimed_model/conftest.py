"""One tiny corpus, model and processor for the tests that need a whole model."""

from pathlib import Path

import pytest

from unimed_model.data.corpus import writing
from unimed_model.presets import resolve

SMALL = {
    "mni_slake": (24, 12),
    "mni_mpx": (12, 6),
    "mni_t1": (32, 16),
    "mni_gray": (24, 8),
    "mni_tissue_vqa": (12, 8),
    "mni_mask": (12, 8),
    "mni_tissue_caption": (12, 6),
    "mni_qa": (21, 14),
    "mni_yesno": (30, 15),
}


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """The sample corpus with a few pictures per folder, written by the real code."""
    root = tmp_path_factory.mktemp("corpus") / "data"
    small = tuple(
        (name, write, dict(zip(("train", "test"), SMALL[name], strict=True))) for name, write, _ in writing.FOLDERS
    )
    patch = pytest.MonkeyPatch()
    patch.setattr(writing, "FOLDERS", small)
    writing.write_sample_corpus(root)
    patch.undo()
    return root


def tiny_settings(*overrides: str):
    return resolve("tiny", ["training.steps=4", "training.warmup_steps=1", "training.batch_size=2", *overrides])


@pytest.fixture(scope="session")
def trained(corpus, tmp_path_factory) -> Path:
    """A run folder of four steps, as ``unimed-train`` leaves it."""
    from unimed_model.training import train

    out = tmp_path_factory.mktemp("runs") / "cmoe"
    assert train(tiny_settings(), corpus, out, quiet=True)
    return out


@pytest.fixture(scope="session")
def opened(trained):
    """Model and processor of the trained run."""
    from unimed_model.loading import open_run

    return open_run(trained)


@pytest.fixture(scope="session")
def bases(corpus, tmp_path_factory) -> Path:
    """A folder with a vision encoder and an LLM of toy size, as ``unimed-data weights`` would leave them."""
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, ViTImageProcessorPil

    from unimed_model.data import discover, open_source
    from unimed_model.tokenization import train_tokenizer

    folder = tmp_path_factory.mktemp("bases")
    torch.manual_seed(3)
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
    vision = AutoConfig.for_model("dinov2", **sizes, mlp_ratio=2, image_size=48, patch_size=16)
    AutoModel.from_config(vision).save_pretrained(folder / "toy-vision")
    ViTImageProcessorPil(image_mean=[0.5] * 3, image_std=[0.2] * 3).save_pretrained(folder / "toy-vision")
    texts = [s.instruction + s.answer for source in discover(corpus) for s in open_source(source, "train")]
    tokenizer = train_tokenizer(texts, 400)
    text = AutoConfig.for_model(
        "llama",
        **sizes,
        vocab_size=len(tokenizer),
        intermediate_size=48,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    AutoModelForCausalLM.from_config(text).save_pretrained(folder / "toy-llm")
    tokenizer.save_pretrained(folder / "toy-llm")
    return folder


def on_bases(*overrides: str):
    """Settings of a small model on the toy bases: both frozen, LoRA in the LLM."""
    return tiny_settings(
        "vision={pretrained: hub/toy-vision, image_size: 64}",
        "llm={pretrained: hub/toy-llm, adapter: {kind: lora, rank: 2}}",
        "connector.num_experts=5",
        *overrides,
    )
