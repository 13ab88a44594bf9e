"""record(): batches in, Recording out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from tugofwar.engine.archive import Archive
from tugofwar.engine.assembly import Assembly, Products
from tugofwar.engine.budget import Budget
from tugofwar.engine.choice import describe
from tugofwar.engine.collecting import Collected, Collector, Datasets, check_length
from tugofwar.engine.fingerprint import loss_digest, model_digest
from tugofwar.engine.folds import ScoreFold
from tugofwar.engine.outputs import MeansFile, ScoresFile
from tugofwar.engine.parts import Part, split_into_parts
from tugofwar.engine.passes import Passes
from tugofwar.engine.processes import Processes
from tugofwar.engine.sketch import CountSketch
from tugofwar.engine.store import Store
from tugofwar.errors import UserError
from tugofwar.preconditioning import second_moments
from tugofwar.probing import Loss, default_loss
from tugofwar.recording import Block, Recording
from tugofwar.restoring import probing_state
from tugofwar.selection import group_into_blocks, select_parameters
from tugofwar.storage import Choice, strict_json

# What may differ between a run and the one that extends or resumes it.
_NOT_IN_FINGERPRINT = ("batches", "command")


def record(
    model: nn.Module,
    datasets: Datasets,
    parameters: str | Sequence[str] | Callable[[str, nn.Parameter], bool] = "connector.*",
    batches: int = 100,
    loss: Loss | None = None,
    seed: int = 0,
    progress: bool = True,
    metadata: Mapping[str, Any] | None = None,
    tasks: Mapping[str, str] | None = None,
    *,
    statistics: bool = True,
    preconditioner: torch.optim.Optimizer | Mapping[str, Tensor] | None = None,
    memory: int | str | None = None,
    workspace: str | Path | None = None,
    resume: bool = True,
    keep_factors: bool = False,
    keep_scores: bool = False,
    keep_means: bool = False,
    factor_dtype: torch.dtype | None = None,
    group_blocks: Sequence[str] = (),
    sketch: int | None = None,
) -> Recording:
    """Probe ``model`` with batches of every dataset and keep the inner products of their gradients (eq. 1).

    Gradients are not stored. A linear layer leaves its input ``X`` and the gradient ``D`` of its output; its weight's
    gradient ``D^T X`` is rebuilt a few rows at a time once all batches have passed. What is rebuilt
    is compared with autograd's own gradient on the first batch of every dataset; a weight for which
    they differ keeps dense gradients instead, with a warning. ``Recording.report()`` says what was chosen.

    The model is in evaluation mode while it is probed (dropout off); its modes, hooks, ``requires_grad``,
    ``.grad`` and the random generators are afterwards as they were, also after an exception.

    Under ``torchrun`` or ``accelerate launch``, with ``torch.distributed`` initialised, the processes share the
    batches and the products; every process calls this with the same arguments and gets the same Recording.

    Args:
        model: the model to probe; batches are moved to its device.
        datasets: name to an iterable of batches, each batch of that dataset only.
        parameters: a glob, a list of globs or exact names, or a predicate on ``(name, parameter)``; see
            ``selection.select_parameters``.
        batches: batches per dataset, taken from the start of each iterable.
        loss: ``loss(model, batch)``, a scalar; by default ``model(**batch).loss``.
        seed: seeds the generators before each dataset, so that an iterable that shuffles is repeatable (unless it has
            a generator of its own).
        progress: show progress bars on stderr.
        metadata: JSON values to keep in the manifest.
        tasks: task of each dataset, for grouping later.
        statistics: also count statistics scores (eq. 5).
        preconditioner: an Adam optimizer that has stepped, or second moments by parameter name: the products of
            gradients divided by ``sqrt(v) + eps`` are recorded beside the plain ones, as geometry ``adam``.
        memory: bytes that this may hold besides the model, such as ``"8GB"``; by default most of what is free.
            Factors beyond it spill to ``workspace``.
        workspace: folder for spilled factors and for what is kept; needed for ``keep_*`` and for resuming.
        resume: write the factors of every dataset to ``workspace`` as it finishes; a later call with the
            same model, loss and settings passes only what is missing. Asking for more ``batches`` extends. Without
            it what an earlier call left is neither used nor, unless ``keep_factors`` replaces it, changed.
        keep_factors: leave the factors in ``workspace/factors`` when all is done; a call without it removes them.
        keep_scores: write every parameter's statistics score to ``workspace/scores.safetensors`` (float16).
        keep_means: write every dataset's mean gradient to ``workspace/means.safetensors`` (float32).
        factor_dtype: precision to store factors in; by default the one that they come in.
        group_blocks: globs; blocks that one of them matches become a single block.
        sketch: hash each part's gradient to this many numbers; inexact, for when nothing else fits.

    Raises:
        UserError: nothing selected, a dataset with fewer batches, a loss that is not a finite scalar or
            differs when computed twice, a gradient that is not finite, too little memory or disk, or no
            dataset that reaches the selected parameters.
    """
    _check(datasets, batches, seed, metadata, factor_dtype)
    _check_kept(workspace, keep_factors, keep_means or keep_scores, statistics, sketch, preconditioner is not None)
    selected = select_parameters(model, parameters)
    blocks = group_into_blocks(selected, group_blocks)
    parts = split_into_parts(model, blocks)
    scales = {"adam": second_moments(preconditioner, selected)} if preconditioner is not None else {}
    sketcher = CountSketch(parts, sketch, seed) if sketch is not None else None
    for name, source in datasets.items():
        check_length(name, source, batches)
    processes = Processes()
    budget = Budget.of(memory)
    folder = Path(workspace) if workspace is not None else None
    archive = Archive(folder / "factors", *processes.share) if folder and (resume or keep_factors) else None
    if archive is not None:
        settings = (seed, factor_dtype, sketch, processes.world)
        archive.open(_fingerprint(model, parts, loss or default_loss, settings, metadata), processes, not resume)
    shown = progress and processes.is_first
    with Store(budget.factors, archive.folder if archive else folder, archive is not None) as store:
        passes = Passes(model, parts, loss or default_loss, store, factor_dtype, sketcher)
        with probing_state(model, None, seed), _bar("gradients", "batch", shown, len(datasets) * batches) as bar:
            collected = Collector(passes, processes, archive, seed).collect(datasets, batches, bar)
        with _outputs(folder, parts, collected.datasets, tasks, processes, keep_means, keep_scores) as writers:
            folds = []
            if statistics and sketch is None:
                folds = [ScoreFold(parts, collected.datasets, tasks or {}, seed, budget.sample, processes, writers)]
            assembly = Assembly(parts, store, processes, budget.buffer, scales, folds)
            with _bar("products", "part", shown, len(parts)) as bar:
                products = assembly.run(collected.rows, collected.owners, bar.update)
    if archive is not None and not keep_factors:
        archive.remove(processes)
    described = dict(metadata or {})
    if sketcher is not None:
        described["sketch"] = {"dimension": sketch, "expected_error": sketcher.expected_error}
    return Recording(
        blocks=tuple(Block(block.name, {n: p.numel() for n, p in block.parameters.items()}) for block in blocks),
        upper_triangles=products.triangles,
        datasets=collected.datasets,
        losses=np.array([row.loss for row in collected.rows]),
        untouched=collected.untouched,
        tasks={name: task for name, task in (tasks or {}).items() if name in datasets},
        metadata=described,
        geometries=products.scaled,
        statistics=folds[0].result() if folds else None,
        choices=_choices(parts, collected, products),
    )


def _check(
    datasets: Datasets,
    batches: int,
    seed: int,
    metadata: Mapping[str, Any] | None,
    factor_dtype: torch.dtype | None,
) -> None:
    if not isinstance(batches, Integral) or batches < 1:
        raise UserError(f"`batches` is the number of batches per dataset, at least 1; got {batches}.")
    if seed < 0:
        raise UserError(f"`seed` is a whole number from 0; got {seed}.")
    if not datasets:
        raise UserError("There are no datasets to record; give a mapping of names to iterables of batches.")
    if factor_dtype is not None and not factor_dtype.is_floating_point:
        raise UserError(f"`factor_dtype` is a precision such as torch.bfloat16; got {factor_dtype}.")
    strict_json(dict(metadata or {}))


def _check_kept(
    workspace: str | Path | None, factors: bool, files: bool, statistics: bool, sketch: int | None, scaled: bool
) -> None:
    if (factors or files) and workspace is None:
        raise UserError("keep_factors, keep_scores and keep_means need `workspace`, the folder to keep them in.")
    if files and not statistics:
        raise UserError("keep_scores and keep_means are written with the statistics; do not set statistics=False.")
    if sketch is not None and (scaled or files):
        raise UserError("A sketch has no single parameters: no preconditioner, keep_scores or keep_means with it.")


def _bar(what: str, unit: str, shown: bool, total: int) -> "tqdm[Any]":
    return tqdm(desc=what, unit=unit, disable=not shown, total=total)


@contextmanager
def _outputs(
    folder: Path | None,
    parts: Sequence[Part],
    datasets: Sequence[str],
    tasks: Mapping[str, str] | None,
    processes: Processes,
    keep_means: bool,
    keep_scores: bool,
) -> Iterator[list[MeansFile | ScoresFile]]:
    """The files that take every chunk's means and scores; complete afterwards, or removed on an exception."""
    writers: list[MeansFile | ScoresFile] = []
    try:
        if folder is not None and keep_means:
            writers.append(MeansFile(folder, parts, datasets, processes))
        if folder is not None and keep_scores:
            levels = ["dataset", "task"] if tasks and set(datasets) <= set(tasks) else ["dataset"]
            writers.append(ScoresFile(folder, parts, levels, processes))
        yield writers
    except BaseException:
        for writer in writers:
            writer.file.discard()
        raise
    for writer in writers:
        writer.file.finish()


def _fingerprint(
    model: nn.Module,
    parts: Sequence[Part],
    loss: Loss,
    settings: Sequence[Any],
    metadata: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What factors of an earlier run must share with this one to be used again."""
    return {
        "model": model_digest(model),
        "parts": [[part.block, part.name, list(part.shape)] for part in parts],
        "loss": loss_digest(loss),
        "settings": [str(setting) for setting in settings],
        "metadata": {key: value for key, value in (metadata or {}).items() if key not in _NOT_IN_FINGERPRINT},
    }


def _choices(parts: Sequence[Part], collected: Collected, products: Products) -> tuple[Choice, ...]:
    choices = []
    for number, part in enumerate(parts):
        keepings = {name: each[number] for name, each in collected.keepings.items() if number in each}
        multiplied, operations = products.multiplied[number]
        choices.append(
            Choice(
                block=part.block,
                part=part.name,
                parameters=part.size,
                kept=" and ".join(sorted({keeping.kind for keeping in keepings.values()})) or "nothing",
                multiplied=multiplied,
                reason=describe(keepings, operations),
            )
        )
    return tuple(choices)
