"""Settings become a model and a processor."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, ViTImageProcessorPil

from .bases import Base, digest_of, find_base
from .checkpoint import open_encoder
from .configuration import UniMedConfig
from .errors import UserError
from .language import load_pretrained
from .modeling import UniMedForConditionalGeneration
from .pretrained import open_config
from .processing import UniMedProcessor
from .settings import LanguageArchitecture, RunSettings, VisionArchitecture, VisionSettings
from .tokenization import IMAGE, train_tokenizer

DARK_IMAGE_MEAN, DARK_IMAGE_SPREAD = 0.15, 0.25
"""Pixels are centred for pictures that are mostly background: with a mean of one half, the constant black of
the canvas outweighs what is on it."""

_BICUBIC = 3


def build(
    settings: RunSettings, texts: Iterable[str], weights: Path | None = None
) -> tuple[UniMedForConditionalGeneration, UniMedProcessor]:
    """Return a model to be trained and its processor; seeded by ``settings.seed``.

    Args:
        settings: the run's settings.
        texts: instructions and answers that the tokenizer of an LLM from scratch is trained on.
        weights: folder with pretrained parts, as ``unimed-data weights`` writes it.

    Raises:
        UserError: pretrained parts that are not found or do not suit the settings.
    """
    torch.manual_seed(settings.seed)
    vision, llm = _base_folder(settings.vision.pretrained, weights), _base_folder(settings.llm.pretrained, weights)
    tokenizer = _tokenizer(settings, texts, llm)
    config = _config(settings, vision, llm, tokenizer)
    processor = _processor(settings, config, tokenizer, vision)
    config.image_token_id = processor.image_token_id
    model = UniMedForConditionalGeneration(
        config,
        None if vision is None else open_encoder(vision),
        None if llm is None else load_pretrained(str(llm), settings.llm),
    )
    if settings.vision.pretrained is None and settings.vision.architecture is not None:
        _lay_out_positions(model, settings.vision.architecture)
    model.generation_config.update(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        suppress_tokens=[config.image_token_id],  # which an untrained model may find likely, and nothing can follow
    )
    return model, processor


def config_without_files(settings: RunSettings) -> UniMedConfig:
    """Return the configuration that the settings' architectures describe; no file is read.

    Raises:
        UserError: a pretrained part whose architecture the settings do not give.
    """
    for part, section in (("vision", settings.vision), ("llm", settings.llm)):
        if section.architecture is None:
            raise UserError(
                f"{part}.architecture is not given, so {part}.pretrained cannot be counted without its files."
            )
    return _config(settings, None, None, None)


def _base_folder(name: str | None, weights: Path | None) -> Path | None:
    return None if name is None else find_base(name, weights)


def _config(settings: RunSettings, vision: Path | None, llm: Path | None, tokenizer: Any) -> UniMedConfig:
    bases = {
        part: Base(str(name), str(folder.resolve()), digest_of(folder)).to_dict()
        for part, name, folder in (
            ("vision", settings.vision.pretrained, vision),
            ("llm", settings.llm.pretrained, llm),
        )
        if folder is not None
    }
    try:
        return UniMedConfig(
            vision_config=_vision_config(settings.vision, vision),
            text_config=_text_config(settings, llm, tokenizer),
            vision=settings.vision.model_dump(exclude={"pretrained", "architecture"}),
            resampler=settings.resampler.model_dump(),
            connector=settings.connector.model_dump(),
            llm=settings.llm.model_dump(exclude={"pretrained", "architecture"}),
            image_token_id=0 if tokenizer is None else tokenizer.convert_tokens_to_ids(IMAGE),
            bases=bases,
        )
    except ValueError as error:  # sizes known only from the pretrained files
        raise UserError(f"The settings do not fit the pretrained parts: {error}") from error


def _vision_config(vision: VisionSettings, folder: Path | None) -> PreTrainedConfig:
    if folder is not None:
        config = open_config(folder, "vision encoder")
        config = getattr(config, "vision_config", config)
        if not hasattr(config, "patch_size"):
            raise UserError(f"{folder} holds a {config.model_type} model, which is no vision transformer with patches.")
        return config
    if vision.architecture is None:
        raise UserError("vision.architecture is not given.")
    return vision_config_of(vision.architecture)


def vision_config_of(architecture: VisionArchitecture) -> PreTrainedConfig:
    """Return the transformers configuration of an architecture."""
    fields: dict[str, Any] = {
        "image_size": architecture.image_size,
        "patch_size": architecture.patch_size,
        "hidden_size": architecture.width,
        "num_hidden_layers": architecture.layers,
        "num_attention_heads": architecture.heads,
        "initializer_range": architecture.initial_scale,
    }
    if architecture.type == "dinov2":
        return AutoConfig.for_model("dinov2", **fields, mlp_ratio=architecture.feedforward // architecture.width)
    fields["intermediate_size"] = architecture.feedforward
    if architecture.type == "blip_2_vision_model":
        return AutoConfig.for_model("blip_2_vision_model", **fields, qkv_bias=True)
    return AutoConfig.for_model("vit", **fields, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


def _text_config(settings: RunSettings, folder: Path | None, tokenizer: Any) -> PreTrainedConfig:
    if folder is not None:
        return open_config(folder, "LLM")
    if settings.llm.architecture is None:
        raise UserError("llm.architecture is not given.")
    return text_config_of(settings.llm.architecture, settings.tokenizer.vocabulary, tokenizer)


def text_config_of(architecture: LanguageArchitecture, vocabulary: int, tokenizer: Any = None) -> PreTrainedConfig:
    """Return the transformers configuration of a LLaMA.

    Args:
        architecture: sizes.
        vocabulary: where the architecture leaves it open and there is no tokenizer.
        tokenizer: gives vocabulary and special tokens.
    """
    if tokenizer is not None and (architecture.vocabulary or len(tokenizer)) < len(tokenizer):
        raise UserError(
            f"llm.architecture.vocabulary {architecture.vocabulary} is below the tokenizer's {len(tokenizer)}."
        )
    size = architecture.vocabulary or (vocabulary if tokenizer is None else len(tokenizer))
    special = {} if tokenizer is None else {f"{n}_token_id": getattr(tokenizer, f"{n}_token_id") for n in _SPECIAL}
    return AutoConfig.for_model(
        "llama",
        vocab_size=size,
        hidden_size=architecture.width,
        num_hidden_layers=architecture.layers,
        num_attention_heads=architecture.heads,
        num_key_value_heads=architecture.key_value_heads or architecture.heads,
        intermediate_size=architecture.feedforward,
        max_position_embeddings=architecture.context,
        initializer_range=architecture.initial_scale,
        tie_word_embeddings=architecture.tied,
        **special,
    )


_SPECIAL = ("bos", "eos", "pad")


def _tokenizer(settings: RunSettings, texts: Iterable[str], folder: Path | None) -> Any:
    if folder is None:
        return train_tokenizer(texts, settings.tokenizer.vocabulary)
    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} holds no usable tokenizer: {' '.join(str(error).split())}") from error


def _processor(settings: RunSettings, config: UniMedConfig, tokenizer: Any, vision: Path | None) -> UniMedProcessor:
    text: Any = config.text_config
    return UniMedProcessor(
        image_processor_for(settings.vision.image_size, vision),
        tokenizer,
        image_tokens=config.image_tokens,
        profile=settings.prompt.profile,
        identifiers=settings.prompt.identifiers,
        context=text.max_position_embeddings,
    )


def image_processor_for(size: int, folder: Path | None) -> ViTImageProcessorPil:
    """Return what makes pixels of images: resized to a square, aspect ignored so that boxes stay true, normalised.

    Args:
        size: pixels of a side.
        folder: the pretrained encoder's, whose mean and spread are taken; None: those for dark pictures.

    Raises:
        UserError: a folder without them.
    """
    mean, spread = [DARK_IMAGE_MEAN] * 3, [DARK_IMAGE_SPREAD] * 3
    options: dict[str, Any] = {}
    if folder is not None:
        found = _preprocessing(folder)
        if "image_mean" not in found or "image_std" not in found:
            raise UserError(f"{folder} holds no preprocessor_config.json with image_mean and image_std.")
        mean, spread, options = found["image_mean"], found["image_std"], {"resample": _BICUBIC}
    return ViTImageProcessorPil(size={"height": size, "width": size}, image_mean=mean, image_std=spread, **options)


def _preprocessing(folder: Path) -> dict[str, Any]:
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON.") from error
    return content if isinstance(content, dict) else {}


def _lay_out_positions(model: UniMedForConditionalGeneration, vision: VisionArchitecture) -> None:
    """Start the ViT's learned position embeddings as the sines and cosines of row and column.

    From random ones a small ViT spends most of a short run finding out which patches are neighbours.
    """
    if vision.type != "vit":
        return
    embeddings: Any = model.vision_model.model.embeddings
    with torch.no_grad():
        positions = 0.5 * sine_positions(vision.image_size // vision.patch_size, vision.width)
        embeddings.position_embeddings[0, 1:] = positions


def sine_positions(side: int, width: int) -> Tensor:
    """Return (side * side, width) embeddings of a grid in raster order: sin and cos of row, then of column."""
    frequencies = torch.exp(-math.log(100.0) * torch.arange(width // 4) / (width // 4))
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    angles = [axis.reshape(-1, 1) * frequencies for axis in (rows, columns)]
    return torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1)
