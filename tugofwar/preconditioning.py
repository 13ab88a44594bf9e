"""The geometry of Adam's update: what every gradient is multiplied by before any inner product is taken."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tugofwar.errors import UserError
from tugofwar.naming import closest


class SecondMoment(NamedTuple):
    """Bias-corrected second moments of one parameter, of its shape, and the ``eps`` that is added to their root."""

    value: Tensor
    eps: float = 1e-8


def second_moments(
    source: torch.optim.Optimizer | Mapping[str, Tensor] | Mapping[str, SecondMoment],
    selected: Mapping[str, nn.Parameter],
) -> dict[str, Tensor]:
    """``1 / (sqrt(v_hat) + eps)`` of every selected parameter, elementwise.

    Adam moves along ``m_hat / (sqrt(v_hat) + eps)``, not along the gradient. Gradients multiplied by this
    scale are measured in the geometry of its update. The moments are read as they are now: the optimizer is
    not stepped, and momentum and weight decay play no part. An element whose second moment is zero gets
    Adam's own scale for it, ``1 / eps``.

    Args:
        source: an Adam or AdamW (``exp_avg_sq``, or ``max_exp_avg_sq`` with ``amsgrad``; bias-corrected here
            with its own ``betas`` and ``step``), or a mapping of full dotted parameter name to second
            moments that are bias-corrected already; a bare tensor has ``eps`` 1e-8. Other names are ignored.
        selected: full dotted name to parameter, as ``selection.select_parameters`` gives it.

    Returns:
        Name to scale, of the parameter's shape and on its device; float64 for float64 parameters, else
        float32; in units of one over the gradient.

    Raises:
        UserError: a parameter without second moments, or with some that are of another shape, negative or
            not finite; an optimizer that keeps none or has not stepped.
    """
    if isinstance(source, Mapping):
        return {name: _scale(name, parameter, _from_mapping(source, name)) for name, parameter in selected.items()}
    if not hasattr(source, "param_groups") or not hasattr(source, "state"):
        raise UserError(
            f"Second moments come from an Adam or AdamW optimizer or a mapping of names to tensors; got a "
            f"{type(source).__name__}."
        )
    return {
        name: _scale(name, parameter, _from_optimizer(source, name, parameter)) for name, parameter in selected.items()
    }


def saved_second_moments(path: str | Path, names: Sequence[str]) -> dict[str, SecondMoment]:
    """Second moments from an optimizer's saved ``state_dict`` (``optimizer.pt``), for ``second_moments`` to read.

    Args:
        path: a file that ``torch.save(optimizer.state_dict(), path)`` wrote.
        names: full dotted names of the optimizer's parameters in the order of its ``param_groups``, one
            group after the other. The file holds numbers, not names: two parameters of one shape that change
            places cannot be told apart.

    Returns:
        Name to bias-corrected second moments on the CPU, with the saved ``eps``; a parameter that no gradient
        had reached when the file was written is not in it.

    Raises:
        UserError: no such file, a file that is no state of Adam or AdamW, another number of parameters than
            names, or a name given twice.
    """
    saved = _load(Path(path))
    held = [(number, group) for group in saved["param_groups"] for number in group["params"]]
    if len(held) != len(names):
        raise UserError(f"{path} holds the state of {len(held)} parameters, but {len(names)} names are given for it.")
    if repeated := [name for name, times in Counter(names).items() if times > 1]:
        raise UserError(f"The names given for {path} repeat {repeated[0]}; each parameter is named once.")
    return {
        name: _from_adam(name, saved["state"][number], group, str(path))
        for name, (number, group) in zip(names, held, strict=True)
        if saved["state"].get(number)
    }


@torch.no_grad()
def _scale(name: str, parameter: nn.Parameter, moment: SecondMoment) -> Tensor:
    if moment.value.shape != parameter.shape:
        raise UserError(
            f"The second moments of {name} have shape {tuple(moment.value.shape)}, the parameter has "
            f"{tuple(parameter.shape)}."
        )
    dtype = torch.float64 if parameter.dtype == torch.float64 else torch.float32
    value = moment.value.to(parameter.device, dtype)
    if not torch.isfinite(value).all():
        raise UserError(f"The second moments of {name} are not finite.")
    if (value < 0).any():
        raise UserError(f"The second moments of {name} are negative in places; second moments are squares.")
    scale = 1 / (value.sqrt() + moment.eps)
    if not torch.isfinite(scale).all():
        raise UserError(f"Second moments of {name} are zero and so is eps, which makes its scale infinite.")
    return scale


def _from_mapping(source: Mapping[str, Any], name: str) -> SecondMoment:
    if name not in source:
        raise UserError(
            f"There are no second moments for {name}, as for a parameter that no gradient has ever reached; "
            f"{closest(name, source)}."
        )
    moment = source[name]
    if isinstance(moment, SecondMoment):
        return moment
    if not isinstance(moment, Tensor):
        raise UserError(f"The second moments of {name} are not a tensor but {type(moment).__name__}.")
    return SecondMoment(moment)


def _from_optimizer(optimizer: torch.optim.Optimizer, name: str, parameter: nn.Parameter) -> SecondMoment:
    kind = type(optimizer).__name__
    for group in optimizer.param_groups:
        if any(held is parameter for held in group["params"]):
            return _from_adam(name, optimizer.state.get(parameter, {}), group, kind)
    raise UserError(f"{kind} does not hold the parameter {name}, so it keeps no second moments of it.")


def _from_adam(name: str, state: Mapping[str, Any], group: Mapping[str, Any], holder: str) -> SecondMoment:
    if "betas" not in group:
        raise UserError(f"{holder} keeps no second moments; the geometry of the update needs those of Adam or AdamW.")
    if not state:
        raise UserError(
            f"{holder} has no second moments for {name}: it has not stepped, or no gradient has ever reached that "
            "parameter."
        )
    key = "max_exp_avg_sq" if group.get("amsgrad") else "exp_avg_sq"
    step = float(state.get("step", 0))
    if key not in state or step < 1:
        raise UserError(f"The state of {name} in {holder} lacks {key} or step, which Adam and AdamW keep.")
    correction = 1 - group["betas"][1] ** step
    return SecondMoment(state[key].double() / correction, float(group["eps"]))


def _load(path: Path) -> Mapping[str, Any]:
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"There is no optimizer state at {path}.") from None
    # What an unpickler raises on bytes that are none of its own depends on the bytes.
    except Exception as error:
        raise UserError(
            f"{path} is not a readable optimizer state; it may be truncated or another kind of file."
        ) from error
    if not isinstance(saved, Mapping) or not {"state", "param_groups"} <= saved.keys():
        raise UserError(f"{path} holds no optimizer state: it lacks `state` and `param_groups`.")
    if not saved["state"]:
        raise UserError(f"{path} holds no second moments: the optimizer had not stepped when it was written.")
    return saved
