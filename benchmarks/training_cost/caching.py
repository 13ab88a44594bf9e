"""What the feature cache saves of a step with a frozen vision encoder."""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from data_cost.row import Row

from training_cost.workload import built, corpus, loader_of, mixture_of, settings_of
from unimed_model.feature_cache import FeatureCache
from unimed_model.loader import DATASETS

GOAL = 0.9


def measure(quick: bool) -> list[Row]:
    """Return, for steps of ``small`` with images, the time that the cache saves over what the encoder takes alone.

    Steps with and without cache read the same batches in turn, from file to zeroed gradients; what reading pixels costs
    is saved too, so the share may be above 1.
    """
    preset, steps = ("tiny", 6) if quick else ("small", 26)
    with tempfile.TemporaryDirectory() as folder:
        datasets = {name: samples for name, samples in corpus().items() if samples[0].image_source}
        settings = settings_of(preset, steps, "vision.trainable=false")
        model, processor = built(settings, datasets)
        model.train()
        cache = FeatureCache(Path(folder) / "cache", model, processor)
        for batch in loader_of(mixture_of(settings, datasets, processor), processor, cache):
            cache.complete(model, batch)
        plain, again = (iter(loader_of(mixture_of(settings, datasets, processor), processor)) for _ in range(2))
        cached = iter(loader_of(mixture_of(settings, datasets, processor), processor, cache))

        def step(batch: dict[str, Any]) -> float:
            batch.pop(DATASETS)
            loss = model(**batch).loss
            loss.backward()
            model.zero_grad()
            return loss.item()

        saved = []
        for batch in plain:
            pixels = batch["pixel_values"]
            _, reading = _timed(lambda: next(again))
            first, uncached = _timed(partial(step, batch))
            second, with_cache = _timed(lambda: step(cache.complete(model, next(cached))))
            assert first == second, "a step with the cache is another step"
            with torch.no_grad():
                _, encoder = _timed(partial(model.vision_model, pixels))
            saved.append((reading + uncached - with_cache) / encoder)
        what = f"time that the cache saves in a step of `{preset}`, over what the encoder takes for its images"
        return [Row(what, saved[2:], GOAL, "at least")]


def _timed(way: Callable[[], Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    result = way()
    return result, time.perf_counter() - began
