"""The preset ``small`` with its real weights: DINOv2-small and SmolLM2-135M-Instruct."""

import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from unimed_model.building import build
from unimed_model.presets import resolve
from unimed_model.processing import Turn

WEIGHTS = Path(os.environ.get("UNIMED_WEIGHTS", "absent"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (WEIGHTS / "dinov2-small").is_dir(), reason="UNIMED_WEIGHTS names no folder with weights"),
]


@pytest.fixture(scope="module")
def small():
    return build(resolve("small"), (), WEIGHTS)


def picture():
    ramp = torch.arange(200 * 150 * 3).reshape(200, 150, 3) % 251
    return Image.fromarray(ramp.byte().numpy())


def test_the_llm_alone_answers_through_our_class(small):
    model, processor = small
    batch = processor.generation_batch([Turn("QA", "What is the capital of France?")])
    tokens = model.eval().generate(**batch, max_new_tokens=20, do_sample=False)
    answer = processor.tokenizer.decode(tokens[0, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    assert "Paris" in answer


def test_logits_are_those_of_the_plain_model(small):
    model, processor = small
    batch = processor.generation_batch([Turn("QA", "What does the heart do?"), Turn("QA", "Why?")])
    plain = AutoModelForCausalLM.from_pretrained(WEIGHTS / "SmolLM2-135M-Instruct").eval()
    with torch.inference_mode():
        assert torch.equal(model.eval()(**batch).logits, plain(**batch).logits)


def test_the_prompt_is_that_of_the_llms_own_template(small):
    _, processor = small
    ids = processor.prompt_ids(Turn("QA", "Why?"))
    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS / "SmolLM2-135M-Instruct")
    messages = [{"role": "user", "content": "[qa] Why?"}]
    wanted = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert processor.tokenizer.decode(ids) == wanted


def test_visual_tokens_are_those_of_the_plain_encoder(small):
    """That encoder is held against onnxruntime in ``weights/test_dinov2.py``."""
    model, processor = small
    pixels = processor.training_batch([Turn("VQA", "?", picture(), "a")])["pixel_values"]
    plain = AutoModel.from_pretrained(WEIGHTS / "dinov2-small").eval()
    with torch.inference_mode():
        wanted = plain(pixel_values=pixels).last_hidden_state[:, 1:].reshape(1, 64, 4 * 384)
        assert torch.equal(model.get_image_features(pixels, torch.tensor([0])).inputs, wanted)


def test_one_training_step_runs(small):
    model, processor = small
    model.train()
    batch = processor.training_batch([Turn("VQA", "Which plane?", picture(), "axial"), Turn("QA", "So?", None, "yes")])
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    before = model(**batch).loss
    before.backward()
    optimizer.step()
    assert model(**batch).loss < before
    frozen = [p for p in model.parameters() if not p.requires_grad]
    assert all(p.grad is None for p in frozen)
