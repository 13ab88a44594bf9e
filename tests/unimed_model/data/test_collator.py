from dataclasses import replace

import pytest
from transformers import ViTImageProcessorPil

from unimed_model.data.collator import Collator
from unimed_model.data.mixture import Draw, Mixture
from unimed_model.data.sample import Sample, Samples
from unimed_model.processing import IGNORED, UniMedProcessor
from unimed_model.prompts import PROFILES
from unimed_model.tokenization import train_tokenizer

RECORD = Sample(
    dataset="d",
    task="QA",
    split="train",
    sample_id="s",
    image_id=None,
    patient_id=None,
    instruction="as a reader wrote it",
    answer=" ".join(["word"] * 60),
    meta={"templates": "pubmedqa", "subject": "Does mint help?"},
)


@pytest.fixture
def processor():
    def make(profile):
        tokenizer = train_tokenizer(["$$$$ word words"] * 9, 300)
        return UniMedProcessor(ViTImageProcessorPil(), tokenizer, profile=profile)

    return make


def told(processor, batch):
    """The prompt and the answer of the only row, as text."""
    ids, labels = batch["input_ids"][0], batch["labels"][0]
    decode = processor.tokenizer.decode
    return decode(ids[labels == IGNORED]), decode(labels[labels != IGNORED])


@pytest.mark.parametrize(
    ("profile", "quote", "words"),
    [("paper", '"', 60), ("released", "'", 50)],
)
def test_a_sample_of_a_reader_is_asked_the_fixed_instruction(processor, profile, quote, words):
    made = processor(profile)
    prompt, answer = told(made, Collator(made)([RECORD]))
    asked = f"please answer the following question using {quote}yes{quote}, {quote}no{quote} or {quote}maybe{quote}: "
    assert prompt == f"<s>[INST] [qa] If you are a doctor, {asked}Does mint help? [/INST]"
    assert answer == " ".join(["word"] * words) + "</s>"


@pytest.mark.parametrize("profile", ["paper", "released"])
def test_an_instruction_that_was_drawn_is_kept(processor, profile):
    made = processor(profile)
    mixture = Mixture({"d": Samples([RECORD])}, 1, 1, 0, PROFILES[profile])
    prompts = set()
    for seed in range(20):
        drawn = mixture[Draw("d", 0, seed)]
        prompt, answer = told(made, Collator(made)([drawn]))
        assert prompt == f"<s>[INST] [qa] {drawn.instruction} [/INST]"
        assert answer == f"{drawn.answer}</s>"
        prompts.add(prompt)
    assert len(prompts) == 2
    assert "<s>[INST] [qa] Does mint help? [/INST]" in prompts


def test_the_sample_itself_is_not_changed(processor):
    before = replace(RECORD)
    made = processor("released")
    Collator(made)([RECORD])
    assert before == RECORD
