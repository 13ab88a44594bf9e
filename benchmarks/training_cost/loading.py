"""How long a training step waits for its batch."""

import time

import torch
from data_cost.row import Row

from training_cost.workload import built, corpus, loader_of, mixture_of, settings_of
from unimed_model.loader import DATASETS

GOAL = 0.05


def measure(quick: bool) -> list[Row]:
    """Return the share of a step of ``small`` that is spent waiting for its batch, with and without a worker."""
    preset, steps = ("tiny", 6) if quick else ("small", 26)
    datasets = corpus()
    settings = settings_of(preset, steps)
    model, processor = built(settings, datasets)
    model.train()
    rows = []
    for workers in (0, 1):
        batches = iter(loader_of(mixture_of(settings, datasets, processor), processor, workers=workers))
        shares = []
        for _ in range(steps):
            began = time.perf_counter()
            batch = next(batches)
            waited = time.perf_counter() - began
            batch.pop(DATASETS)
            model(**batch).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            model.zero_grad()
            shares.append(waited / (time.perf_counter() - began))
        what = f"waiting for the batch, as a share of a step of `{preset}`, training.workers={workers}"
        rows.append(Row(what, shares[2:], GOAL, "at most", digits=4))
    return rows
