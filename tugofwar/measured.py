"""The real loss change that equation 1 approximates: steps are taken, losses measured, parameters put back."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from tugofwar.errors import UserError
from tugofwar.functional import map_tensors
from tugofwar.probing import Loss, default_loss
from tugofwar.recorder import record
from tugofwar.restoring import probing_state
from tugofwar.selection import select_parameters

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class MeasuredInterference:
    """What steps along one dataset's gradients really do to another dataset's loss.

    Tables have the dataset whose loss is read in the row and the dataset along whose gradients the
    steps go in the column, as GD has; positive where the loss falls; in units of the loss.

    Attributes:
        step: length of every step, in units of the parameters.
        batches: batches of each dataset.
        measured: mean over pairs of batches of ``L_a(theta) - L_a(theta - step g_b / |g_b|)``.
        predicted: mean over the same pairs of ``step <g_a, g_b> / |g_b|`` (eq. 1).
        measured_error: standard error of ``measured``, from the spread over batches.
        predicted_error: standard error of ``predicted``.
        relative_error: mean ``|measured - predicted|`` of single pairs over mean ``|predicted|``: 0 where
            first order holds exactly, infinite where it predicts no change at all and there is one.
        untouched: datasets without a gradient on the selected parameters; they are left out.
    """

    step: float
    batches: int
    measured: pd.DataFrame
    predicted: pd.DataFrame
    measured_error: pd.DataFrame
    predicted_error: pd.DataFrame
    relative_error: pd.DataFrame
    untouched: tuple[str, ...]


@overload
def measured_interference(
    model: nn.Module,
    datasets: Mapping[str, Iterable[Any]],
    parameters: str | Sequence[str] | Callable[[str, nn.Parameter], bool] = ...,
    step: float = ...,
    batches: int = ...,
    loss: Loss | None = ...,
    seed: int = ...,
    progress: bool = ...,
) -> MeasuredInterference: ...


@overload
def measured_interference(
    model: nn.Module,
    datasets: Mapping[str, Iterable[Any]],
    parameters: str | Sequence[str] | Callable[[str, nn.Parameter], bool] = ...,
    *,
    step: Sequence[float],
    batches: int = ...,
    loss: Loss | None = ...,
    seed: int = ...,
    progress: bool = ...,
) -> list[MeasuredInterference]: ...


def measured_interference(
    model: nn.Module,
    datasets: Mapping[str, Iterable[Any]],
    parameters: str | Sequence[str] | Callable[[str, nn.Parameter], bool] = "connector.*",
    step: float | Sequence[float] = 0.01,
    batches: int = 8,
    loss: Loss | None = None,
    seed: int = 0,
    progress: bool = True,
) -> MeasuredInterference | list[MeasuredInterference]:
    """Loss of dataset ``i`` before and after steps along single batches' unit gradients of dataset ``j`` (eq. 1).

    For every pair of a batch ``a`` of ``i`` and a batch ``b`` of ``j``, but ``a = b``: the selected parameters
    move from ``theta`` to ``theta - step g_b / |g_b|``, the loss of ``a`` is read, the parameters are put back
    bit for bit (also after an exception). Equation 1's prediction for the same pairs stands beside it. A batch
    with a zero gradient takes no step.

    With ``n = datasets x batches`` this costs ``n`` backward passes, ``n`` steps and ``n^2`` forward passes for
    every step length, besides one ``record``; all batches are held in memory. Too small a step drowns in
    rounding: a float32 loss near 1 is known to about 1e-7.

    Args:
        model: the model to probe; in evaluation mode meanwhile.
        datasets: name to an iterable of batches, as ``record`` takes them.
        parameters: chosen by the rules of ``record``.
        step: length of the steps, or several lengths, to see how far first order holds.
        batches: batches per dataset, at least 2.
        loss: ``loss(model, batch)``, a scalar; by default ``model(**batch).loss``.
        seed: seeds the random generators.
        progress: show progress bars on stderr.

    Returns:
        One result, or for several lengths a list of results in their order.

    Raises:
        UserError: a step that is not positive and finite, fewer than 2 batches, a loss that a step drives
            to infinity, and what ``record`` raises.
    """
    lengths = [float(length) for length in (step if isinstance(step, Sequence) else [step])]
    if not lengths or not all(0 < length < math.inf for length in lengths):
        raise UserError(f"`step` is the length of a step, positive and finite, or a list of such; got {step!r}.")
    if batches < 2:
        raise UserError(f"`batches` has to be at least 2, because no batch is paired with itself; got {batches}.")
    selected = select_parameters(model, parameters)
    held = _hold(model, datasets, batches, selected, seed)
    recording = record(model, held, parameters, batches, loss, seed, progress)
    rows = [(name, batch) for name in recording.rows for batch in held[name]]
    probe = _Probe(model, selected, loss or default_loss)
    with probing_state(model, set(selected.values()), seed):
        changes = probe.changes(rows, lengths, progress)
    norms = np.sqrt(np.diagonal(recording.gram))
    slopes = np.divide(recording.gram, norms, out=np.zeros_like(recording.gram), where=norms > 0)
    results = [
        _result(length, batches, change, length * slopes, recording.rows, recording.untouched)
        for length, change in zip(lengths, changes, strict=True)
    ]
    return results if isinstance(step, Sequence) else results[0]


def _hold(
    model: nn.Module,
    datasets: Mapping[str, Iterable[Any]],
    batches: int,
    selected: Mapping[str, nn.Parameter],
    seed: int,
) -> dict[str, list[Any]]:
    """The batches themselves, so that every one can be passed again; copies, for a loader may refill its tensors."""
    with probing_state(model, set(selected.values()), seed):
        return {
            name: [map_tensors(batch, torch.clone) for batch in itertools.islice(source, batches)]
            for name, source in datasets.items()
        }


class _Probe:
    """Moves the selected parameters and reads losses."""

    def __init__(self, model: nn.Module, selected: Mapping[str, nn.Parameter], loss: Loss) -> None:
        self.model = model
        self.parameters = list(selected.values())
        self.loss = loss
        self.device = self.parameters[0].device

    def changes(self, rows: Sequence[tuple[str, Any]], lengths: Sequence[float], progress: bool) -> Array:
        """``L_a(theta) - L_a(theta - length g_b / |g_b|)`` as ``(lengths, n, n)``, row ``a``, column ``b``."""
        losses = np.array([self._value(batch, f"a batch of {name!r}") for name, batch in rows])
        changes = np.zeros((len(lengths), len(rows), len(rows)))
        with tqdm(total=len(lengths) * len(rows), desc="steps", unit="step", disable=not progress) as bar:
            for column, (stepping, batch) in enumerate(rows):
                gradients = self._gradients(batch)
                norm = math.sqrt(sum(float(gradient.double().square().sum()) for gradient in gradients))
                for number, length in enumerate(lengths):
                    bar.update()
                    if norm == 0:
                        continue
                    with self._moved(gradients, length / norm):
                        for row, (name, other) in enumerate(rows):
                            where = f"a batch of {name!r} after a step of length {length:g} along one of {stepping!r}"
                            changes[number, row, column] = losses[row] - self._value(other, where)
        return changes

    def _gradients(self, batch: Any) -> list[Tensor]:
        value = self.loss(self.model, self._on_device(batch))
        if not value.requires_grad:
            return [torch.zeros_like(parameter) for parameter in self.parameters]
        gradients = torch.autograd.grad(value, self.parameters, allow_unused=True, materialize_grads=True)
        return [gradient.to_dense() if gradient.is_sparse else gradient for gradient in gradients]

    def _value(self, batch: Any, where: str) -> float:
        # Not under no_grad: a loss may itself take a gradient with respect to its inputs.
        for parameter in self.parameters:
            parameter.requires_grad_(False)
        try:
            value = float(self.loss(self.model, self._on_device(batch)).detach())
        finally:
            for parameter in self.parameters:
                parameter.requires_grad_(True)
        if not math.isfinite(value):
            raise UserError(f"The loss of {where} is {value}; take shorter steps.")
        return value

    @contextmanager
    def _moved(self, gradients: Sequence[Tensor], factor: float) -> Iterator[None]:
        """Inside: the parameters less ``factor`` times the gradients. Afterwards: their own bits."""
        before = [parameter.detach().clone() for parameter in self.parameters]
        try:
            with torch.no_grad():
                for parameter, gradient in zip(self.parameters, gradients, strict=True):
                    parameter.copy_(parameter.double() - factor * gradient.double())
            yield
        finally:
            with torch.no_grad():
                for parameter, kept in zip(self.parameters, before, strict=True):
                    parameter.copy_(kept)

    def _on_device(self, batch: Any) -> Any:
        return map_tensors(batch, lambda tensor: tensor.to(self.device))


def _result(
    step: float,
    batches: int,
    measured: Array,
    predicted: Array,
    rows: Mapping[str, Sequence[int]],
    untouched: tuple[str, ...],
) -> MeasuredInterference:
    cells = {
        (i, j): _Cell.of(measured[np.ix_(rows[i], rows[j])], predicted[np.ix_(rows[i], rows[j])], i == j)
        for i in rows
        for j in rows
    }

    def table(attribute: str) -> pd.DataFrame:
        values = [[getattr(cells[i, j], attribute) for j in rows] for i in rows]
        return pd.DataFrame(values, index=list(rows), columns=list(rows))

    return MeasuredInterference(
        step,
        batches,
        table("measured"),
        table("predicted"),
        table("measured_error"),
        table("predicted_error"),
        table("relative_error"),
        untouched,
    )


@dataclass(frozen=True)
class _Cell:
    """Means over the pairs of two datasets' batches."""

    measured: float
    predicted: float
    measured_error: float
    predicted_error: float
    relative_error: float

    @classmethod
    def of(cls, measured: Array, predicted: Array, same: bool) -> "_Cell":
        pairs = ~np.eye(len(measured), dtype=bool) if same else np.ones_like(measured, dtype=bool)
        difference = abs(measured - predicted)[pairs].mean()
        scale = abs(predicted)[pairs].mean()
        unforeseen = math.inf if difference > 0 else 0.0
        return cls(
            float(measured[pairs].mean()),
            float(predicted[pairs].mean()),
            _standard_error(measured, pairs, same),
            _standard_error(predicted, pairs, same),
            float(difference / scale) if scale > 0 else unforeseen,
        )


def _standard_error(values: Array, pairs: NDArray[np.bool_], same: bool) -> float:
    """Of a mean over pairs, which is not a mean of independent numbers: every batch is in many pairs.

    The spread of each batch's own mean over its pairs is what counts (Hoeffding's first-order term of a
    two-sample, or for one dataset a one-sample, U-statistic).
    """
    by_row = np.where(pairs, values, 0).sum(1) / pairs.sum(1)
    by_column = np.where(pairs, values, 0).sum(0) / pairs.sum(0)
    if same:
        return float(np.sqrt((by_row + by_column).var(ddof=1) / len(by_row)))
    return float(np.sqrt(by_row.var(ddof=1) / len(by_row) + by_column.var(ddof=1) / len(by_column)))
