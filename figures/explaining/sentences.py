"""Numbers, intervals and names as text."""

from collections.abc import Sequence
from math import isfinite

LONGEST = 300
"""Characters after which a finding takes no further clause."""

_MINUS = "\N{MINUS SIGN}"
_MOST_DECIMALS = 9
_ROUNDING = 1e-8


def number(value: float, decimals: int = 2, landmarks: tuple[float, ...] = (0.0, 1.0)) -> str:
    """A few decimals, or as many more as keep landmarks apart from what is near them; a true minus sign.

    An interval that leaves out 0 must not be printed as beginning there.
    """
    if not isfinite(value):
        raise ValueError(f"{value} is no number to print.")
    if abs(value) >= 100:
        return f"{value:,.0f}".replace("-", _MINUS)
    texts = [f"{value:.{places}f}" for places in range(decimals, _MOST_DECIMALS)]
    telling = [text for text in texts if float(text) not in landmarks]
    text = telling[0] if telling and min(abs(value - each) for each in landmarks) > _ROUNDING else texts[0]
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", _MINUS)


def interval(value: float, low: float, high: float) -> str:
    """``0.62 [0.41, 0.83]``."""
    return f"{number(value)} [{number(low)}, {number(high)}]"


def percent(share: float) -> str:
    """A share as a percentage: whole from 10 % up, one decimal below or near 100 %."""
    value = 100 * share
    return f"{number(value, 0 if 10 <= abs(value) <= 99.5 or value in (0, 100) else 1, (0.0, 100.0))}%"


def points(difference: float, low: float, high: float) -> str:
    """A difference of shares: ``+3.7 [2.7, 4.7] percentage points``."""
    sign = "+" if difference > 0 else ""
    return f"{sign}{number(100 * difference, 1)} [{number(100 * low, 1)}, {number(100 * high, 1)}] percentage points"


def most_clearly(number_of: int, text: str) -> str:
    """A case as the clearest of several; alone it needs no such word."""
    return text if number_of == 1 else f"most clearly {text}"


def percent_interval(share: float, low: float, high: float) -> str:
    """``27% [21%, 31%]``."""
    return f"{percent(share)} [{percent(low)}, {percent(high)}]"


def p_value(value: float) -> str:
    """``p = 0.02``, with two significant digits."""
    return "p < 0.0001" if value < 0.0001 else f"p = {value:.2g}"


def named(names: Sequence[str], most: int = 4) -> str:
    """Names separated by commas; beyond ``most`` only how many more there are."""
    if len(names) <= most + 1:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most:,} more"


def counted(number_of: int, singular: str, plural: str | None = None) -> str:
    """``1 batch``, ``1,560 pairs``."""
    return f"{number_of:,} {singular if number_of == 1 else plural or singular + 's'}"


def within(clauses: Sequence[str], tail: str = "", separator: str = "; ", brief: str | None = None) -> str:
    """A sentence of the first clause and of those after it that keep it within ``LONGEST`` characters.

    Args:
        clauses: the most important one first; it always stands.
        tail: the end of the sentence.
        separator: between clauses.
        brief: a shorter end, for a first clause that is too long for the other, because of long names.
    """
    text = clauses[0]
    end = tail if brief is None or len(text) + len(tail) < LONGEST else brief
    for clause in clauses[1:]:
        if len(text) + len(separator) + len(clause) + len(end) < LONGEST:
            text += separator + clause
    return f"{text}{end}."
