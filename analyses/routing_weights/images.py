"""Where on an image each visual token lies, and how its weight is divided: a few images of every dataset."""

import random
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from tugofwar.probing import move_to
from tugofwar.restoring import probing_state
from tugofwar.routing.capture import capturing
from unimed_model.probing import ProbeBatches

PER_DATASET = 2
ROUTER = "connector.router"
# Characters of a dataset's name in its files' names: four bytes each still make a name that file systems take.
_LONGEST = 60


@dataclass(frozen=True)
class Picture:
    """An image that the model was given.

    Attributes:
        dataset: its dataset.
        file: its file's name, as no other picture's.
        batch: the model's inputs of this one sample.
        pixels: (height, width, 3) as the model saw them, 8 bits.
    """

    dataset: str
    file: str
    batch: Mapping[str, Any]
    pixels: np.ndarray[Any, np.dtype[np.uint8]]


def chosen_pictures(batches: Mapping[str, ProbeBatches], seed: int) -> list[Picture]:
    """A few different images of every dataset, among those that were passed; none whose licence forbids passing it on.

    Strips without their image say nothing of where a token lies, so that such a dataset has no tokens either.

    Args:
        batches: by dataset.
        seed: of the choice, together with the dataset's name.
    """
    stems = file_stems(batches)
    return [picture for name, each in batches.items() for picture in _of_dataset(name, stems[name], each, seed)]


def file_stems(datasets: Iterable[str]) -> dict[str, str]:
    """Beginning of the names of every dataset's files: safe in any file system, no two alike in any spelling."""
    stems: dict[str, str] = {}
    taken = set()
    for name in datasets:
        # A leading dot would hide the file.
        plain = re.sub(r"[^\w.-]+", "-", name)[:_LONGEST].lstrip(".") or "dataset"
        stem, number = plain, 2
        while stem.casefold() in taken:
            stem, number = f"{plain}_{number}", number + 1
        taken.add(stem.casefold())
        stems[name] = stem
    return stems


def _of_dataset(name: str, stem: str, batches: ProbeBatches, seed: int) -> Iterator[Picture]:
    rows = sorted({index for row in batches.rows for index in row})
    random.Random(f"{seed}/{name}/pictures").shuffle(rows)
    seen: set[str | None] = set()
    for index in rows:
        if len(seen) == PER_DATASET:
            return
        sample = batches.samples[index]
        if sample.image_source is None or sample.restricted or sample.image_id in seen:
            continue
        batch = batches.collator([sample])
        pixels = _as_seen(batch["pixel_values"][0], batches.collator.processor)
        yield Picture(name, f"{stem}-{len(seen)}.png", batch, pixels)
        seen.add(sample.image_id)


def _as_seen(pixels: torch.Tensor, processor: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Normalised pixels (3, height, width) as 8-bit RGB (height, width, 3)."""
    maker = processor.image_processor
    if maker.do_normalize:
        mean, deviation = (torch.tensor(values).reshape(3, 1, 1) for values in (maker.image_mean, maker.image_std))
        pixels = pixels * deviation + mean
    levels = pixels * 255
    return levels.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()


def token_table(model: nn.Module, pictures: list[Picture], tasks: Mapping[str, str], seed: int) -> pd.DataFrame:
    """Weight of every expert for every visual token of the pictures, and the rectangle that the token covers.

    Args:
        model: a Uni-Med with a mixture of experts in its connector.
        pictures: what it is given.
        tasks: task of each dataset.
        seed: of the generators meanwhile.
    """
    router = model.get_submodule(ROUTER)
    device = next(model.parameters()).device
    edges = _edges(model)
    frames = []
    with probing_state(model, None, seed), torch.no_grad():
        for picture in pictures:
            with capturing({ROUTER: router}) as captured:
                model(**move_to(picture.batch, device))
            # (tokens, experts)
            weights = captured.outputs[ROUTER][0].weights()[0].cpu().numpy()
            frames.append(_rows(picture, tasks[picture.dataset], edges, weights))
    return pd.concat(frames, ignore_index=True)


def _rows(picture: Picture, task: str, edges: Mapping[str, Any], weights: Any) -> pd.DataFrame:
    tokens, experts = weights.shape
    return pd.DataFrame(
        {
            "router": ROUTER,
            "dataset": picture.dataset,
            "task": task,
            "image": picture.file,
            "token": np.repeat(np.arange(tokens), experts),
            **{edge: np.repeat(values, experts) for edge, values in edges.items()},
            "expert": np.tile(np.arange(experts), tokens),
            "weight": weights.reshape(-1),
        }
    )


def _edges(model: Any) -> dict[str, Any]:
    """Left, top, right and bottom of every visual token, as shares of the image's width and height.

    Windows of the resampler are rectangles of whole patches: strips of 1 x alpha, or blocks.
    """
    side = model.resampler.side
    patches = model.resampler.patches().numpy()
    rows, columns = patches // side, patches % side
    return {
        "left": columns.min(axis=1) / side,
        "top": rows.min(axis=1) / side,
        "right": (columns.max(axis=1) + 1) / side,
        "bottom": (rows.max(axis=1) + 1) / side,
    }


def save_pictures(pictures: list[Picture], folder: Path) -> None:
    """Write each picture as a PNG of its own."""
    from PIL import Image

    folder.mkdir()
    for picture in pictures:
        Image.fromarray(picture.pixels).save(folder / picture.file, optimize=True)
