"""What is followed over training: a recording's headline numbers, and the file that collects them."""

import csv
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tugofwar.estimation import interference
from tugofwar.recording import Recording

HISTORY = "history.csv"
COLUMNS = ("step", "name", "value")


def headline(recording: Recording) -> dict[str, float]:
    """One recording in a few numbers, by the default estimator.

    Returns:
        ``loss/<dataset>``; ``sign_uncertain``, the number of datasets whose GD denominator may have either
        sign; and, over the other datasets, ``index/<dataset>`` (eq. 4), ``gd_min`` and ``gd_mean`` (eq. 2, off
        the diagonal, row interfered with), ``gm_mean`` (eq. 3, off the diagonal). A number that does not
        exist is left out.

    Raises:
        UserError: GD does not exist, or there is one batch per dataset only.
    """
    result = interference(recording)
    trusted = [name not in result.sign_uncertain for name in result.gd.index]
    off_diagonal = ~np.eye(len(result.gd), dtype=bool)
    gd = result.gd.to_numpy()[off_diagonal & np.array(trusted)[:, None]]
    gm = result.gm.to_numpy()[off_diagonal]
    numbers = {f"loss/{name}": float(recording.losses[rows].mean()) for name, rows in recording.rows.items()}
    numbers["sign_uncertain"] = float(len(result.sign_uncertain))
    numbers |= {f"index/{name}": float(value) for name, value in result.index[trusted].items()}
    if gd.size:
        numbers |= {"gd_min": float(gd.min()), "gd_mean": float(gd.mean())}
    if gm.size:
        numbers["gm_mean"] = float(gm.mean())
    return numbers


def append(folder: Path, step: int, numbers: Mapping[str, float]) -> None:
    """Add a step to ``history.csv`` in ``folder``, in place of what the file says about that step.

    Args:
        folder: made if it is not there.
        step: the training step.
        numbers: name to value.
    """
    rows = [row for row in _read(folder) if int(row[0]) != step]
    rows += [[str(step), name, repr(value)] for name, value in numbers.items()]
    _write(folder, sorted(rows, key=lambda row: int(row[0])))


def forget_after(folder: Path, step: int) -> None:
    """Drop the steps after ``step``, which training that resumes there, or starts at 0, will take anew."""
    if (folder / HISTORY).is_file():
        _write(folder, [row for row in _read(folder) if int(row[0]) <= step])


def _read(folder: Path) -> list[list[str]]:
    path = folder / HISTORY
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))[1:]


def _write(folder: Path, rows: list[list[str]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{HISTORY}.{os.getpid()}"
    try:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([COLUMNS, *rows])
        temporary.replace(folder / HISTORY)
    finally:
        temporary.unlink(missing_ok=True)
