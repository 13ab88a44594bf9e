"""A small study of one's own in float64, and `tugofwar gradients` run on it."""

import sys
from pathlib import Path

import numpy as np
import pytest

from tugofwar import cli

STUDY = """
import os
import time
from pathlib import Path

import torch

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(30, 20), torch.nn.Tanh(), torch.nn.Linear(20, 1)).double()
x = torch.randn(14, 3, 30, dtype=torch.float64) + 0.5


class Halting:
    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        for number, batch in enumerate(self.batches):
            if number == 2 and Path("halt").exists():
                Path("halted").touch()
                time.sleep(600)
            yield batch


datasets = {
    "sum": [(b, b.sum(1)) for b in x],
    "first": [(b, b[:, 0] + 2) for b in x],
    "last": Halting([(b, b[:, 4] - b[:, 0]) for b in x]),
}
tasks = {"sum": "many", "first": "one", "last": "one"}


def loss(model, batch):
    return torch.nn.functional.mse_loss(model(batch[0])[:, 0], batch[1])


def setup():
    return {"model": model, "datasets": datasets, "loss": loss, "tasks": tasks}


def with_adam():
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for batch in datasets["sum"]:
        optimizer.zero_grad()
        loss(model, batch).backward()
        optimizer.step()
    return setup() | {"preconditioner": optimizer}
"""
PARAMETERS = ["--params", "0.*"]
COMMAND = [sys.executable, "-m", "tugofwar.cli", "gradients", "--setup", "my_study.py:setup", "--quiet"]


@pytest.fixture(name="here")
def study_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my_study.py").write_text(STUDY)
    return tmp_path


def call(monkeypatch, *arguments, setup="my_study.py:setup"):
    options = ["tugofwar", "gradients", "--setup", setup, "--quiet", *map(str, arguments)]
    monkeypatch.setattr(sys, "argv", options)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code or 0


def files_of(folder, *left_out):
    paths = [path for path in Path(folder).rglob("*") if path.is_file()]
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in paths
        if path.relative_to(folder).parts[0] not in left_out
    }


def hidden(folder="."):
    return [path.name for path in Path(folder).iterdir() if path.name.startswith(".")]


def relative_error(gram, exact):
    norms = np.sqrt(np.diagonal(exact))
    return abs((gram - exact) / np.outer(norms, norms)).max()
