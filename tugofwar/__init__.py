"""Measure how tasks interfere on the shared parameters of any PyTorch model.

Example:
    >>> import torch
    >>> import tugofwar as tow
    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Linear(8, 1)
    >>> def batch_of(weights):
    ...     x = torch.randn(16, 8)
    ...     return {"x": x, "y": x @ weights}
    >>> truth = torch.randn(8, 1)
    >>> datasets = {
    ...     "with": [batch_of(truth) for _ in range(20)],
    ...     "against": [batch_of(-truth) for _ in range(20)],
    ... }
    >>> def loss(model, batch):
    ...     return torch.nn.functional.mse_loss(model(batch["x"]), batch["y"])
    >>> recording = tow.record(model, datasets, parameters="*", batches=20, loss=loss, progress=False)
    >>> result = tow.interference(recording)
    >>> bool(result.gd.loc["with", "against"] < 0)
    True

``result.gd``, ``.gm`` and ``.index`` are the paper's equations 2 to 4 (arXiv 2409.17508) as tables,
``result.intervals`` their bootstrap intervals; ``recording.save(folder)`` keeps what later questions need.
Nothing heavy is imported before one of these names is used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tugofwar import metrics
    from tugofwar.callback import TugOfWarCallback
    from tugofwar.diagnostics import Diagnostics, diagnose
    from tugofwar.differences.comparing import Change, Difference, difference
    from tugofwar.errors import UserError
    from tugofwar.estimation import Interference, interference, task_groups
    from tugofwar.forecast import Forecast, batches_needed
    from tugofwar.functional import functional_gradients
    from tugofwar.measured import MeasuredInterference, measured_interference
    from tugofwar.planning import Plan, plan
    from tugofwar.preconditioning import saved_second_moments
    from tugofwar.recorder import record
    from tugofwar.recording import Recording
    from tugofwar.routing.recorder import RoutingRecord, record_routing
    from tugofwar.statistics import Statistics

    __version__: str

__all__ = [
    "Change",
    "Diagnostics",
    "Difference",
    "Forecast",
    "Interference",
    "MeasuredInterference",
    "Plan",
    "Recording",
    "RoutingRecord",
    "Statistics",
    "TugOfWarCallback",
    "UserError",
    "__version__",
    "batches_needed",
    "diagnose",
    "difference",
    "functional_gradients",
    "interference",
    "measured_interference",
    "metrics",
    "plan",
    "record",
    "record_routing",
    "saved_second_moments",
    "task_groups",
]

_MODULE_OF = {
    "Change": "tugofwar.differences.comparing",
    "Diagnostics": "tugofwar.diagnostics",
    "Difference": "tugofwar.differences.comparing",
    "Forecast": "tugofwar.forecast",
    "Interference": "tugofwar.estimation",
    "MeasuredInterference": "tugofwar.measured",
    "Plan": "tugofwar.planning",
    "Recording": "tugofwar.recording",
    "RoutingRecord": "tugofwar.routing.recorder",
    "Statistics": "tugofwar.statistics",
    "TugOfWarCallback": "tugofwar.callback",
    "UserError": "tugofwar.errors",
    "batches_needed": "tugofwar.forecast",
    "diagnose": "tugofwar.diagnostics",
    "difference": "tugofwar.differences.comparing",
    "functional_gradients": "tugofwar.functional",
    "interference": "tugofwar.estimation",
    "measured_interference": "tugofwar.measured",
    "plan": "tugofwar.planning",
    "record": "tugofwar.recorder",
    "record_routing": "tugofwar.routing.recorder",
    "saved_second_moments": "tugofwar.preconditioning",
    "task_groups": "tugofwar.estimation",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name == "metrics":
        return importlib.import_module("tugofwar.metrics")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'tugofwar' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("tugofwar")
    except PackageNotFoundError:
        return "0+source.tree.not.installed"


def __dir__() -> list[str]:
    return sorted(__all__)
