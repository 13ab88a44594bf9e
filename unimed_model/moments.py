"""Adam's second moments at the end of training: the geometry that the run's last updates were taken in."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .errors import UserError

SECOND_MOMENTS = "second_moments.safetensors"


class SecondMoments(NamedTuple):
    """Bias-corrected second moments by parameter name, Adam's ``eps``, and the SHA-256 of the file they are from."""

    values: dict[str, Tensor]
    eps: float
    sha256: str


def write_second_moments(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write the second moments of every parameter that a gradient has reached; float32, of the parameter's shape.

    Args:
        folder: run folder.
        model: what was trained.
        optimizer: the Adam or AdamW that trained it.
    """
    names = {parameter: name for name, parameter in model.named_parameters()}
    moments = {}
    for group in optimizer.param_groups:
        decay = group["betas"][1]
        for parameter in group["params"]:
            state = optimizer.state.get(parameter)
            if state:
                corrected = state["exp_avg_sq"].double() / (1 - decay ** float(state["step"]))
                moments[names[parameter]] = corrected.float().cpu().contiguous()
    eps = {group["eps"] for group in optimizer.param_groups}
    assert len(eps) == 1, "one learner, one eps"
    # A single entry: the library writes several in an order of its own, and equal runs give equal bytes.
    save_file(moments, folder / SECOND_MOMENTS, metadata={"eps": repr(eps.pop())})


def read_second_moments(folder: Path) -> SecondMoments:
    """Read what ``write_second_moments`` wrote.

    Raises:
        UserError: the run has none, or the file is damaged.
    """
    path = folder / SECOND_MOMENTS
    if not path.is_file():
        raise UserError(
            f"{folder} holds no {SECOND_MOMENTS}, the state of Adam that unimed-train leaves; train the run again to "
            "measure in the geometry of its update."
        )
    try:
        with safe_open(path, "pt") as file:
            values = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping, only keys()
            eps = float(file.metadata()["eps"])
    except (SafetensorError, KeyError, TypeError, ValueError):
        raise UserError(f"{path} is damaged or not what unimed-train wrote; train the run again.") from None
    with path.open("rb") as stream:
        return SecondMoments(values, eps, hashlib.file_digest(stream, "sha256").hexdigest())
