"""Against the image processors themselves, bit for bit."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import ViTImageProcessorPil

from unimed_model.pixel_table import PixelTable
from unimed_model.processing import UniMedProcessor
from unimed_model.tokenization import train_tokenizer


def noise(width, height, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.fixed_dictionaries(
        {
            "size": st.fixed_dictionaries({"height": st.integers(1, 40), "width": st.integers(1, 40)}),
            "resample": st.sampled_from([0, 1, 2, 3, 4, 5]),
            "do_rescale": st.booleans(),
            "rescale_factor": st.sampled_from([1 / 255, 1 / 127.5, 1.0]),
            "do_normalize": st.booleans(),
            "image_mean": st.lists(st.floats(0, 1), min_size=3, max_size=3),
            "image_std": st.lists(st.floats(0.01, 2), min_size=3, max_size=3),
        }
    ),
)
def test_pixels_are_those_of_the_processor_bit_for_bit(picture_size, options):
    processor = ViTImageProcessorPil(**options)
    pictures = [noise(*picture_size, seed) for seed in (0, 1)]
    table = PixelTable.of(processor)
    assert table is not None
    wanted = processor(pictures, return_tensors="pt")["pixel_values"].to(torch.float32)
    assert torch.equal(torch.from_numpy(table.pixels([lambda p=p: p for p in pictures])), wanted)


class Sharpening(ViTImageProcessorPil):
    def resize(self, image, **kwargs):
        return super().resize(255 - image, **kwargs)


@pytest.mark.parametrize(
    "processor",
    [
        Sharpening(),
        ViTImageProcessorPil(size={"shortest_edge": 20}),
        ViTImageProcessorPil(do_resize=False),
        ViTImageProcessorPil(do_center_crop=True, crop_size={"height": 8, "width": 8}),
        ViTImageProcessorPil(do_pad=True, pad_size={"height": 300, "width": 300}),
        object(),
    ],
)
def test_a_processor_that_does_anything_else_has_no_table(processor):
    assert PixelTable.of(processor) is None


def test_a_processor_without_a_table_is_asked_itself():
    processor = UniMedProcessor(Sharpening(size={"height": 12, "width": 10}), train_tokenizer(["a b"] * 9, 270))
    picture = noise(30, 20)
    wanted = processor.image_processor(picture, return_tensors="pt")["pixel_values"]
    assert torch.equal(processor.pixels([picture]), wanted)


def test_every_picture_is_let_go_before_the_next_is_opened():
    alive = []

    class Picture:
        def __init__(self, seed):
            assert alive == []
            alive.append(seed)
            self.image = noise(50, 50, seed)

        def resize(self, size, resample):
            return self.image.resize(size, resample)

        def __del__(self):
            alive.clear()

    table = PixelTable.of(ViTImageProcessorPil(size={"height": 8, "width": 8}))
    assert table.pixels([lambda seed=seed: Picture(seed) for seed in range(4)]).shape == (4, 3, 8, 8)
