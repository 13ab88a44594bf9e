import pytest
import torch
from PIL import Image

from unimed_model import UniMedForConditionalGeneration, UniMedProcessor
from unimed_model.configuration import IMAGE_TASKS
from unimed_model.errors import UserError
from unimed_model.processing import Turn


def picture(seed: int) -> Image.Image:
    generator = torch.Generator().manual_seed(seed)
    return Image.fromarray(torch.randint(0, 256, (40, 30, 3), generator=generator).byte().numpy())


TURNS = [
    Turn("VQA", "Which plane is this slice in?", picture(0), "axial"),
    Turn("QA", "Does chewing mint help?", None, "yes"),
    Turn("REC", "Where is brain?", picture(1), "<1><2><30><40>"),
]


def test_loss_is_the_mean_over_answer_tokens(opened):
    """Against cross-entropy by hand on the logits of each sample alone, unpadded."""
    model, processor = opened
    total, count = torch.zeros(()), 0
    for turn in TURNS:
        batch = processor.training_batch([turn])
        logits = model(**{k: v for k, v in batch.items() if k != "labels"}).logits[0]
        labels = batch["labels"][0]
        for position in range(1, len(labels)):
            if labels[position] != -100:
                total = total - logits[position - 1].log_softmax(-1)[labels[position]]
                count += 1
    batch = processor.training_batch(TURNS)
    assert count == sum(len(processor.answer_ids(turn.answer)) for turn in TURNS)
    torch.testing.assert_close(model(**batch).loss, total / count, rtol=1e-5, atol=1e-5)


def test_image_tokens_stand_where_the_placeholders_were(opened):
    model, processor = opened
    batch = processor.training_batch(TURNS)
    seen = {}
    handle = model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.update(kwargs), with_kwargs=True
    )
    model(**batch)
    handle.remove()
    places = batch["input_ids"] == model.config.image_token_id
    assert places.sum(dim=1).tolist() == [model.config.image_tokens, 0, model.config.image_tokens]
    aligned = model.get_image_features(batch["pixel_values"], batch["task_ids"]).tokens
    torch.testing.assert_close(seen["inputs_embeds"][places], aligned.flatten(0, 1))
    words = model.get_input_embeddings()(batch["input_ids"])
    torch.testing.assert_close(seen["inputs_embeds"][~places], words[~places])


def test_text_alone_gives_the_connector_no_gradient(opened):
    model, processor = opened
    batch = processor.training_batch([TURNS[1]])
    assert "pixel_values" not in batch
    gradients = torch.autograd.grad(model(**batch).loss, list(model.connector.parameters()), allow_unused=True)
    assert all(gradient is None for gradient in gradients)


def test_every_parameter_learns_from_a_batch_of_all_tasks(opened):
    model, processor = opened
    turns = [Turn(task, "What is it?", picture(i), "brain") for i, task in enumerate(IMAGE_TASKS)]
    loss = model(**processor.training_batch(turns)).loss
    gradients = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    without = [name for (name, _), g in zip(model.named_parameters(), gradients, strict=True) if g is None]
    assert without == []


def test_batched_generation_equals_one_by_one_and_decoding_without_a_cache(opened):
    model, processor = opened
    asked = [Turn(turn.task, turn.instruction, turn.image) for turn in TURNS]
    batch = processor.generation_batch(asked)
    kwargs = {"max_new_tokens": 12, "do_sample": False}
    together = model.generate(**batch, **kwargs)[:, batch["input_ids"].shape[1] :]
    uncached = model.generate(**batch, **kwargs, use_cache=False)[:, batch["input_ids"].shape[1] :]
    assert torch.equal(together, uncached)
    decode = processor.tokenizer.batch_decode
    for turn, row in zip(asked, together, strict=True):
        single = processor.generation_batch([turn])
        alone = model.generate(**single, **kwargs)[:, single["input_ids"].shape[1] :]
        assert decode(alone, skip_special_tokens=True)[0] == decode(row[None], skip_special_tokens=True)[0]


def test_the_processor_can_be_called_with_images_and_text(opened):
    _, processor = opened
    turns = [Turn("VQA", "Which plane?", picture(0)), Turn("VQA", "Why?")]
    for called, wanted in (
        (processor(images=[picture(0), None], text=["Which plane?", "Why?"], task="VQA"), turns),
        (processor(images=picture(0), text="Which plane?", task="VQA"), turns[:1]),
        (processor(text="Why?", task="VQA"), turns[1:]),
    ):
        batch = processor.generation_batch(wanted)
        assert called.keys() == batch.keys()
        assert all(torch.equal(called[key], batch[key]) for key in batch)
    with pytest.raises(UserError, match="1 images for 2 questions"):
        processor(images=[picture(0)], text=["a", "b"], task="VQA")


def test_save_and_load_give_identical_logits(opened, tmp_path):
    model, processor = opened
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again = UniMedForConditionalGeneration.from_pretrained(tmp_path).eval()
    reader = UniMedProcessor.from_pretrained(tmp_path)
    first, second = processor.training_batch(TURNS), reader.training_batch(TURNS)
    assert first.keys() == second.keys()
    for key in first:
        assert torch.equal(first[key], second[key]), key
    assert torch.equal(model(**first).logits, again(**second).logits)
    assert again.config.to_dict()["connector"] == model.config.to_dict()["connector"]


def test_wrong_inputs_are_named(opened):
    model, processor = opened
    batch = processor.training_batch([TURNS[0]])
    with pytest.raises(ValueError, match="task_ids"):
        model(input_ids=batch["input_ids"], pixel_values=batch["pixel_values"])
    doubled = torch.cat([batch["input_ids"], batch["input_ids"]])
    with pytest.raises(ValueError, match="8 image placeholders but the images give 4"):
        model(input_ids=doubled, pixel_values=batch["pixel_values"], task_ids=batch["task_ids"])
