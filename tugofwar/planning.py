"""What a recording will cost, forecast from two timed batches of every dataset, before it is made."""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tugofwar.engine.budget import Budget
from tugofwar.engine.collecting import Datasets
from tugofwar.engine.folds import ScoreFold
from tugofwar.engine.parts import Part, split_into_parts
from tugofwar.engine.passes import Passes, Row
from tugofwar.engine.processes import Processes
from tugofwar.engine.products import GramAccumulator
from tugofwar.engine.rebuild import gradient_chunks
from tugofwar.engine.sketch import CountSketch
from tugofwar.engine.store import Store, free_disk
from tugofwar.errors import UserError
from tugofwar.probing import Loss, default_loss
from tugofwar.restoring import probing_state
from tugofwar.selection import group_into_blocks, select_parameters
from tugofwar.sizes import format_bytes


@dataclass(frozen=True)
class Plan:
    """A forecast; times in seconds, sizes in bytes.

    Attributes:
        rows: batches of all datasets that touch the selected parameters.
        parameters: scalars selected.
        pass_seconds: all forward and backward passes.
        product_seconds: rebuilding gradients, their products and statistics.
        factor_bytes: what all passes leave behind.
        memory_bytes: the most that will be held in memory besides the model.
        memory_allowed: the budget that this was planned for; None if the system does not tell.
        disk_bytes: the most that will be in files meanwhile, what is kept included.
        disk_free: free on the disk of the workspace; None without a workspace.
        recording_bytes: the Gram matrices in the end.
        untouched: datasets whose first two batches reach no selected parameter; they are not counted.
        advice: which settings to change, in order, if it does not fit; empty if it fits.
    """

    rows: int
    parameters: int
    pass_seconds: float
    product_seconds: float
    factor_bytes: int
    memory_bytes: int
    memory_allowed: int | None
    disk_bytes: int
    disk_free: int | None
    recording_bytes: int
    untouched: tuple[str, ...]
    advice: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """All attributes, as JSON has them."""
        return asdict(self)

    def text(self) -> str:
        """The forecast in a few lines."""
        lines = [
            f"{self.rows} batches, {self.parameters:,} parameters",
            f"time    about {_duration(self.pass_seconds + self.product_seconds)}: passes "
            f"{_duration(self.pass_seconds)}, products {_duration(self.product_seconds)}",
            f"memory  {format_bytes(self.memory_bytes)}"
            + (f" of {format_bytes(self.memory_allowed)} allowed" if self.memory_allowed is not None else ""),
            f"disk    {format_bytes(self.disk_bytes)}"
            + (f" of {format_bytes(self.disk_free)} free" if self.disk_free is not None else ""),
            f"gram    {format_bytes(self.recording_bytes)} in the recording",
        ]
        if self.untouched:
            lines.append(f"not touching the selected parameters: {', '.join(self.untouched)}")
        lines += [f"does not fit: {advice}" for advice in self.advice] or ["fits"]
        return "\n".join(lines)


@dataclass
class _Sampled:
    """Two batches of every dataset that touches anything: their rows, and seconds and bytes of a batch."""

    rows: list[Row]
    datasets: list[str]
    first_seconds: float = 0.0
    seconds: float = 0.0
    bytes: int = 0
    untouched: tuple[str, ...] = ()


def plan(
    model: nn.Module,
    datasets: Datasets,
    parameters: str | Sequence[str] | Callable[[str, nn.Parameter], bool] = "connector.*",
    batches: int = 100,
    loss: Loss | None = None,
    seed: int = 0,
    *,
    statistics: bool = True,
    geometries: int = 1,
    memory: int | str | None = None,
    workspace: str | Path | None = None,
    resume: bool = True,
    keep_means: bool = False,
    keep_scores: bool = False,
    factor_dtype: torch.dtype | None = None,
    group_blocks: Sequence[str] = (),
    sketch: int | None = None,
    tasks: Mapping[str, str] | None = None,
) -> Plan:
    """Forecast time, memory and disk of ``record`` with the same arguments.

    Two batches of every dataset are passed (the first is verified, the second timed) and one chunk of gradients is
    rebuilt and multiplied at full size. Forecasts of time are good to tens of per cent at best.

    Args:
        model: as for ``record``, like all arguments that are not named here.
        datasets: name to an iterable of batches.
        parameters: what to select.
        batches: batches per dataset.
        loss: ``loss(model, batch)``.
        seed: of the generators.
        statistics: whether statistics scores are counted.
        geometries: 1 for plain gradients; 2 with a preconditioner.
        memory: the budget.
        workspace: where files would go; it is not made.
        resume: whether all factors are written there.
        keep_means: whether mean gradients are kept.
        keep_scores: whether scores are kept.
        factor_dtype: precision of factors.
        group_blocks: globs that merge blocks.
        sketch: numbers per part.
        tasks: task of each dataset.

    Raises:
        UserError: what ``record`` would raise about the selection and the first batches.
    """
    selected = select_parameters(model, parameters)
    blocks = group_into_blocks(selected, group_blocks)
    parts = split_into_parts(model, blocks)
    sketcher = CountSketch(parts, sketch, seed) if sketch is not None else None
    budget = Budget.of(memory)
    with Store() as store, probing_state(model, None, seed):
        passes = Passes(model, parts, loss or default_loss, store, factor_dtype, sketcher)
        sampled = _sample(passes, datasets, batches)
        rows = len(set(sampled.datasets)) * batches
        fold = None
        if statistics and sketch is None:
            fold = ScoreFold(parts, _spread(sampled.datasets, rows), tasks or {}, seed, budget.sample, Processes())
        seconds = _time_products(parts, sampled.rows, rows, store, budget.buffer, geometries, fold)
    size = sum(part.size for part in parts)
    kept = size * len(set(sampled.datasets)) * 4 * keep_means + size * 3 * (2 if tasks else 1) * keep_scores
    factors = sampled.bytes * batches
    grams = geometries * rows * rows * 8
    largest = rows * max(part.size * part.dtype.itemsize for part in parts)
    work = min(budget.buffer, largest) + 2 * min(budget.sample, largest) + 2 * grams
    allowed = budget.factors
    persistent = workspace is not None and resume
    in_memory = 0 if persistent else factors if allowed is None else min(factors, allowed)
    spilled = factors - in_memory
    free = free_disk(Path(workspace)) if workspace is not None else None
    recording = geometries * len(blocks) * rows * (rows + 1) * 4
    disk = spilled + kept + recording if workspace is not None else 0
    return Plan(
        rows=rows,
        parameters=size,
        pass_seconds=sampled.first_seconds + sampled.seconds * (batches - 1),
        product_seconds=seconds,
        factor_bytes=factors,
        memory_bytes=in_memory + work + recording,
        memory_allowed=None if allowed is None else allowed + budget.buffer + 2 * budget.sample,
        disk_bytes=disk,
        disk_free=free,
        recording_bytes=recording,
        untouched=sampled.untouched,
        advice=tuple(_advice(spilled, disk, free, work + recording, allowed, len(blocks), factor_dtype)),
    )


def _sample(passes: Passes, datasets: Datasets, batches: int) -> _Sampled:
    if not datasets:
        raise UserError("There are no datasets to plan for; give a mapping of names to iterables of batches.")
    sampled = _Sampled([], [])
    for name, source in datasets.items():
        before = passes.store.bytes_in_memory
        ticks = [time.perf_counter()]
        numbered = enumerate(itertools.islice(source, min(2, batches)))
        result = passes.dataset(name, numbered, partial(_note_time, ticks))
        if not result.rows:
            raise UserError(f"Dataset {name!r} has no batches.")
        sampled.first_seconds += ticks[1] - ticks[0]
        sampled.seconds += ticks[-1] - ticks[-2]
        if not result.touched:
            sampled.untouched += (name,)
            continue
        sampled.bytes += (passes.store.bytes_in_memory - before) // len(result.rows)
        sampled.rows += result.rows
        sampled.datasets += [name] * len(result.rows)
    if not sampled.rows:
        raise UserError(
            "Nothing to measure: not touching the selected parameters, because no gradient reaches them: "
            f"{', '.join(sampled.untouched)}."
        )
    return sampled


def _note_time(ticks: list[float]) -> None:
    ticks.append(time.perf_counter())


def _time_products(
    parts: Sequence[Part],
    sampled: Sequence[Row],
    rows: int,
    store: Store,
    buffer_bytes: int,
    geometries: int,
    fold: ScoreFold | None,
) -> float:
    """Seconds for the products of all parts: one chunk of each kind of part is timed, at full size."""
    repeated = list(itertools.islice(itertools.cycle(sampled), rows))
    total = GramAccumulator(rows)
    seconds, measured = 0.0, {}
    for number, part in sorted(enumerate(parts), key=lambda each: -each[1].size):
        kind = (bool(part.owners), part.dtype)
        if kind not in measured:
            measured[kind] = _seconds_per_column(part, number, repeated, store, buffer_bytes, geometries, fold, total)
        seconds += measured[kind] * part.size
    return seconds


def _seconds_per_column(
    part: Part,
    number: int,
    rows: Sequence[Row],
    store: Store,
    buffer_bytes: int,
    geometries: int,
    fold: ScoreFold | None,
    total: GramAccumulator,
) -> float:
    chunks: Iterator[tuple[int, torch.Tensor]] = gradient_chunks(
        part, [row.pieces[number] for row in rows], store, buffer_bytes
    )
    begin = time.perf_counter()
    first, gradients = next(chunks)
    for _ in range(geometries):
        total.add(gradients)
    if fold is not None:
        fold.add(part, first, gradients)
    return (time.perf_counter() - begin) / gradients.shape[1]


def _spread(datasets: Sequence[str], rows: int) -> list[str]:
    """Each dataset's name for its share of the rows."""
    names = list(dict.fromkeys(datasets))
    return [name for name in names for _ in range(rows // len(names))]


def _advice(
    spilled: int,
    disk: int,
    free: int | None,
    work: int,
    allowed: int | None,
    blocks: int,
    factor_dtype: torch.dtype | None,
) -> Iterator[str]:
    fewer = "fewer batches" if factor_dtype is not None else "factors in bfloat16 (half of them), fewer batches"
    if free is None and spilled > 0:
        yield f"the factors in memory; give a workspace to spill to, more memory, or {fewer}"
    if free is not None and disk > free:
        yield f"the disk; free some, name another folder, or {fewer}, or as the last resort a sketch"
    if allowed is not None and work > allowed:
        merge = "merge blocks by pattern, or " if blocks > 1 else ""
        yield f"the Gram matrices in memory; {merge}fewer batches"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
