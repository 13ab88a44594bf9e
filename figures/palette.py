"""Order, colours and marks of tasks, datasets, experts and runs: the same in every picture, static or not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# The order of the paper's tables: question answering first, classification last.
TASK_ORDER = ("QA", "VQA", "RG", "REC", "REG", "CLS")

# Okabe and Ito's palette, which readers with any colour vision can tell apart.
TASK_COLOURS = {
    "QA": "#999999",
    "VQA": "#0072B2",
    "RG": "#009E73",
    "REC": "#D55E00",
    "REG": "#E69F00",
    "CLS": "#CC79A7",
}
OTHER_COLOUR = "#F0E442"

# GD is coloured on one scale in every picture, so that pictures can be compared.
GD_BOUND = 1.0
# An index whose denominator may have either sign has an interval without end; drawn whole it would press every other
# bar flat. It is cut here and ends in an arrow.
INDEX_FLOOR = -1.0

# Shades for things that are compared and are not tasks, so that no colour has two meanings.
RUN_SHADES = ("#BDBDBD", "#4D4D4D", "#E6E6E6", "#7F7F7F", "#262626", "#D0D0D0")
RUN_HATCHES = ("", "", "////", "....", "xxxx", "\\\\\\\\")

# Paul Tol's muted palette, for datasets, experts and tasks that the paper does not have.
SERIES_COLOURS = (
    "#332288",
    "#CC6677",
    "#117733",
    "#88CCEE",
    "#882255",
    "#44AA99",
    "#DDCC77",
    "#AA4499",
    "#999933",
)
# matplotlib's name of each marker and plotly's.
MARKERS = (
    ("o", "circle"),
    ("s", "square"),
    ("^", "triangle-up"),
    ("D", "diamond"),
    ("v", "triangle-down"),
    ("P", "cross"),
    ("X", "x"),
    ("<", "triangle-left"),
    (">", "triangle-right"),
    ("*", "star"),
)


@dataclass(frozen=True)
class Mark:
    """How one name is drawn: a colour, and a marker for whom the colour is not enough.

    Attributes:
        colour: ``#RRGGBB``.
        marker: matplotlib's name of the marker.
        symbol: plotly's name of the same.
    """

    colour: str
    marker: str
    symbol: str


def task_colour(task: str) -> str:
    """The colour of a task, the same in every picture; one other colour for tasks the paper does not have."""
    return TASK_COLOURS.get(task, OTHER_COLOUR)


def order_by_task(names: Sequence[str], tasks: Mapping[str, str]) -> list[str]:
    """``names`` sorted by task, in the paper's order, keeping the given order within a task.

    A name without a task counts as a task itself, so that tasks sort too.
    """
    rank = {task: number for number, task in enumerate(TASK_ORDER)}
    return sorted(names, key=lambda name: rank.get(tasks.get(name, name), len(rank)))


def series_marks(names: Sequence[str]) -> dict[str, Mark]:
    """Marks of names that are not tasks: 90 pairs of colour and marker, neighbours differing in both."""
    return {name: _mark(SERIES_COLOURS[number % len(SERIES_COLOURS)], number) for number, name in enumerate(names)}


def task_marks(names: Sequence[str]) -> dict[str, Mark]:
    """Marks of tasks: those of the paper in their own colours, others as ``series_marks``."""
    ordered = order_by_task(list(dict.fromkeys(names)), {})
    marks = series_marks([name for name in ordered if name not in TASK_COLOURS])
    known = {name: _mark(TASK_COLOURS[name], TASK_ORDER.index(name)) for name in ordered if name in TASK_COLOURS}
    return {name: (known | marks)[name] for name in ordered}


def dataset_marks(names: Sequence[str], tasks: Mapping[str, str]) -> dict[str, Mark]:
    """Marks of datasets in the colour of their task, each with a marker of its own within the task.

    Args:
        names: datasets.
        tasks: task of each; a dataset without one is drawn as if it were a task.
    """
    ordered = order_by_task(names, tasks)
    by_task = task_marks([tasks.get(name, name) for name in ordered])
    seen: dict[str, int] = {}
    marks = {}
    for name in ordered:
        task = tasks.get(name, name)
        # Without a task of its own a dataset keeps the marker that tells it from others of its colour.
        marks[name] = _mark(by_task[task].colour, seen.get(task, 0)) if task != name else by_task[task]
        seen[task] = seen.get(task, 0) + 1
    return marks


def _mark(colour: str, number: int) -> Mark:
    marker, symbol = MARKERS[number % len(MARKERS)]
    return Mark(colour, marker, symbol)
