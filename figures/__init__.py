"""One module per picture; drawn from tables alone, so that a picture never needs the model behind it.

>>> from figures import interference_heatmap
>>> figure = interference_heatmap(gd, gm)  # doctest: +SKIP

Every function takes tidy tables and returns a matplotlib Figure; none of them touches pyplot or the settings.
"""

from importlib import import_module
from typing import Any

_MODULES = {
    "breakdown": ("block_intervals", "block_maps"),
    "difference": ("difference_indexes", "difference_maps", "difference_scores"),
    "dynamics": ("gd_over_steps", "index_over_steps", "routing_over_steps"),
    "features": ("feature_map",),
    "forest": ("delta_forest",),
    "indexes": ("index_comparison",),
    "interference": ("interference_heatmap",),
    "intervals": ("interval_forest",),
    "routing": (
        "expert_load",
        "routing_divergence",
        "routing_information",
        "routing_maps",
        "routing_measures",
        "switched_off_experts",
    ),
    "scores": ("score_blocks", "score_distribution"),
    "separation": ("feature_alignment", "picture_stability", "separation_measures"),
    "tokens": ("token_weights",),
}
_PLACES = {function: module for module, functions in _MODULES.items() for function in functions}
__all__ = list(_PLACES)


def __getattr__(name: str) -> Any:
    # matplotlib is loaded with the first picture function that is asked for.
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
