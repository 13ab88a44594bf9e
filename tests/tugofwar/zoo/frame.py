"""What an architecture of the zoo is, and the data that most of them eat."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

BATCHES = 3
"""Batches per dataset, everywhere in the zoo."""


class Specimen(NamedTuple):
    """A model with everything that ``tugofwar.record`` asks for; ``parameters`` is a glob on full names."""

    model: nn.Module
    datasets: dict[str, list[Any]]
    parameters: str
    loss: Callable[[nn.Module, Any], Tensor] | None


@dataclass(frozen=True)
class Architecture:
    """How to make one specimen, and what an engine may do about it.

    ``must_name`` is the module that a warning has to name when an engine keeps input and output factors of
    it; ``may_warn`` says that such an engine may also handle the whole without a warning.
    """

    name: str
    make: Callable[[torch.dtype], Specimen]
    must_name: str | None
    may_warn: bool
    dtypes: tuple[torch.dtype, ...]
    tolerance: float | None
    untouched: tuple[str, ...]

    def build(self, dtype: torch.dtype) -> Specimen:
        """The same specimen every time."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return self.make(dtype)


ARCHITECTURES: dict[str, Architecture] = {}


def architecture(
    must_name: str | None = None,
    may_warn: bool = False,
    dtypes: tuple[torch.dtype, ...] = (torch.float64, torch.float32),
    tolerance: float | None = None,
    untouched: tuple[str, ...] = (),
) -> Callable[[Callable[[torch.dtype], Specimen]], Callable[[torch.dtype], Specimen]]:
    """Enter a function of the dtype into the zoo under its own name."""

    def enter(make: Callable[[torch.dtype], Specimen]) -> Callable[[torch.dtype], Specimen]:
        name = make.__name__
        assert name not in ARCHITECTURES
        ARCHITECTURES[name] = Architecture(
            name, make, must_name, may_warn or must_name is not None, dtypes, tolerance, untouched
        )
        return make

    return enter


def normal(seed: int, *shape: int, dtype: torch.dtype) -> Tensor:
    """Standard normal numbers that depend on the seed only."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def integers(seed: int, high: int, *shape: int) -> Tensor:
    """Integers from 0 to ``high - 1`` that depend on the seed only."""
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


def two_datasets(make: Callable[[int], Any]) -> dict[str, list[Any]]:
    """Batches number 0 to 2 and 3 to 5 of ``make``, in two datasets."""
    return {"a": [make(number) for number in range(BATCHES)], "b": [make(3 + number) for number in range(BATCHES)]}


def regression_data(
    dtype: torch.dtype, inputs: int = 16, outputs: int = 8, leading: tuple[int, ...] = (3,)
) -> dict[str, list[Any]]:
    """``x`` of shape ``(*leading, inputs)`` and ``y`` of shape ``(*leading, outputs)``.

    Three tokens and layers this wide: inputs and output gradients of a layer are fewer numbers than its weight's
    gradient, so an engine that keeps whichever is less keeps factors.
    """
    return two_datasets(
        lambda number: {
            "x": normal(number, *leading, inputs, dtype=dtype),
            "y": normal(100 + number, *leading, outputs, dtype=dtype) + number,
        }
    )


def token_data(vocabulary: int = 11, length: int = 3) -> dict[str, list[Any]]:
    """``input_ids`` and ``labels`` of shape ``(2, length)``."""

    def batch(number: int) -> dict[str, Tensor]:
        ids = integers(number, vocabulary, 2, length)
        return {"input_ids": ids, "labels": ids.clone()}

    return two_datasets(batch)


def mean_squares(model: nn.Module, batch: Any) -> Tensor:
    """Mean squared error of ``model(x)`` against ``y``."""
    return ((model(batch["x"]) - batch["y"]) ** 2).mean()


def regression(model: nn.Module, dtype: torch.dtype, parameters: str = "*", **shapes: Any) -> Specimen:
    """A specimen that maps ``x`` to ``y``."""
    return Specimen(model.to(dtype), regression_data(dtype, **shapes), parameters, mean_squares)
