"""How many batches would bring the widest interval of a result under a given width."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import pandas as pd

from tugofwar.errors import UserError
from tugofwar.estimation import Interference

Measure = Literal["gd", "index"]


@dataclass(frozen=True)
class Forecast:
    """Batches that would bring every interval of a measure under a width.

    Attributes:
        measure: ``gd`` or ``index``.
        width: the width asked for, upper less lower end.
        widest: the cell with the widest interval now: ``(row, column)`` for ``gd``, ``(row,)`` for ``index``.
        widest_width: the width of its interval now.
        batches: batches that each group needs, in the proportions that it has now; at least 2. For a group
            that pools datasets it is their sum.
        sign_uncertain: groups left out, because their denominator may have either sign: their rows follow no
            such law before it is certain.
    """

    measure: str
    width: float
    widest: tuple[str, ...]
    widest_width: float
    batches: Mapping[str, int]
    sign_uncertain: tuple[str, ...]


def batches_needed(result: Interference, width: float, measure: Measure = "gd") -> Forecast:
    """Forecast how many batches bring the widest single interval to ``width`` or under.

    Intervals shrink with ``1 / sqrt(batches)`` when all groups grow alike: groups of ``n`` batches need
    ``n (widest / width)^2``. The noise that pairs of batches share shrinks faster, with ``1 / batches``, so that
    the forecast is rather too high than too low. It is itself an estimate from one recording: double the
    batches and look again rather than trusting a factor of 100. A width that is met already can forecast fewer
    batches than there are.

    Args:
        result: what ``interference`` returned, with intervals.
        width: upper less lower end, in units of the measure; over 0.
        measure: ``gd`` or ``index``.

    Raises:
        UserError: a width that is not a positive number, another measure, a result without intervals of it or
            whose signs are all uncertain, a single group.
    """
    if measure not in get_args(Measure):
        raise UserError(f"A forecast is for {' or '.join(get_args(Measure))}; got measure={measure!r}.")
    if not (width > 0 and math.isfinite(width)):
        raise UserError(f"The width of an interval to aim for is a number over 0; got {width}.")
    if measure not in result.intervals:
        raise UserError(
            f"The result has no intervals of {measure!r} to forecast from; use interference() with resamples and "
            "an estimator other than 'plugin'."
        )
    low, high = result.intervals[measure]
    widths = pd.DataFrame(high - low).drop(index=list(result.sign_uncertain))
    if widths.empty:
        raise UserError(
            "Nothing can be forecast: the sign of every group's denominator is uncertain; record more batches."
        )
    values = widths.to_numpy()
    row, column = divmod(int(values.argmax()), values.shape[1])
    widest = float(values[row, column])
    if widest == 0:
        raise UserError(f"Nothing can be forecast: no interval of {measure!r} has a width.")
    factor = (widest / width) ** 2
    return Forecast(
        measure=measure,
        width=float(width),
        widest=(str(widths.index[row]), str(widths.columns[column])) if measure == "gd" else (str(widths.index[row]),),
        widest_width=widest,
        batches={name: max(2, math.ceil(number * factor)) for name, number in result.batches.items()},
        sign_uncertain=result.sign_uncertain,
    )
