"""What each of several processes does for ``test_engine_processes.py``: ``python -m tests.tugofwar.ranks FOLDER``.

RANK and WORLD_SIZE are set as a launcher would; every scenario's result or error is saved for each rank.
"""

import math
import os
import sys
import warnings
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed as dist

import tugofwar as tow
from tugofwar.engine.outputs import MeansFile

from . import small

TASKS = {"a": "VQA", "b": "CLS", "text": "QA"}


def data(dtype=torch.float64):
    """Batch 0 of ``a`` alone reaches both experts; all else leaves out one. ``text`` reaches no parameter."""
    first = small.batches(5, 1, dtype=dtype)
    return {
        "a": first[:1] + [{**batch, "idle": (1,)} for batch in first[1:]],
        "text": [{"text": number} for number in range(5)],
        "b": [{**batch, "idle": (1,)} for batch in small.batches(5, 2, tokens=5, dtype=dtype)],
    }


def loss(model, batch):
    if "text" in batch:
        return torch.ones(())
    return small.loss(model, batch)


class Counted:
    def __init__(self):
        self.calls = 0

    def __call__(self, model, batch):
        self.calls += 1
        return loss(model, batch)


def optimizer_of(model):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for batch in small.batches(3, 7):
        optimizer.zero_grad()
        small.loss(model, batch).backward()
        optimizer.step()
    optimizer.zero_grad()
    return optimizer


def record(model, datasets=None, batches=5, loss=loss, **settings):
    return tow.record(model, datasets or data(), "*", batches, loss, progress=False, **settings)


def everything(folder):
    model = small.build()
    settings = {"workspace": folder, "keep_means": True, "keep_scores": True, "tasks": TASKS}
    return record(model, preconditioner=optimizer_of(model), **settings)


def single(folder):
    return record(small.build(dtype=torch.float32), data(torch.float32))


def kernel(folder):
    return record(small.build(), statistics=False)


def tiny_buffers(folder):
    return record(small.build(), memory="3kB", workspace=folder, resume=False)


def shuffled(folder):
    loaders = {
        name: torch.utils.data.DataLoader(batches, batch_size=None, shuffle=True) for name, batches in data().items()
    }
    return record(small.build(), loaders)


def few(folder):
    return record(small.build(), batches=2)


def wrapped(folder):
    """A model in DistributedDataParallel, as a trainer has it; processes pass different numbers of batches."""
    model = small.build()
    model.norm.register_buffer("seen", torch.zeros(1))
    parallel = torch.nn.parallel.DistributedDataParallel(model)
    recording = record(parallel, group_blocks=["module.*"])
    assert parallel.require_backward_grad_sync
    assert parallel.require_forward_param_sync
    # It still sums over the processes as before.
    parallel(data()["a"][0]["x"]).sum().backward()
    return recording


SCENARIOS = (everything, single, kernel, tiny_buffers, shuffled, few)
"""Those that one process does just as well."""


def resumed(folder):
    """The last dataset fails in one process; the next call passes only that dataset."""
    counted, broken = Counted(), [dict(batch) for batch in data()["b"]]
    broken[1]["y"] = broken[1]["y"] * math.nan
    try:
        record(small.build(), {**data(), "b": broken}, loss=counted, workspace=folder)
    except tow.UserError as error:
        message = str(error)
    before = counted.calls
    recording = record(small.build(), loss=counted, workspace=folder)
    return message, before, counted.calls - before, recording


def extended(folder):
    counted = Counted()
    record(small.build(), batches=2, loss=counted, workspace=folder, keep_factors=True)
    before = counted.calls
    recording = record(small.build(), loss=counted, workspace=folder, keep_factors=True)
    return before, counted.calls - before, recording


def foreign_folder(folder):
    if dist.get_rank() == 0:
        (folder / "factors").mkdir(parents=True)
        (folder / "factors" / "thesis.tex").write_text("years of work")
    dist.barrier()
    return record(small.build(), workspace=folder)


def full_disk_of_the_last_process(folder):
    def full(*_):
        raise tow.UserError("The disk is full")

    original = MeansFile.__call__
    if dist.get_rank() == dist.get_world_size() - 1:
        MeansFile.__call__ = full
    try:
        return record(small.build(), workspace=folder, keep_means=True, memory="3kB")
    finally:
        MeansFile.__call__ = original


def too_few_batches(folder):
    return record(small.build(), {"a": iter(small.batches(4, 1))})


ONLY_TOGETHER = (wrapped, resumed, extended, foreign_folder, full_disk_of_the_last_process, too_few_batches)


def outcome(scenario, folder):
    try:
        return scenario(folder / scenario.__name__)
    except tow.UserError as error:
        return error


def main(folder):
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'rendezvous'}",
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
        timeout=timedelta(seconds=60),
    )
    results = {scenario.__name__: outcome(scenario, folder) for scenario in (*SCENARIOS, *ONLY_TOGETHER)}
    torch.save(results, folder / f"results-{dist.get_rank()}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
