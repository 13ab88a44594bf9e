"""Gradients by torch.func: slow, plain, and independent of how ``record`` comes by them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from tugofwar.errors import UserError
from tugofwar.probing import Loss, default_loss
from tugofwar.restoring import probing_state
from tugofwar.selection import select_parameters


def functional_gradients(
    model: nn.Module,
    batches: Iterable[Any],
    parameters: str | Sequence[str] | Callable[[str, nn.Parameter], bool] = "connector.*",
    loss: Loss | None = None,
    per_sample: bool = False,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Gradient of the loss with respect to the selected parameters, one row per batch or per sample.

    The parameters are replaced by arguments of a function (``torch.func.functional_call``) that
    ``torch.func.grad`` differentiates; nothing is hooked and no ``.grad`` is written. Tied weights are one
    argument and get the sum of what reaches them; hooks on the parameters themselves do not fire. Every row is
    held in memory. The model is in evaluation mode meanwhile and afterwards as it was, as in ``record``.

    What torch.func cannot differentiate raises torch's own error: reentrant checkpoints, an
    ``autograd.Function`` without ``setup_context``, a loss that calls ``backward()`` or ``torch.autograd.grad``.

    Args:
        model: the model to probe; batches are moved to its device.
        batches: the batches, in a list even when there is just one.
        parameters: chosen by the rules of ``record``.
        loss: ``loss(model, batch)``, a scalar; by default ``model(**batch).loss``. The model that it gets is
            ``model`` itself while its parameters are replaced, so its modules and attributes can be used.
        per_sample: one row per sample, each as a batch of one, vectorised by ``torch.func.vmap``. All tensors
            of a batch then have the samples along their first axis.
        seed: seeds the random generators during the passes.

    Returns:
        Full dotted name to ``(batches, *shape)``, or ``(samples of all batches, *shape)``, in the parameter's
        dtype and on its device; zero where the loss does not reach the parameter. In units of loss per unit
        of parameter.

    Raises:
        UserError: nothing selected, no batches, a loss that is not a finite scalar, a gradient that is not
            finite, or per sample: tensors of different first size, or a model that cannot be vectorised.
    """
    if isinstance(batches, Mapping | Tensor):
        raise UserError(f"`batches` is one {type(batches).__name__}, not a list of batches; put it into a list.")
    selected = select_parameters(model, parameters)
    arguments = {name: parameter.detach() for name, parameter in selected.items()}
    differentiate = grad_and_value(_loss_function(model, selected, loss or default_loss))
    device = next(iter(selected.values())).device
    rows: dict[str, list[Tensor]] = {name: [] for name in selected}
    with probing_state(model, set(selected.values()), seed):
        for number, batch in enumerate(batches, start=1):
            moved = map_tensors(batch, lambda tensor: tensor.to(device))
            if per_sample:
                gradients, value = _vectorised(differentiate, arguments, moved, f"batch {number}")
            else:
                gradients, value = differentiate(arguments, moved)
            _check_finite(f"batch {number}", value, gradients)
            for name, members in rows.items():
                dense = gradients[name].to_dense() if gradients[name].is_sparse else gradients[name]
                members.append(dense if per_sample else dense.unsqueeze(0))
    if not any(rows.values()):
        raise UserError("There are no batches to differentiate; `batches` is empty.")
    return {name: torch.cat(members) for name, members in rows.items()}


class _WithLoss(nn.Module):
    """A module whose output is the loss, so that ``functional_call`` also reaches what a loss does with the model."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model = model
        # In a tuple: a loss that is a module would become a part of this one.
        self._loss = (loss,)

    def forward(self, batch: Any) -> Tensor:
        value = self._loss[0](self.model, batch)
        if not isinstance(value, Tensor) or value.numel() != 1:
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise UserError(f"The loss is not a scalar tensor but {got}; return the mean loss of the batch.")
        return value.reshape(())


def _loss_function(
    model: nn.Module, selected: Mapping[str, nn.Parameter], loss: Loss
) -> Callable[[dict[str, Tensor], Any], Tensor]:
    """The loss as a function of ``(arguments by name, batch)``."""
    with_loss = _WithLoss(model, loss)
    places = _places(with_loss, selected)

    def value(arguments: dict[str, Tensor], batch: Any) -> Tensor:
        replaced = {place: arguments[name] for place, name in places.items()}
        return functional_call(with_loss, replaced, (batch,), tie_weights=False)

    return value


def _places(root: nn.Module, selected: Mapping[str, nn.Parameter]) -> dict[str, str]:
    """Every attribute that holds a selected parameter, once, to the parameter's name.

    ``functional_call`` finds ties by itself, but where one module instance has several names it replaces one attribute
    several times and then puts the wrong tensor back.
    """
    names = {parameter: name for name, parameter in selected.items()}
    return {
        f"{path}.{attribute}": names[parameter]
        for path, module in root.named_modules()
        for attribute, parameter in module.named_parameters(recurse=False, remove_duplicate=False)
        if parameter in names
    }


def _vectorised(
    differentiate: Callable[..., Any], arguments: dict[str, Tensor], batch: Any, where: str
) -> tuple[dict[str, Tensor], Tensor]:
    device = next(iter(arguments.values())).device
    samples = torch.arange(_sample_count(batch, where), device=device)

    def of_sample(sample: Tensor) -> Any:
        alone = map_tensors(batch, lambda tensor: tensor.index_select(0, sample.reshape(1)))
        return differentiate(arguments, alone)

    try:
        return vmap(of_sample)(samples)
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"torch.func.vmap cannot vectorise the model over the samples of {where} ({reason}); pass batches of one "
            "sample without per_sample."
        ) from error


def _sample_count(batch: Any, where: str) -> int:
    shapes: list[tuple[int, ...]] = []
    map_tensors(batch, lambda tensor: shapes.append(tuple(tensor.shape)))
    if not shapes or () in shapes or len({shape[0] for shape in shapes}) > 1:
        raise UserError(
            f"Per sample, all tensors of a batch have the samples along their first axis; those of {where} have the "
            f"shapes {', '.join(map(str, shapes)) or '(there are none)'}."
        )
    if shapes[0][0] == 0:
        raise UserError(f"There are no samples in {where}.")
    return shapes[0][0]


def map_tensors(batch: Any, function: Callable[[Tensor], Any]) -> Any:
    """``batch`` with every tensor in its (nested) mappings, lists and tuples replaced by ``function`` of it."""
    if isinstance(batch, Tensor):
        return function(batch)
    if isinstance(batch, Mapping):
        return {key: map_tensors(value, function) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        members = [map_tensors(value, function) for value in batch]
        return type(batch)(*members) if hasattr(batch, "_fields") else type(batch)(members)
    return batch


def _check_finite(where: str, value: Tensor, gradients: Mapping[str, Tensor]) -> None:
    if not torch.isfinite(value).all():
        raise UserError(f"The loss of {where} is not finite; a gradient needs a finite loss.")
    for name, gradient in gradients.items():
        values = gradient.coalesce().values() if gradient.is_sparse else gradient
        if not torch.isfinite(values).all():
            raise UserError(f"The gradient of {name} in {where} is not finite.")
