"""How often each dataset of a mixture is drawn: by size, by a temperature, or by given ratios."""

from collections.abc import Mapping

from unimed_model.closed import nearest
from unimed_model.errors import UserError

TOGETHER = "+"
"""Joins the names of datasets that share one ratio."""

LEAST_TEMPERATURE = 0.1


def by_size(sizes: Mapping[str, int], temperature: float = 1.0) -> dict[str, float]:
    """Return dataset -> weight `n ** (1 / T)` for `n` samples.

    Args:
        sizes: dataset -> number of samples.
        temperature: T. 1 draws in proportion to size; the larger it is, the more alike all datasets are drawn.

    Raises:
        UserError: a temperature below 0.1, where the largest dataset would be all that is drawn.
    """
    if not temperature >= LEAST_TEMPERATURE:
        raise UserError(f"The temperature of a mixture is at least {LEAST_TEMPERATURE}, not {temperature}.")
    return {name: size ** (1 / temperature) for name, size in sizes.items()}


def by_ratios(sizes: Mapping[str, int], ratios: Mapping[str, float]) -> dict[str, float]:
    """Return dataset -> weight as given.

    Args:
        sizes: dataset -> number of samples.
        ratios: dataset -> ratio. Datasets joined by `+` share one ratio, by size.

    Raises:
        UserError: a ratio that is not above 0, a dataset without ratio or with two, or a name that is none of them.
    """
    weights: dict[str, float] = {}
    for key, ratio in ratios.items():
        names = [name.strip() for name in key.split(TOGETHER)]
        _check(key, names, ratio, sizes, weights)
        total = sum(sizes[name] for name in names)
        weights |= {name: ratio * sizes[name] / total for name in names}
    for name in sizes:
        if name not in weights:
            raise UserError(
                f"The mixing ratios have none for {name}, which is trained on; the nearest of their keys is "
                f"{nearest(name, ratios) if ratios else 'none'!r}."
            )
    return weights


def _check(key: str, names: list[str], ratio: float, sizes: Mapping[str, int], weights: Mapping[str, float]) -> None:
    for name in names:
        if name not in sizes:
            raise UserError(
                f"The mixing ratios name {name!r}, which is not trained on; the nearest dataset is "
                f"{nearest(name, sizes)!r} (all: {', '.join(sizes)}). Give exactly those, or draw by size."
            )
        if name in weights or names.count(name) > 1:
            raise UserError(f"The mixing ratios name {name!r} twice; give it one ratio, alone or with others.")
    if not isinstance(ratio, int | float) or not 0 < ratio < float("inf"):
        raise UserError(f"The mixing ratio of {key} is {ratio}; it must be a number above 0.")
