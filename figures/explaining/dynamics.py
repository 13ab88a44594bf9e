"""How interference and routing change during training."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from figures.explaining.sampling import batches_text, few_batches, not_touching
from figures.explaining.sentences import counted, interval, most_clearly, within
from figures.explaining.support import Case, apart_by_chance, by_chance, widened, widening_apart
from figures.explanation import Explanation
from figures.tables.dynamics import DynamicsTables
from figures.tables.runs import Run


def index(run: Run, level: str) -> Explanation:
    """Text beside tug-of-war indexes over steps.

    Args:
        run: with dynamics tables.
        level: ``dataset`` or ``task``.
    """
    tables = dynamics_of(run)
    table = tables.index[level]
    return Explanation(
        title=f"{run.name}: tug-of-war indexes over training, {level}s",
        reading=(
            f"Each line follows one {level} through training: above 1 the other {level}s help it on balance, below 1 "
            "they get in its way. "
            "Intervals hold at each step alone; compare steps only where they are clearly apart."
        ),
        finding=_index_finding(run, level),
        caption=f"Tug-of-war index (equation 4) of every {level} over steps, run {run.name}. {_sampling(tables)}",
        warnings=(*_warnings(run.name, tables), *_sign_warnings(run.name, table)),
    )


def gd(run: Run, level: str) -> Explanation:
    """Text beside GD over steps.

    Args:
        run: with dynamics tables.
        level: ``dataset`` or ``task``.
    """
    tables = dynamics_of(run)
    return Explanation(
        title=f"{run.name}: gradient direction over training, {level}s",
        reading=(
            f"Each line follows one pair: how much the update of one {level} helps another (above 0) or harms it "
            "(below 0), relative to the other's own update. "
            "A line says something only where its interval, which the table has at every step, leaves out 0."
        ),
        finding=_gd_finding(run, level),
        caption=f"GD (equation 2) between {level}s over steps, run {run.name}. {_sampling(tables)}",
        warnings=(*_warnings(run.name, tables), *_sign_warnings(run.name, tables.index.get(level))),
    )


def routing(run: Run) -> Explanation:
    """Text beside routing weights over steps, as training logged them; they have no intervals.

    Args:
        run: with dynamics tables that have routing weights.
    """
    tables = dynamics_of(run)
    table = tables.routing
    images = ""
    if table is not None and "images" in table and len(table):
        images = f" Each value is a mean over {int(table['images'].min()):,} to {int(table['images'].max()):,} images."
    return Explanation(
        title=f"{run.name}: routing weights over training",
        reading=(
            "For one task, each line is one expert: the share of the weight that the router gave it since the step "
            "before. "
            "Lines that spread apart mean that the task settles on some experts, and lines that stay together mean "
            "that it uses all alike."
        ),
        finding=None,
        caption=(
            f"Mean routing weights of every expert by task over steps, run {run.name}, as logged on the batches of "
            f"training; without intervals.{images}"
        ),
    )


def loss(run: Run) -> Explanation:
    """Text beside the loss of every dataset over steps; it has no intervals.

    Args:
        run: with dynamics tables that have losses.
    """
    tables = dynamics_of(run)
    return Explanation(
        title=f"{run.name}: loss over training",
        reading=(
            "Each line is the loss of one dataset: lower is better, and one that rises while others fall pays for "
            "them. "
            "Levels depend on how hard answers are to guess, so compare a line with itself and not with others."
        ),
        finding=None,
        caption=(
            f"Mean loss over the probed batches of every dataset, run {run.name}; without intervals. "
            f"{counted(len(_steps(tables)), 'step')} from {_steps(tables)[0]:,} to {_steps(tables)[-1]:,}; "
            f"{batches_text(str(tables.manifest['batches']), tables.manifest.get('batch_size'))}, the same at "
            "every step."
        ),
        warnings=tuple(_warnings(run.name, tables)),
    )


def dynamics_of(run: Run) -> DynamicsTables:
    """The run's tables over training.

    Raises:
        ValueError: a run without any.
    """
    if run.dynamics is None:
        raise ValueError(f"Run {run.name} has no tables over training.")
    return run.dynamics


def _index_finding(run: Run, level: str) -> str | None:
    tables = dynamics_of(run)
    table = tables.index[level]
    if "index_low" not in table or "index_high" not in table:
        return None
    trusted = table[~table["sign_uncertain"].astype(bool)] if "sign_uncertain" in table else table
    ends = {"index": "value", "index_low": "low", "index_high": "high"}
    moves = _moves(trusted.rename(columns=ends), ("name",), _level(tables))
    return _moved_finding(
        run.name, moves, [f"that of {move.names[0]} {_from_to(move)}" for move in moves.sure], ("index", "indexes")
    )


def _gd_finding(run: Run, level: str) -> str | None:
    tables = dynamics_of(run)
    table = tables.gd[level]
    table = table[table["row"] != table["column"]]
    signs = tables.index.get(level)
    if signs is not None and "sign_uncertain" in signs:
        doubtful = signs[signs["sign_uncertain"].astype(bool)]
        keys = set(zip(doubtful["step"], doubtful["name"], strict=True))
        table = table[[key not in keys for key in zip(table["step"], table["row"], strict=True)]]
    moves = _moves(table, ("row", "column"), _level(tables))
    described = [f"that of {move.names[0]} under {move.names[1]}'s updates {_from_to(move)}" for move in moves.sure]
    return _moved_finding(run.name, moves, described, ("value of GD", "values of GD"))


@dataclass(frozen=True)
class _Move:
    """One cell at the first and at the last step."""

    names: tuple[str, ...]
    first: Case
    last: Case


@dataclass(frozen=True)
class _Moves:
    """What moved from the first to the last step.

    Attributes:
        sure: cells whose intervals do not touch even when widened for all cells, the widest gap first.
        apart: how many cells have intervals that do not touch as they are.
        tested: how many cells have both steps.
        steps: the first and the last step.
        level: of the intervals.
    """

    sure: tuple[_Move, ...]
    apart: int
    tested: int
    steps: tuple[int, int]
    level: float


def _moves(table: pd.DataFrame, names: Sequence[str], level: float) -> _Moves:
    if table.empty:
        return _Moves((), 0, 0, (0, 0), level)
    steps = int(table["step"].min()), int(table["step"].max())
    first, last = (table.loc[table["step"] == step, [*names, "value", "low", "high"]] for step in steps)
    both = first.merge(last, on=list(names), suffixes=("_first", "_last"))
    if steps[0] == steps[1] or both.empty:
        return _Moves((), 0, 0, steps, level)
    gaps = _gaps(both, widening_apart(level, len(both)))
    columns = [f"{column}_{step}" for step in ("first", "last") for column in ("value", "low", "high")]
    rows = both.loc[gaps > 0, [*names, *columns]].itertuples(index=False, name=None)
    found = [(-gap, _move(row, len(names))) for gap, row in zip(gaps[gaps > 0], rows, strict=True)]
    ordered = sorted(found, key=lambda entry: (entry[0], entry[1].names))
    return _Moves(tuple(move for _, move in ordered), int((_gaps(both, 1.0) > 0).sum()), len(both), steps, level)


def _gaps(both: pd.DataFrame, factor: float) -> pd.Series:
    """By how much the intervals of both steps miss each other; negative where they overlap."""
    (low, high), (later_low, later_high) = (
        widened(both[f"value_{at}"], both[f"low_{at}"], both[f"high_{at}"], factor) for at in ("first", "last")
    )
    after, before = later_low - high, low - later_high
    return after.where(after > before, before)


def _move(row: tuple[Any, ...], length: int) -> _Move:
    names, numbers = tuple(map(str, row[:length])), [float(value) for value in row[length:]]
    return _Move(names, Case(names, *numbers[:3]), Case(names, *numbers[3:]))


def _from_to(move: _Move) -> str:
    return f"(from {_numbers(move.first)} to {_numbers(move.last)})"


def _numbers(case: Case) -> str:
    return interval(case.value, case.low, case.high)


def _moved_finding(run: str, moves: _Moves, described: Sequence[str], what: tuple[str, str]) -> str | None:
    if not moves.sure:
        return None
    begin = (
        f"In run {run}, from step {moves.steps[0]:,} to {moves.steps[1]:,}, {moves.apart:,} of "
        f"{counted(moves.tested, *what)} moved until their intervals no longer touch, "
        f"{most_clearly(moves.apart, described[0])}"
    )
    expected = by_chance(moves.tested * apart_by_chance(moves.level))
    tail = f"; {expected}, and no test, as all steps share their batches"
    return within([begin, *described[1:2]], tail, " and ", f"; no test, {expected}")


def _level(tables: DynamicsTables) -> float:
    return float(tables.manifest["interval_level"])


def _steps(tables: DynamicsTables) -> list[int]:
    return [int(step) for step in tables.manifest["steps"]]


def _sampling(tables: DynamicsTables) -> str:
    manifest = tables.manifest
    steps = _steps(tables)
    source = {"callback": "recorded while training", "checkpoints": "measured on its checkpoints"}
    parts = [f"{counted(len(steps), 'step')} from {steps[0]:,} to {steps[-1]:,}"]
    if manifest.get("source") in source:
        parts[0] += f", {source[manifest['source']]}"
    parts.append(f"{batches_text(str(manifest['batches']), manifest.get('batch_size'))}, the same at every step")
    parts.append(f"estimator {manifest['estimator']}")
    parts.append(f"{_level(tables):.0%} percentile bootstrap over batches ({manifest['resamples']:,} resamples)")
    return "; ".join(parts) + "." + not_touching(manifest.get("untouched") or [])


def _warnings(run: str, tables: DynamicsTables) -> list[str]:
    warnings = few_batches(int(tables.manifest["batches"]), run)
    if len(_steps(tables)) < 2:
        warnings.append(f"Run {run} was probed at one step only, so that nothing can be said of a change.")
    return warnings


def _sign_warnings(run: str, table: pd.DataFrame | None) -> list[str]:
    if table is None or "sign_uncertain" not in table:
        return []
    doubtful = int(table["sign_uncertain"].astype(bool).sum())
    if not doubtful:
        return []
    return [
        f"Over the steps of run {run} {doubtful:,} of {len(table):,} denominators have an uncertain sign; these rows "
        "are not to be trusted, and no finding speaks of them."
    ]
