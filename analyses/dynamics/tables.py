"""The measures of recordings at several steps as tidy tables: ``RUN/dynamics`` (docs/formats.md)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from tugofwar.errors import UserError
from tugofwar.estimation import Interference, idle_datasets, interference, task_groups
from tugofwar.recording import Recording

Frames = dict[str, pd.DataFrame]
LEVELS = ("dataset", "task")
_NORMALISED = "index_normalised"


@dataclass(frozen=True, eq=False)
class Step:
    """One recording's measures by the default estimator.

    Attributes:
        step: the training step.
        levels: ``dataset`` and, where tasks are known, ``task`` -> result; without a level that does not exist.
        undefined: level -> why its measures do not exist.
        losses: dataset -> mean loss over the probed batches.
        tasks: task of each dataset, where it is known.
        untouched: datasets without a gradient on the selected parameters.
    """

    step: int
    levels: Mapping[str, Interference]
    undefined: Mapping[str, str]
    losses: Mapping[str, float]
    tasks: Mapping[str, str] = field(default_factory=dict)
    untouched: tuple[str, ...] = ()


def measure_step(
    step: int,
    recording: Recording,
    datasets: Sequence[str] | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Step:
    """Measure one recording at the level of datasets and, where all their tasks are known, of tasks.

    Args:
        step: the training step.
        recording: what was recorded then.
        datasets: names of those to look at; None for all. Names that the recording lacks are passed over.
        resamples: bootstrap draws behind every interval.
        level: probability that an interval should cover the truth.
        seed: seed of the bootstrap.
    """
    idle = idle_datasets(recording, recording.gram)
    looked_at = [name for name in recording.rows if datasets is None or name in datasets]
    touching = [name for name in looked_at if name not in idle]
    groupings = {"dataset": {name: [name] for name in touching}}
    if touching and all(name in recording.tasks for name in touching):
        groups = task_groups(recording)
        chosen = {task: [name for name in members if name in touching] for task, members in groups.items()}
        groupings["task"] = {task: members for task, members in chosen.items() if members}
    results, undefined = {}, {}
    for name, grouping in groupings.items():
        try:
            if not grouping:
                raise UserError("no dataset has a gradient on the selected parameters.")
            results[name] = interference(recording, grouping, resamples=resamples, level=level, seed=seed)
        except UserError as reason:
            undefined[name] = str(reason)
    return Step(
        step=step,
        levels=results,
        undefined=undefined,
        losses={name: float(recording.losses[recording.rows[name]].mean()) for name in looked_at},
        tasks={name: task for name, task in recording.tasks.items() if datasets is None or name in datasets},
        untouched=tuple(name for name in (*recording.untouched, *idle) if datasets is None or name in datasets),
    )


def tables(steps: Sequence[Step]) -> Frames:
    """The tables of ``RUN/dynamics`` by file name, without holes: what does not exist has no row.

    The columns of the index divided by its maximum are there when these numbers exist at every step.

    Args:
        steps: what ``measure_step`` returned, by step.
    """
    losses = [(each.step, name, loss) for each in steps for name, loss in each.losses.items()]
    frames = {"loss.csv": pd.DataFrame(losses, columns=["step", "dataset", "loss"])}
    for level in LEVELS:
        results = {each.step: each.levels[level] for each in steps if level in each.levels}
        if results:
            frames[f"index_{level}.csv"] = _index_table(results)
            frames[f"gd_{level}.csv"] = _cells(results, "gd")
            frames[f"gm_{level}.csv"] = _cells(results, "gm")
    return frames


def headlines(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """Each step in a few numbers, between datasets; rows whose sign is uncertain are counted and left out.

    Returns:
        Per step ``step``; ``loss``, the mean over datasets; ``gd_mean`` and ``gd_min`` (eq. 2, off the diagonal) with
        ``gd_min_row`` and ``gd_min_column``; ``index_min`` and ``index_max`` (eq. 4); ``sign_uncertain``, the names.
        What does not exist is left out.
    """
    return [_headline(each) for each in steps]


def _headline(step: Step) -> dict[str, Any]:
    line: dict[str, Any] = {"step": step.step}
    if step.losses:
        line["loss"] = sum(step.losses.values()) / len(step.losses)
    result = step.levels.get("dataset")
    if result is None:
        return line
    names, values = [str(name) for name in result.gd.index], result.gd.to_numpy()
    trusted = [name for name in names if name not in result.sign_uncertain]
    cells = {
        (row, other): float(values[i, j])
        for i, row in enumerate(names)
        for j, other in enumerate(names)
        if i != j and row in trusted
    }
    if cells:
        row, column = min(cells, key=lambda cell: cells[cell])
        line |= {"gd_mean": sum(cells.values()) / len(cells), "gd_min": cells[row, column]}
        line |= {"gd_min_row": row, "gd_min_column": column}
    if trusted:
        indexes = result.index[trusted]
        line |= {"index_min": float(indexes.min()), "index_max": float(indexes.max())}
    return line | {"sign_uncertain": list(result.sign_uncertain)}


def _index_table(results: Mapping[int, Interference]) -> pd.DataFrame:
    measures = ["index", _NORMALISED] if normalised_everywhere(results.values()) else ["index"]
    return pd.concat([_index_rows(step, result, measures) for step, result in results.items()], ignore_index=True)


def normalised_everywhere(results: Any) -> bool:
    """Whether every result has the index divided by its maximum, and its interval."""
    return all(result.index_normalised is not None and _NORMALISED in result.intervals for result in results)


def _index_rows(step: int, result: Interference, measures: Sequence[str]) -> pd.DataFrame:
    names = [str(name) for name in result.index.index]
    rows: dict[str, Any] = {"step": step, "name": names, "batches": [result.batches[name] for name in names]}
    for measure in measures:
        rows[measure] = getattr(result, measure).to_numpy()
        for end in ("low", "high"):
            rows[f"{measure}_{end}"] = getattr(result.intervals[measure], end).to_numpy()
    return pd.DataFrame({**rows, "sign_uncertain": [name in result.sign_uncertain for name in names]})


def _cells(results: Mapping[int, Interference], measure: str) -> pd.DataFrame:
    parts = []
    for step, result in results.items():
        values, bounds = getattr(result, measure), result.intervals[measure]
        names = [str(name) for name in values.index]
        parts.append(
            pd.DataFrame(
                {
                    "step": step,
                    "row": [row for row in names for _ in names],
                    "column": names * len(names),
                    "value": values.to_numpy().ravel(),
                    "low": bounds.low.to_numpy().ravel(),
                    "high": bounds.high.to_numpy().ravel(),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)
