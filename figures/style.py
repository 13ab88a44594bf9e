"""What every picture shares: task order and colours, print sizes, fonts, and files without dates."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

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

# Shades for things that are compared and are not tasks, so that no colour has two meanings.
RUN_SHADES = ("#BDBDBD", "#4D4D4D", "#E6E6E6", "#7F7F7F", "#262626", "#D0D0D0")
RUN_HATCHES = ("", "", "////", "....", "xxxx", "\\\\\\\\")

# Inches; two-column journal pages.
COLUMN_WIDTH = 3.35
TEXT_WIDTH = 6.9

_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 7,
    "axes.titlesize": 8,
    "axes.labelsize": 7,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "hatch.linewidth": 0.5,
    "figure.dpi": 100,
    "savefig.dpi": 300,
    # TrueType outlines, so that text in the PDF stays text for publishers and screen readers.
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.fonttype": "none",
}

# The dates and versions that the writers add by themselves would make equal pictures differ.
_METADATA: Mapping[str, dict[str, Any]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
FORMATS = tuple(_METADATA)


@contextmanager
def print_style() -> Iterator[None]:
    """Settings for print, inside the block only; the caller's matplotlib settings are left alone."""
    with mpl.rc_context():
        mpl.rcdefaults()
        # Typed as a mapping from every setting's own literal name, which a plain dict cannot meet.
        cast(Any, mpl.rcParams).update(_STYLE)
        yield


def new_figure(width: float, height: float) -> Figure:
    """A figure of ``width`` x ``height`` inches that draws without a display and without pyplot's state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG or PDF, by the suffix of ``path``; equal figures give equal bytes."""
    kind = path.suffix.lstrip(".")
    with print_style():
        figure.savefig(path, format=kind, metadata=_METADATA[kind])


def task_colour(task: str) -> str:
    """The colour of a task, the same in every picture; one other colour for tasks the paper does not have."""
    return TASK_COLOURS.get(task, OTHER_COLOUR)


def order_by_task(names: Sequence[str], tasks: Mapping[str, str]) -> list[str]:
    """``names`` sorted by task, in the paper's order, keeping the given order within a task.

    A name without a task counts as a task itself, so that tasks sort too.
    """
    rank = {task: number for number, task in enumerate(TASK_ORDER)}
    return sorted(names, key=lambda name: rank.get(tasks.get(name, name), len(rank)))


def mark_tasks(axes: Axes, names: Sequence[str], tasks: Mapping[str, str], axis: Literal["x", "y"]) -> None:
    """A thin strip in the tasks' colours between an axis and its labels, cell by cell at 0, 1, 2, ...

    There is none if no name has a task with a colour of its own: one colour for all says nothing.

    Args:
        axes: axes whose ticks are at the integers.
        names: name at each tick.
        tasks: task of each name; a name that is a task needs no entry.
        axis: ``"x"`` or ``"y"``.
    """
    if not _any_coloured(names, tasks):
        return
    thickness = 0.022
    for position, name in enumerate(names):
        colour = task_colour(tasks.get(name, name))
        if axis == "x":
            corner, width, height = (position - 0.5, -thickness), 1.0, thickness
            transform = axes.get_xaxis_transform()
        else:
            corner, width, height = (-thickness, position - 0.5), thickness, 1.0
            transform = axes.get_yaxis_transform()
        strip = Rectangle(
            corner,
            width,
            height,
            transform=transform,
            clip_on=False,
            facecolor=colour,
            edgecolor="white",
            lw=0.4,
        )
        axes.add_patch(strip)
    axes.tick_params(axis=axis, length=0, pad=6)


def task_handles(names: Sequence[str], tasks: Mapping[str, str]) -> list[Patch]:
    """Legend entries for the tasks of ``names``, in the paper's order; none if no task has a colour of its own."""
    if not _any_coloured(names, tasks):
        return []
    present = list(dict.fromkeys(tasks.get(name, name) for name in names))
    return [Patch(facecolor=task_colour(task), label=task) for task in order_by_task(present, {})]


def _any_coloured(names: Sequence[str], tasks: Mapping[str, str]) -> bool:
    return any(tasks.get(name, name) in TASK_COLOURS for name in names)
