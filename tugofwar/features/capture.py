"""What goes into a module and what comes out of it, one row per image (or other row of its batches).

Plain forward hooks, for any model: ``before`` is the module's first floating-point tensor input of two or three
dimensions, ``after`` its first such output, whether it stands in a tuple, a mapping (transformers' ``ModelOutput``) or
a dataclass. Both are averaged over tokens: ``(batch, tokens, width)`` becomes ``(batch, width)``, and
``(batch, width)`` stays. Where the batch has an ``attention_mask`` of the same ``(batch, tokens)``, only the tokens
that it keeps count. The tokens of several calls in one forward pass count as those of one longer sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from tugofwar.errors import UserError
from tugofwar.naming import closest, matches
from tugofwar.probing import move_to
from tugofwar.restoring import probing_state

BEFORE, AFTER = "before", "after"
STAGES = (BEFORE, AFTER)
Forward = Callable[[nn.Module, Any], Any]

_ROUNDING = 1e-6
"""Part of the largest feature that samples may differ by when they are the same but for float32 and their batches."""


@dataclass(frozen=True, eq=False)
class Features:
    """Pooled features of a module's input and output.

    Attributes:
        module: its dotted name.
        stages: ``before`` and ``after`` -> (samples, width) float32.
        datasets: dataset of every sample; samples of one dataset follow each other.
        untouched: datasets none of whose batches reached the module.
        calls: the most calls of the module in one forward pass.
    """

    module: str
    stages: Mapping[str, NDArray[np.float32]]
    datasets: tuple[str, ...]
    untouched: tuple[str, ...]
    calls: int


def capture_features(
    model: nn.Module,
    datasets: Mapping[str, Iterable[Any]],
    module: str,
    samples: int,
    forward: Forward | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Features:
    """Pass batches through a model and keep what a module got and gave.

    The model is in evaluation mode meanwhile and comes back as it was.

    Args:
        model: any module.
        datasets: name -> batches, each of that dataset only.
        module: glob or name of one module (a dotted suffix is enough).
        samples: rows to keep per dataset, the first ones. No more than this many batches are passed, so that a dataset
            that never reaches the module comes to an end.
        forward: ``forward(model, batch)``, whatever it returns; None for ``model(**batch)``.
        seed: of the random generators during the passes.
        progress: show a bar on stderr.

    Raises:
        UserError: a glob that matches no module or several, inputs or outputs of another form, features that are not
            finite, or a module that no dataset reaches.
    """
    name, chosen = find_module(model, module)
    run = forward or default_forward
    device = next((each.device for each in model.parameters()), torch.device("cpu"))
    kept: dict[str, _Rows] = {dataset: _Rows(f"{name} on dataset {dataset}") for dataset in datasets}
    with (
        probing_state(model, None, seed),
        torch.no_grad(),
        _listening(chosen) as calls,
        tqdm(total=samples * len(datasets), unit="sample", disable=not progress, desc="features") as bar,
    ):
        for dataset, batches in datasets.items():
            for batch in islice(batches, samples):
                calls.clear()
                run(model, move_to(batch, device))
                bar.update(kept[dataset].add(calls, batch, samples))
                if kept[dataset].count >= samples:
                    break
            bar.update(samples - kept[dataset].count)
    touched = [dataset for dataset, rows in kept.items() if rows.count]
    if not touched:
        raise UserError(f"No batch of {', '.join(datasets)} reaches the module {name}, so it has no features.")
    return Features(
        name,
        {stage: _joined({dataset: kept[dataset].features(stage) for dataset in touched}) for stage in STAGES},
        tuple(dataset for dataset in touched for _ in range(kept[dataset].count)),
        tuple(dataset for dataset in datasets if dataset not in touched),
        max(rows.calls for rows in kept.values()),
    )


def require_comparable(features: Features, fewest: int) -> None:
    """Raise a UserError for too few samples, or for samples that do not differ."""
    samples = len(features.datasets)
    if samples < fewest:
        raise UserError(
            f"There are features of {counted(samples)} only at the module {features.module}; at least {fewest} are "
            "needed to say anything about their arrangement, so take more samples or datasets."
        )
    for stage, rows in features.stages.items():
        spread = np.abs(rows - rows.mean(axis=0, dtype=np.float64)).max()
        if spread <= _ROUNDING * np.abs(rows).max():
            raise UserError(
                f"All {samples} samples have the same features {stage} the module {features.module}, so there is "
                "nothing to compare."
            )


def counted(samples: int) -> str:
    """``1 sample``, ``2 samples``."""
    return f"{samples} sample{'' if samples == 1 else 's'}"


def find_module(model: nn.Module, pattern: str) -> tuple[str, nn.Module]:
    """The one module whose dotted name, or a dotted suffix of it, matches a glob.

    Raises:
        UserError: none or several match; it names the closest, or those.
    """
    modules = {name: each for name, each in model.named_modules() if name}
    found = [name for name in modules if matches(name, pattern)]
    if not found:
        raise UserError(f"--module {pattern!r} matches no module of the model; {closest(pattern, modules)}.")
    if len(found) > 1:
        shown = ", ".join(found[:5]) + (", …" if len(found) > 5 else "")
        raise UserError(f"--module {pattern!r} matches {len(found)} modules ({shown}); name one of them.")
    return found[0], modules[found[0]]


def default_forward(model: nn.Module, batch: Any) -> Any:
    """``model(**batch)``.

    Raises:
        UserError: a batch that is no mapping.
    """
    if not isinstance(batch, Mapping):
        raise UserError(
            f"The default forward pass is model(**batch), but a batch is a {type(batch).__name__}; let the set-up "
            "return a loss, a function of (model, batch)."
        )
    return model(**batch)


@contextmanager
def _listening(module: nn.Module) -> Iterator[list[tuple[Any, Any]]]:
    """Inside, every call of a module adds its inputs and its output to the list."""
    calls: list[tuple[Any, Any]] = []

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        calls.append(((args, kwargs), output))

    handle = module.register_forward_hook(hook, with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()


def _joined(parts: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    first = next(iter(parts))
    for dataset, rows in parts.items():
        if rows.shape[1] != parts[first].shape[1]:
            raise UserError(
                f"The features of dataset {dataset} have {rows.shape[1]} numbers, those of dataset {first} "
                f"{parts[first].shape[1]}; one width is needed."
            )
    return np.concatenate(list(parts.values()))


class _Rows:
    """Pooled rows of one dataset.

    Args:
        where: the module and the dataset, for error messages.
    """

    def __init__(self, where: str) -> None:
        self.where, self.count, self.calls = where, 0, 0
        self.parts: dict[str, list[NDArray[np.float32]]] = {stage: [] for stage in STAGES}

    def add(self, calls: Sequence[tuple[Any, Any]], batch: Any, wanted: int) -> int:
        """Pool the calls of one forward pass; the number of rows that they add, up to ``wanted`` in all."""
        if not calls:
            return 0
        self.calls = max(self.calls, len(calls))
        rows: dict[str, NDArray[np.float32]] = {}
        for place, stage in enumerate(STAGES):
            what = "input" if stage == BEFORE else "output"
            tensors = [_first_tensor(call[place], f"{what} of {self.where}") for call in calls]
            rows[stage] = self._finite(_pooled(tensors, _mask(batch), f"{what} of {self.where}"), stage)
            self._check_width(rows[stage], stage)
        if len(rows[BEFORE]) != len(rows[AFTER]):
            raise UserError(
                f"{self.where} takes {len(rows[BEFORE])} rows and gives {len(rows[AFTER])}; features are compared row "
                "by row, so choose a module that keeps the batch."
            )
        added = min(len(rows[BEFORE]), wanted - self.count)
        for stage, pooled in rows.items():
            self.parts[stage].append(pooled[:added])
        self.count += added
        return added

    def features(self, stage: str) -> NDArray[np.float32]:
        """All rows of a stage."""
        return np.concatenate(self.parts[stage])

    def _finite(self, pooled: Tensor, stage: str) -> NDArray[np.float32]:
        array: NDArray[np.float32] = pooled.float().cpu().numpy()
        if not np.isfinite(array).all():
            raise UserError(f"The features {stage} {self.where} hold NaN or infinite values; nothing can be compared.")
        return array

    def _check_width(self, pooled: NDArray[np.float32], stage: str) -> None:
        before = self.parts[stage]
        if before and before[0].shape[1] != pooled.shape[1]:
            raise UserError(
                f"The features {stage} {self.where} have {before[0].shape[1]} numbers in one batch and "
                f"{pooled.shape[1]} in another; one width is needed."
            )


def _mask(batch: Any) -> Tensor | None:
    mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
    return mask if isinstance(mask, Tensor) and mask.ndim == 2 else None


def _first_tensor(value: Any, where: str) -> Tensor:
    """The first floating-point tensor of at least two dimensions in nested arguments or outputs.

    Raises:
        UserError: there is none, or it has over three dimensions.
    """
    found = next((each for each in _tensors(value) if each.is_floating_point() and each.ndim > 1), None)
    if found is None or found.ndim > 3:
        has = "no such tensor" if found is None else f"the shape {tuple(found.shape)}"
        raise UserError(f"The {where} has {has}; features are tensors of (batch, tokens, width) or (batch, width).")
    return found


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _tensors(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from _tensors(getattr(value, field.name))


def _pooled(tensors: Sequence[Tensor], mask: Tensor | None, where: str) -> Tensor:
    """The mean over the tokens of all calls, (batch, width).

    Raises:
        UserError: calls with different numbers of rows or widths, or a row without tokens.
    """
    shapes = {(len(each), each.shape[-1]) for each in tensors}
    if len(shapes) > 1:
        listed = " and ".join(f"{rows} rows of width {width}" for rows, width in sorted(shapes))
        raise UserError(f"The {where} changes between the calls of one forward pass ({listed}); choose another module.")
    total, tokens = torch.zeros(()), torch.zeros(())
    for each in tensors:
        sequence = each.float() if each.ndim == 3 else each.float()[:, None]
        real = torch.ones(sequence.shape[:2])
        if each.ndim == 3 and mask is not None and mask.shape == each.shape[:2]:
            real = (mask != 0).float()
        real = real.to(sequence.device)
        # padding may hold anything, NaN too
        total = total.to(sequence.device) + torch.where(real[..., None] > 0, sequence, 0).sum(1)
        tokens = tokens.to(sequence.device) + real.sum(1)
    if (tokens == 0).any():
        raise UserError(f"The {where} has a row without a token that the attention_mask keeps, so it has no mean.")
    return total / tokens[:, None]
