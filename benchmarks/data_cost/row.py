"""One line of the table."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Row:
    """Something measured several times, beside its goal.

    Attributes:
        what: was measured.
        values: one for each repeat.
        goal: the bound on their median.
        bound: on which side of it the median must lie.
        unit: behind every number.
        digits: behind the point.
    """

    what: str
    values: Sequence[float]
    goal: float
    bound: Literal["at least", "at most"]
    unit: str = ""
    digits: int = 2

    @property
    def met(self) -> bool:
        """Whether the median keeps to the goal."""
        middle = statistics.median(self.values)
        return middle >= self.goal if self.bound == "at least" else middle <= self.goal

    def line(self) -> str:
        """A row of the table: median (quartiles), goal, whether it is met."""
        low, middle, high = statistics.quantiles(self.values, n=4)
        numbers = f"{middle:.{self.digits}f} ({low:.{self.digits}f} to {high:.{self.digits}f}){self.unit}"
        return f"| {self.what} | {numbers} | {self.bound} {self.goal:g}{self.unit} | {'yes' if self.met else 'no'} |"
