"""Settings become a model and a processor, trained from scratch."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, ViTConfig, ViTImageProcessorPil

from .configuration import UniMedConfig
from .modeling import UniMedForConditionalGeneration
from .processing import UniMedProcessor
from .settings import LanguageSettings, RunSettings, VisionSettings
from .tokenization import IMAGE, train_tokenizer

DARK_IMAGE_MEAN, DARK_IMAGE_SPREAD = 0.15, 0.25
"""Pixels are centred for pictures that are mostly background: with a mean of one half, the constant black of
the canvas outweighs what is on it."""


def build(settings: RunSettings, texts: Iterable[str]) -> tuple[UniMedForConditionalGeneration, UniMedProcessor]:
    """Return a freshly initialised model and its processor; seeded by ``settings.seed``.

    Args:
        settings: the run's settings.
        texts: instructions and answers that the tokenizer is trained on.
    """
    torch.manual_seed(settings.seed)
    tokenizer = train_tokenizer(texts, settings.tokenizer.vocabulary)
    config = UniMedConfig(
        vision_config=_vision_config(settings.vision),
        text_config=_text_config(settings.llm, tokenizer),
        resampler_rate=settings.resampler.rate,
        connector=settings.connector.model_dump(),
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
    )
    side = {"height": settings.vision.image_size, "width": settings.vision.image_size}
    image_processor = ViTImageProcessorPil(
        size=side, image_mean=[DARK_IMAGE_MEAN] * 3, image_std=[DARK_IMAGE_SPREAD] * 3
    )
    model = UniMedForConditionalGeneration(config)
    _lay_out_positions(model, settings.vision)
    model.generation_config.update(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return model, UniMedProcessor(image_processor, tokenizer, image_tokens=config.image_tokens)


def _vision_config(vision: VisionSettings) -> ViTConfig:
    return ViTConfig(
        image_size=vision.image_size,
        patch_size=vision.patch_size,
        hidden_size=vision.width,
        num_hidden_layers=vision.layers,
        num_attention_heads=vision.heads,
        intermediate_size=vision.feedforward,
        initializer_range=vision.initial_scale,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


def _text_config(llm: LanguageSettings, tokenizer: Any) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=llm.width,
        num_hidden_layers=llm.layers,
        num_attention_heads=llm.heads,
        num_key_value_heads=llm.heads,
        intermediate_size=llm.feedforward,
        max_position_embeddings=llm.context,
        initializer_range=llm.initial_scale,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _lay_out_positions(model: UniMedForConditionalGeneration, vision: VisionSettings) -> None:
    """Start the ViT's learned position embeddings as the sines and cosines of row and column.

    From random ones a small ViT spends most of a short run finding out which patches are neighbours.
    """
    embeddings = model.vision_model.embeddings.position_embeddings
    with torch.no_grad():
        embeddings[0, 1:] = 0.5 * sine_positions(vision.image_size // vision.patch_size, vision.width)


def sine_positions(side: int, width: int) -> Tensor:
    """Return (side * side, width) embeddings of a grid in raster order: sin and cos of row, then of column."""
    frequencies = torch.exp(-math.log(100.0) * torch.arange(width // 4) / (width // 4))
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    angles = [axis.reshape(-1, 1) * frequencies for axis in (rows, columns)]
    return torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1)
