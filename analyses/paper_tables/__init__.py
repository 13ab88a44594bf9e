"""The paper's published numbers, as data; ``README.md`` beside this file says where they come from.

Nothing here is computed: values, deviations and Deltas are as printed, in percent.
"""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files

DATASETS: Mapping[str, str] = {
    "slake_vqa": "Slake-VQA",
    "path_vqa": "Path-VQA",
    "slake_rec": "Slake-REC",
    "sa_med2d_rec": "SA-Med2D-REC",
    "slake_reg": "Slake-REG",
    "sa_med2d_reg": "SA-Med2D-REG",
    "mimic_cxr": "MIMIC-CXR",
    "mpx_single": "MPx-Single",
    "dermamnist": "DermaMNIST",
    "organsmnist": "OrganSMNIST",
}
"""Our name of a dataset -> the paper's, in the order of the columns of Table 2."""

TASKS = ("VQA", "REC", "REG", "RG", "CLS")
"""Tasks in the order of the columns of Table 2, two datasets each."""

TOTAL = "Total"


@dataclass(frozen=True)
class Ablation:
    """A row of Table 2 or 5.

    Attributes:
        table: ``2a`` to ``2e`` or ``5``.
        arm: our name of it.
        baseline: the arm that its Deltas compare it with; None for a baseline.
        values: dataset, by our name -> value.
        deltas: task or ``Total`` -> printed Delta; empty for a baseline.
        assigned: how the numbers were given to the row: ``printed``, ``table 5`` or ``inferred``.
    """

    table: str
    arm: str
    baseline: str | None
    values: Mapping[str, float]
    deltas: Mapping[str, float]
    assigned: str


@dataclass(frozen=True)
class Published:
    """A number of Table 3 or 6: the mean, and the standard deviation over runs where one is printed."""

    table: str
    task: str
    dataset: str
    metric: str
    model: str
    value: float
    deviation: float | None
    leakage: bool


def ablations() -> list[Ablation]:
    """Return the rows of Tables 2 and 5, in the paper's order."""
    return [
        Ablation(
            table=line["table"],
            arm=line["arm"],
            baseline=line["baseline"] or None,
            values={ours: float(line[printed]) for ours, printed in DATASETS.items()},
            deltas={task: float(line[f"delta {task}"]) for task in (*TASKS, TOTAL) if line[f"delta {task}"]},
            assigned=line["assigned"],
        )
        for line in _lines("ablations.csv")
    ]


def comparison() -> list[Published]:
    """Return the numbers of Tables 3 and 6, in the paper's order; datasets go by our names."""
    ours = {printed: name for name, printed in DATASETS.items()}
    return [
        Published(
            table=line["table"],
            task=line["task"],
            dataset=ours[line["dataset"]],
            metric=line["metric"],
            model=line["model"],
            value=float(line["value"]),
            deviation=float(line["deviation"]) if line["deviation"] else None,
            leakage=line["note"] == "leakage",
        )
        for line in _lines("comparison.csv")
    ]


def _lines(name: str) -> Iterator[dict[str, str]]:
    yield from csv.DictReader(files(__package__).joinpath(name).read_text(encoding="utf-8").splitlines())
