"""Colours and symbols in the page: runs in shades of ink, so that no colour of a task has a second meaning."""

from collections.abc import Sequence

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "triangle-down")
SHADES = 4


def run_marks(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour (of the page's own) and symbol of each run."""
    return {
        name: (f"var(--run-{number % SHADES + 1})", SYMBOLS[number % len(SYMBOLS)]) for number, name in enumerate(names)
    }
