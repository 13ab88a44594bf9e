"""One picture with everything that is written beside it."""

import re
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from figures.explanation import Explanation


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure, the numbers in it and what to say beside it.

    Attributes:
        stem: of its files' names.
        figure: what is drawn.
        table: what it was drawn from.
        explanation: title, how to read it, what it shows, what it was made from.
    """

    stem: str
    figure: Figure
    table: pd.DataFrame
    explanation: Explanation

    def caption(self) -> str:
        """The text beside the picture, one paragraph each; plain text."""
        told = self.explanation
        paragraphs = [told.title, told.caption, f"How to read it: {told.reading}"]
        paragraphs += [f"What it shows: {told.finding}"] if told.finding else []
        paragraphs += [f"Warning: {warning}" for warning in told.warnings]
        return "\n\n".join(paragraphs) + "\n"


def stem_of(*parts: str) -> str:
    """The name of a picture's files: parts joined, without characters that a file system may refuse."""
    return re.sub(r"[^\w.-]+", "-", "_".join(part for part in parts if part))


def level_suffix(level: str) -> str:
    """What tells a level's files from those of datasets."""
    return "" if level == "dataset" else level
