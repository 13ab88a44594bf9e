"""Samples per second of one worker, from file to batch, beside bare Pillow on the same files."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from data_cost.row import Row
from unimed_model.building import image_processor_for
from unimed_model.data.collator import Collator
from unimed_model.data.images import ImageFile
from unimed_model.data.mixture import Mixture
from unimed_model.data.sample import Sample, Samples
from unimed_model.processing import UniMedProcessor
from unimed_model.tokenization import train_tokenizer

SIDE = 224
GOAL = 0.8
QUESTION = "Which organ is abnormal in this picture?"


def measure(quick: bool) -> list[Row]:
    """Return ours over bare Pillow, for JPEGs of 512 to 1024 pixels a side, grey and in colour."""
    files, repeats = (8, 3) if quick else (96, 25)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        paths = [_picture(Path(folder) / f"{number}.jpg", number) for number in range(files)]
        return [_beside_pillow(paths, batch_size, repeats) for batch_size in (4, 8)]


def _beside_pillow(paths: list[Path], batch_size: int, repeats: int) -> Row:
    tokenizer = train_tokenizer([QUESTION, "Based on the image, respond to this question with a short answer"] * 9, 600)
    processor = UniMedProcessor(image_processor_for(SIDE, None), tokenizer)
    mixture = Mixture({"pictures": _samples(paths)}, batch_size, len(paths) // batch_size, 0, processor.prompts)
    collator = Collator(processor)

    def ours() -> None:
        for batch in mixture:
            collator([mixture[draw] for draw in batch])

    def pillow() -> None:
        for path in paths:
            with Image.open(path) as image:
                image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)

    ours()
    ratios = []
    for _ in range(repeats):
        # before and after, so that a machine that slows down in between favours neither
        before, mine, after = (_seconds(way) for way in (pillow, ours, pillow))
        ratios.append((before + after) / 2 / mine)
    what = f"pipeline, batches of {batch_size}: samples per second over bare Pillow's"
    return Row(what, ratios, GOAL, "at least")


def _seconds(way: Callable[[], None]) -> float:
    start = time.perf_counter()
    way()
    return time.perf_counter() - start


def _samples(paths: list[Path]) -> Samples:
    meta = {"templates": "vqa", "subject": QUESTION}
    return Samples(
        Sample(
            "pictures", "VQA", "train", path.stem, path.stem, None, "fixed", "The left lung", (), meta, ImageFile(path)
        )
        for path in paths
    )


def _picture(path: Path, seed: int) -> Path:
    """Write smooth shapes with the grain of a scan; every third one in colour."""
    rng = np.random.default_rng(seed)
    width, height = rng.integers(512, 1025, 2).tolist()
    shapes = Image.fromarray(rng.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8))
    smooth = np.asarray(shapes.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float64)
    grain = rng.normal(0, 6, (height, width, 1))
    picture = Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8))
    (picture if seed % 3 == 0 else picture.convert("L")).save(path, quality=90)
    return path
