"""record(): batches in, Recording out; one gradient per batch by plain autograd, kept as dense rows."""

import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from tugofwar.errors import UserError
from tugofwar.gram import gram_matrix
from tugofwar.recording import Block, Recording, upper_triangle
from tugofwar.restoring import probing_state
from tugofwar.selection import SelectedBlock, group_into_blocks, select_parameters
from tugofwar.storage import strict_json

Loss = Callable[[nn.Module, Any], Tensor]


def record(
    model: nn.Module,
    datasets: Mapping[str, Iterable[Any]],
    parameters: str | Sequence[str] | Callable[[str, nn.Parameter], bool] = "connector.*",
    batches: int = 100,
    loss: Loss | None = None,
    seed: int = 0,
    progress: bool = True,
    metadata: Mapping[str, Any] | None = None,
    tasks: Mapping[str, str] | None = None,
) -> Recording:
    """Probe ``model`` with batches of every dataset and keep the inner products of their gradients (eq. 1).

    The model is in evaluation mode while it is probed (dropout off); its modes, ``requires_grad``,
    ``.grad`` and the random generators are afterwards as they were, also after an exception. Every row of
    gradients is held in memory until the end: ``datasets x batches x parameters`` numbers in float32
    (float64 for float64 parameters).

    Args:
        model: the model to probe; batches are moved to its device.
        datasets: name to an iterable of batches, each batch of that dataset only.
        parameters: a glob, a list of globs or exact names, or a predicate on ``(name, parameter)``; see
            ``selection.select_parameters``.
        batches: batches per dataset, taken from the start of each iterable.
        loss: ``loss(model, batch)``, a scalar; by default ``model(**batch).loss``.
        seed: seeds the generators during the passes, so that an iterable that shuffles is repeatable.
        progress: show a progress bar on stderr.
        metadata: JSON values to keep in the manifest.
        tasks: task of each dataset, for grouping later.

    Raises:
        UserError: nothing selected, a dataset with fewer batches, a loss that is not a finite scalar or
            differs when computed twice, a gradient that is not finite, too little memory, or no dataset
            that reaches the selected parameters.
    """
    if batches < 1:
        raise UserError(f"`batches` is the number of batches per dataset, at least 1; got {batches}.")
    if not datasets:
        raise UserError("There are no datasets to record; give a mapping of names to iterables of batches.")
    strict_json(dict(metadata or {}))
    selected = select_parameters(model, parameters)
    blocks = group_into_blocks(selected)
    for name, source in datasets.items():
        _check_length(name, source, batches)
    probe = _Probe(model, blocks, loss or _default_loss, len(datasets) * batches, batches)
    rows: dict[str, list[_Row] | None] = {}
    with probing_state(model, set(selected.values()), seed), _progress(datasets, batches, progress) as bar:
        for name, source in datasets.items():
            bar.set_postfix_str(name)
            rows[name] = probe.dataset(name, source, bar)
    return _assemble(blocks, rows, dict(tasks or {}), dict(metadata or {}))


class _Row:
    """One batch: its loss and one flat gradient per block."""

    def __init__(self, loss: float, gradients: list[Tensor]) -> None:
        self.loss = loss
        self.gradients = gradients


class _Probe:
    """Runs batches through the model and flattens their gradients block by block."""

    def __init__(
        self, model: nn.Module, blocks: list[SelectedBlock], loss: Loss, rows_expected: int, batches: int
    ) -> None:
        self.model = model
        self.blocks = blocks
        self.loss = loss
        self.batches = batches
        self.device = next(model.parameters()).device
        self._rows_expected = rows_expected
        self._memory_checked = False

    def dataset(self, name: str, source: Iterable[Any], bar: "tqdm[Any]") -> list[_Row] | None:
        """Rows of one dataset, or None when none of its batches reaches a selected parameter."""
        rows: list[_Row | float] = []
        touched = False
        for number, batch in enumerate(itertools.islice(source, self.batches), start=1):
            where = f"batch {number} of dataset {name!r}"
            moved = move_to(batch, self.device)
            if number == 1:
                self._check_repeatable(moved, where)
            loss, gradients = self._gradients(moved, where)
            touched = touched or gradients is not None
            rows.append(loss if gradients is None else _Row(loss, gradients))
            bar.update()
        if len(rows) < self.batches:
            raise _too_few(name, len(rows), self.batches)
        if not touched:
            return None
        return [row if isinstance(row, _Row) else _Row(row, self._zeros()) for row in rows]

    def _gradients(self, batch: Any, where: str) -> tuple[float, list[Tensor] | None]:
        value = self._loss(batch, where)
        if not value.requires_grad:
            return float(value.detach()), None
        parameters = [p for block in self.blocks for p in block.parameters.values()]
        gradients = torch.autograd.grad(value, parameters, allow_unused=True)
        if all(gradient is None for gradient in gradients):
            return float(value.detach()), None
        if not self._memory_checked:
            self._check_memory()
        remaining = iter(gradients)
        return float(value.detach()), [self._flatten(block, remaining, where) for block in self.blocks]

    def _loss(self, batch: Any, where: str) -> Tensor:
        value = self.loss(self.model, batch)
        if not isinstance(value, Tensor) or value.numel() != 1:
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise UserError(f"The loss of {where} is not a scalar tensor but {got}; return the mean loss of the batch.")
        if not torch.isfinite(value).all():
            raise UserError(f"The loss of {where} is {float(value.detach())}; a gradient needs a finite loss.")
        return value.reshape(())

    def _flatten(self, block: SelectedBlock, gradients: Iterator[Tensor | None], where: str) -> Tensor:
        dtype = row_dtype(block)
        parts = []
        for name, parameter in block.parameters.items():
            gradient = next(gradients)
            if gradient is None:
                parts.append(torch.zeros(parameter.numel(), dtype=dtype))
                continue
            dense = gradient.to_dense() if gradient.is_sparse else gradient
            if not torch.isfinite(dense).all():
                raise UserError(f"The gradient of {name} in {where} is not finite.")
            parts.append(dense.detach().reshape(-1).to("cpu", dtype))
        return torch.cat(parts)

    def _zeros(self) -> list[Tensor]:
        return [torch.zeros(block.size, dtype=row_dtype(block)) for block in self.blocks]

    def _check_repeatable(self, batch: Any, where: str) -> None:
        with torch.no_grad():
            first, second = (float(self._loss(batch, where)) for _ in range(2))
        # Not equality: sums on a GPU differ in their last bits from run to run.
        if not math.isclose(first, second, rel_tol=1e-6):
            raise UserError(
                f"The loss of {where} is {first!r} and then {second!r} when computed twice: the "
                "model or the loss draws "
                "random numbers or keeps state even in evaluation mode, so its gradients would "
                "measure noise; switch "
                "that off."
            )

    def _check_memory(self) -> None:
        needed = self._rows_expected * sum(block.size * row_dtype(block).itemsize for block in self.blocks)
        available = available_memory()
        if available is not None and needed > available:
            raise UserError(
                f"The gradients of {self._rows_expected} batches need up to {needed:,} bytes of "
                f"memory and {available:,} "
                "are available; record fewer batches or select fewer parameters."
            )
        self._memory_checked = True


def row_dtype(block: SelectedBlock) -> torch.dtype:
    """Precision that a block's gradients are kept in: float64 if any parameter has it, else float32."""
    wide = any(parameter.dtype == torch.float64 for parameter in block.parameters.values())
    return torch.float64 if wide else torch.float32


def available_memory() -> int | None:
    """Bytes of memory that can be used without swapping; None where the system does not tell."""
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        if "MemAvailable" in fields:
            return int(fields["MemAvailable"].split()[0]) * 1024
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" in names and "SC_PAGE_SIZE" in names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def move_to(batch: Any, device: torch.device) -> Any:
    """``batch`` with every tensor in its (nested) mappings, lists and tuples on ``device``."""
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {key: move_to(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(move_to(value, device) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(move_to(value, device) for value in batch)
    return batch


def _default_loss(model: nn.Module, batch: Any) -> Tensor:
    if not isinstance(batch, Mapping):
        raise UserError(
            f"The default loss is model(**batch).loss, but a batch is a {type(batch).__name__}; "
            "pass loss=, a function of "
            "(model, batch)."
        )
    output = model(**batch)
    value = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    if value is None:
        raise UserError(
            "model(**batch) returned no loss; add labels to the batches, or pass loss=, a function of (model, batch)."
        )
    return value


def _progress(datasets: Mapping[str, Any], batches: int, shown: bool) -> "tqdm[Any]":
    return tqdm(total=len(datasets) * batches, desc="gradients", unit="batch", disable=not shown)


def _check_length(name: str, source: Iterable[Any], batches: int) -> None:
    if not isinstance(source, Sized):
        return
    try:
        length = len(source)
    except TypeError:
        # A DataLoader over a stream has __len__ but no length; its batches are counted as they come.
        return
    if length < batches:
        raise _too_few(name, length, batches)


def _too_few(name: str, found: int, wanted: int) -> UserError:
    return UserError(f"Dataset {name!r} has {found} batches but {wanted} are asked for; ask for at most {found}.")


def _assemble(
    blocks: list[SelectedBlock],
    rows: Mapping[str, list[_Row] | None],
    tasks: dict[str, str],
    metadata: dict[str, Any],
) -> Recording:
    untouched = tuple(name for name, members in rows.items() if members is None)
    flat = [(name, row) for name, members in rows.items() for row in members or ()]
    if not flat:
        raise UserError(
            f"Nothing to measure: not touching the selected parameters, because no gradient reaches them: "
            f"{', '.join(untouched)}."
        )
    triangles = {
        block.name: upper_triangle(gram_matrix([row.gradients[number] for _, row in flat]))
        for number, block in enumerate(blocks)
    }
    return Recording(
        blocks=tuple(Block(block.name, {n: p.numel() for n, p in block.parameters.items()}) for block in blocks),
        upper_triangles=triangles,
        datasets=[name for name, _ in flat],
        losses=np.array([row.loss for _, row in flat]),
        untouched=untouched,
        tasks={name: task for name, task in tasks.items() if name in rows},
        metadata=metadata,
    )
