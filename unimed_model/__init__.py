"""Uni-Med: one medical multi-modal model for six tasks, joined by a connector mixture-of-experts.

The specimen that ``tugofwar`` is pointed at; behaves like any transformers model::

    from unimed_model import UniMedForConditionalGeneration, UniMedProcessor

    model = UniMedForConditionalGeneration.from_pretrained("runs/cmoe")
    processor = UniMedProcessor.from_pretrained("runs/cmoe")

Names are imported when first used, so that ``import unimed_model`` loads neither torch nor transformers.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from .errors import UserError

if TYPE_CHECKING:
    from .configuration import UniMedConfig
    from .modeling import UniMedForConditionalGeneration
    from .processing import UniMedProcessor

_ROOMS = {
    "UniMedConfig": "configuration",
    "UniMedForConditionalGeneration": "modeling",
    "UniMedProcessor": "processing",
}

__all__ = ["UniMedConfig", "UniMedForConditionalGeneration", "UniMedProcessor", "UserError"]


def __getattr__(name: str) -> object:
    if name in _ROOMS:
        return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
    if name == "__version__":
        try:
            return version("tugofwar")
        except PackageNotFoundError:
            return "unknown (not installed)"
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
