"""`tugofwar gradients` in several processes: the result of one, and one sentence for a mistake."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import tugofwar as tow

from .gradients_study import (
    COMMAND,
    PARAMETERS,
    call,
    files_of,
    hidden,
    relative_error,
    study_folder,  # noqa: F401 - the fixture `here`
)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_two_processes_give_the_result_of_one(here, monkeypatch):
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        str(free_port()),
    ]
    options = [*PARAMETERS, "--batches", "5", "--preconditioner", "adam", "--keep-factors", "--out", "two"]
    command = ["-m", "tugofwar.cli", "gradients", "--setup", "my_study.py:with_adam", "--quiet", "--json", *options]
    done = subprocess.run([*launcher, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["folder"] == "two", "printed once"
    options[-1] = "one"
    assert call(monkeypatch, *options, setup="my_study.py:with_adam") == 0
    one, two = tow.Recording.load("one"), tow.Recording.load("two")
    assert relative_error(two.gram, one.gram) < 1e-9
    assert relative_error(two.in_geometry("adam").gram, one.in_geometry("adam").gram) < 1e-9
    assert files_of("one", "factors").keys() == files_of("two", "factors").keys()
    np.testing.assert_allclose(*(pd.read_csv(f"{n}/gd_task.csv", index_col=0) for n in ("one", "two")), rtol=1e-9)
    assert hidden() == []
    assert call(monkeypatch, *PARAMETERS, "--preconditioner", "adam", "--extend", 2, "--out", "two",
                setup="my_study.py:with_adam") == 2  # fmt: skip


@pytest.mark.parametrize("options", [["--batches", "50"], ["--batches", "1"], ["--datasets", "lsat"]])
def test_a_mistake_ends_all_processes_and_one_speaks(here, options):
    address = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    running = [
        subprocess.Popen(
            [*COMMAND, *PARAMETERS, "--out", "out", *options],
            env={**os.environ, **address, "RANK": rank, "LOCAL_RANK": rank},
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    said = [process.communicate(timeout=120)[1] for process in running]
    assert [process.returncode for process in running] == [2, 2]
    assert said[0].startswith("Error: ")
    assert said[1] == ""
    assert not Path("out").exists()
    assert hidden() == []
