"""Answers in batches: they do not depend on them, nothing of a batch stays, and short memory makes them smaller."""

import gc
import weakref
from dataclasses import replace
from functools import partial
from typing import ClassVar

import pytest
import torch

from unimed_model import generation
from unimed_model.data import load_dataset
from unimed_model.errors import UserError
from unimed_model.generation import Answerer
from unimed_model.loading import open_run
from unimed_model.processing import Turn

CPU_SENTENCE = (
    "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "8000000000000 bytes. Error code 12 (Cannot allocate memory)"
)


@pytest.fixture
def samples(corpus):
    return load_dataset("mni_vqa", corpus, "test")[:7]


def answered(opened, samples, batch_size, said=None):
    answerer = Answerer(*opened, batch_size, (said if said is not None else []).append)
    return [text for texts in answerer.answers(samples) for text in texts]


def test_answers_do_not_depend_on_the_batch_size(opened, samples):
    said = []
    wanted = answered(opened, samples, 7, said)
    assert all(answered(opened, samples, size, said) == wanted for size in (1, 2, 64))
    assert said == []


def test_nothing_but_token_ids_comes_back_from_the_model(opened, samples, monkeypatch):
    model, processor = opened
    returned = []
    generate = model.generate
    monkeypatch.setattr(model, "generate", lambda **kwargs: returned.append(generate(**kwargs)) or returned[-1])
    # a run folder may ask for them: they are not what an evaluation is for
    monkeypatch.setattr(model.generation_config, "output_logits", True)
    monkeypatch.setattr(model.generation_config, "return_dict_in_generate", True)
    answered((model, processor), samples, 4)
    assert [(type(tokens), tokens.dtype, len(tokens)) for tokens in returned] == [
        (torch.Tensor, torch.int64, 4),
        (torch.Tensor, torch.int64, 3),
    ]


def test_two_thousand_samples_leave_no_more_tensors_than_the_first_batch(opened, corpus, monkeypatch):
    monkeypatch.setattr(generation, "LONGEST_ANSWER", 2)
    few = load_dataset("mni_vqa", corpus, "test")
    many = [replace(few[i % len(few)], sample_id=str(i)) for i in range(2000)]
    alive, texts = [], []
    for batch in Answerer(*opened, 250, texts.append).answers(many):
        texts += batch
        gc.collect()
        tensors = [found for found in gc.get_objects() if issubclass(type(found), torch.Tensor)]
        alive.append((len(tensors), sum(found.untyped_storage().nbytes() for found in tensors)))
    assert len(texts) == 2000
    assert len(alive) == 8
    assert set(alive[1:]) == {alive[1]}


class Short:
    """Stands for a model that has memory for so many rows."""

    def __init__(self, model, rows, error):
        self.model, self.rows, self.error, self.asked = model, rows, error, []

    @property
    def device(self):
        return self.model.device

    def generate(self, **batch):
        self.asked.append(len(batch["input_ids"]))
        if self.asked[-1] > self.rows:
            raise self.error()  # a new one: an exception keeps the frames it was raised in
        return self.model.generate(**batch)


@pytest.mark.parametrize(
    "error",
    [
        partial(torch.OutOfMemoryError, "CUDA out of memory. Tried to allocate 2.00 GiB."),
        partial(RuntimeError, CPU_SENTENCE),
        MemoryError,
    ],
)
def test_short_memory_halves_the_batch_and_goes_on_from_where_it_was(opened, samples, error):
    model, processor = opened
    short, said = Short(model, 2, error), []
    wanted = answered(opened, samples, 7)
    assert answered((short, processor), samples, 64, said) == wanted
    assert short.asked == [7, 3, 1, 1, 1, 1, 1, 1, 1]
    assert said == ["Memory has no room for 64 samples at once; 1 is answered at once from here on."]


def test_what_was_learned_about_memory_holds_for_the_next_dataset(opened, samples):
    model, processor = opened
    short, said = Short(model, 4, MemoryError), []
    answerer = Answerer(short, processor, 8, said.append)
    for _ in range(2):
        list(answerer.answers([*samples, samples[0]]))
    assert short.asked == [8, 4, 4, 4, 4]
    assert said == ["Memory has no room for 8 samples at once; 4 are answered at once from here on."]


def test_no_memory_for_one_sample_is_one_sentence(opened, samples):
    model, processor = opened
    with pytest.raises(UserError, match=f"Memory is too short to answer mni_vqa/{samples[0].sample_id}, even by"):
        answered((Short(model, 0, MemoryError), processor), samples, 4)


def test_another_error_of_the_model_is_not_taken_for_short_memory(opened, samples):
    model, processor = opened
    with pytest.raises(RuntimeError, match="a fault of ours"):
        answered((Short(model, 0, partial(RuntimeError, "a fault of ours")), processor), samples, 4)


def test_a_batch_that_failed_is_let_go_before_the_next_attempt(opened, samples):
    """The exception's frames hold the batch's tensors; at the next attempt they must be gone."""
    model, processor = opened

    class Remembering(Short):
        seen: ClassVar[list] = []

        def generate(self, **batch):
            assert [pixels() for pixels in self.seen] == [None] * len(self.seen)
            self.seen.append(weakref.ref(batch["pixel_values"]))
            return super().generate(**batch)

    short = Remembering(model, 3, partial(torch.OutOfMemoryError, "CUDA out of memory."))
    list(Answerer(short, processor, 7, print).answers(samples))
    assert short.asked == [7, 3, 3, 1]
    assert len(short.seen) == 4


def test_the_image_placeholder_is_never_an_answer(trained, corpus):
    """An untrained model may find it the likeliest token; no visual tokens could take its place in the next step."""
    model, processor = open_run(trained)
    token = model.config.image_token_id

    def favour(_, __, logits):
        logits[..., token] = 1e4

    model.get_output_embeddings().register_forward_hook(favour)
    few = [processor.prompts.for_evaluation(sample) for sample in load_dataset("mni_vqa", corpus, "test")[:2]]
    batch = processor.generation_batch([Turn.of(sample) for sample in few])
    written = model.generate(**batch, max_new_tokens=4, do_sample=False)[:, batch["input_ids"].shape[1] :]
    assert token not in written
