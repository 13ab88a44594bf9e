import numpy as np
import pytest
import torch
from PIL import Image

from unimed_model.errors import UserError
from unimed_model.processing import IGNORED, Turn
from unimed_model.resampler import ProjectionResampler
from unimed_model.tokenization import train_tokenizer

BLACK = Image.new("RGB", (20, 10))


def spelled(processor, ids):
    return processor.tokenizer.decode([i for i in ids if i != processor.tokenizer.pad_token_id])


@pytest.mark.parametrize(
    ("turn", "text"),
    [
        (Turn("VQA", "Is it?", BLACK), "<s>[INST] <Img>IMAGE</Img> [vqa] Is it? [/INST]"),
        (Turn("RG", "Describe.", BLACK), "<s>[INST] <Img>IMAGE</Img> [caption] Describe. [/INST]"),
        (Turn("REC", "Liver.", BLACK), "<s>[INST] <Img>IMAGE</Img> [refer] Liver. [/INST]"),
        (Turn("REG", "<1><2><3><4>", BLACK), "<s>[INST] <Img>IMAGE</Img> [identify] <1><2><3><4> [/INST]"),
        (Turn("CLS", "Which?", BLACK), "<s>[INST] <Img>IMAGE</Img> [cls] Which? [/INST]"),
        (Turn("QA", "Does it?", None), "<s>[INST] [qa] Does it? [/INST]"),
    ],
)
def test_prompts_are_spelled_as_in_the_paper(opened, turn, text):
    _, processor = opened
    wanted = text.replace("IMAGE", "<image>" * processor.image_tokens)
    assert spelled(processor, processor.prompt_ids(turn)) == wanted


def test_labels_cover_the_answer_and_the_end_token_alone(opened):
    _, processor = opened
    turns = [Turn("VQA", "Is it?", BLACK, "Yes"), Turn("QA", "A longer question than that?", None, "no, never")]
    batch = processor.training_batch(turns)
    for row, turn in zip(range(2), turns, strict=True):
        labelled = batch["labels"][row] != IGNORED
        assert spelled(processor, batch["labels"][row][labelled]) == f"{turn.answer}</s>"
        assert torch.equal(batch["labels"][row][labelled], batch["input_ids"][row][labelled])
        length = int(batch["attention_mask"][row].sum())
        assert labelled.nonzero().max() == length - 1
        assert (batch["input_ids"][row][length:] == processor.tokenizer.pad_token_id).all()


def test_prompts_are_padded_on_the_left(opened):
    _, processor = opened
    batch = processor.generation_batch([Turn("QA", "A?", None), Turn("QA", "A much longer one?", None)])
    assert batch["attention_mask"][0].tolist() == sorted(batch["attention_mask"][0].tolist())
    assert batch["attention_mask"][:, -1].tolist() == [1, 1]


def test_pixels_are_resized_whole_and_normalised(opened):
    model, processor = opened
    side = model.config.vision_config.image_size
    half = np.zeros((10, 40, 3), np.uint8)
    half[:, 20:] = 255
    pixels = processor.pixels([Image.fromarray(half)])
    assert pixels.shape == (1, 3, side, side)
    mean, spread = processor.image_processor.image_mean[0], processor.image_processor.image_std[0]
    torch.testing.assert_close(pixels[0, 0, side // 2, 0], torch.tensor((0 - mean) / spread))
    torch.testing.assert_close(pixels[0, 0, side // 2, -1], torch.tensor((1 - mean) / spread))


def test_a_task_without_images_refuses_one(opened):
    _, processor = opened
    with pytest.raises(UserError, match="QA has no images"):
        processor.training_batch([Turn("QA", "A?", BLACK, "b")])


@pytest.mark.parametrize("text", ["naïve Größe 38.2°C 医学", "<1><23>", "a  b\nc", ""])
def test_a_trained_tokenizer_spells_what_it_never_saw(text):
    tokenizer = train_tokenizer(["some words", "<12><34>"], 300)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


def test_digits_are_single_tokens():
    tokenizer = train_tokenizer(["<12><12><12>"] * 50, 300)
    assert [t for t in tokenizer.tokenize("<12>") if t.isdigit()] == ["1", "2"]


def test_resampler_concatenates_neighbours_in_a_row():
    tokens = torch.arange(2 * 16 * 3.0).reshape(2, 16, 3)
    joined = ProjectionResampler(4)(tokens)
    assert joined.shape == (2, 4, 12)
    torch.testing.assert_close(joined[1, 2], torch.cat([tokens[1, i] for i in range(8, 12)]))
    with pytest.raises(ValueError, match="15 visual tokens"):
        ProjectionResampler(4)(tokens[:, :15])
