"""What every picture shares: task order and colours, print sizes, fonts, and files without dates."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch, Rectangle

from figures.errors import UserError
from figures.palette import TASK_COLOURS, order_by_task, task_colour

# Inches; two-column journal pages.
COLUMN_WIDTH = 3.35
TEXT_WIDTH = 6.9

# Points of the smallest text in a picture for print.
SMALLEST = 5.5
_BASE = 7.0
_RESOLUTION = 300


@dataclass(frozen=True)
class Look:
    """What a picture is made for.

    Attributes:
        text: how much larger letters and lines are than in print.
        size: how much larger the picture is than in print.
        lowest: least height for the width, so that a talk's pictures fill a screen.
    """

    text: float
    size: float
    lowest: float


LOOKS = {"paper": Look(1.0, 1.0, 0.0), "talk": Look(2.1, 13.33 / TEXT_WIDTH, 9 / 16)}

_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "hatch.linewidth": 0.5,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.4,
    "figure.dpi": 100,
    "savefig.dpi": _RESOLUTION,
    # TrueType outlines, so that text in the PDF stays text for publishers and screen readers.
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    # A browser without the font would set other widths; outlines look the same everywhere.
    "svg.fonttype": "path",
    # Names inside the file are random otherwise.
    "svg.hashsalt": "tugofwar",
}
# Sizes in points, which grow with the look.
_SIZES: dict[str, float] = {
    "font.size": _BASE,
    "figure.titlesize": 9,
    "axes.titlesize": 8,
    "axes.labelsize": 7,
    "axes.linewidth": 0.6,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
}

# The dates and versions that the writers add by themselves would make equal pictures differ.
_METADATA: Mapping[str, dict[str, Any]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "svg": {"Date": None, "Creator": None},
}
FORMATS = tuple(_METADATA)


@contextmanager
def print_style(look: str = "paper") -> Iterator[None]:
    """Settings for a look, inside the block only; the caller's matplotlib settings are left alone.

    Raises:
        UserError: no such look.
    """
    if look not in LOOKS:
        raise UserError(f"There is no style {look!r}; choose from {', '.join(LOOKS)}.")
    with mpl.rc_context():
        mpl.rcdefaults()
        sizes = {name: size * LOOKS[look].text for name, size in _SIZES.items()}
        # Typed as a mapping from every setting's own literal name, which a plain dict cannot meet.
        cast(Any, mpl.rcParams).update(_STYLE | sizes)
        yield


def points(size: float) -> float:
    """A size in points for the look of the block that it is asked in."""
    return float(size * mpl.rcParams["font.size"] / _BASE)


def pitch(room: float, count: int) -> float:
    """Points in print between ``count`` neighbours in ``room`` inches, less where a look's letters are larger."""
    look = next(look for look in LOOKS.values() if look.text == mpl.rcParams["font.size"] / _BASE)
    return 72 * room / max(count, 1) * look.size / look.text


def new_figure(width: float, height: float, look: str = "paper") -> Figure:
    """A figure of ``width`` x ``height`` inches in print, drawn without a display and without pyplot's state."""
    size, lowest = LOOKS[look].size, LOOKS[look].lowest
    figure = Figure(figsize=(width * size, max(height, lowest * width) * size), layout="constrained")
    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    # matplotlib's own distances, larger where everything is.
    engine.set(w_pad=size * 3 / 72, h_pad=size * 3 / 72)
    FigureCanvasAgg(figure)
    return figure


def side_by_side(count: int, most: int) -> int:
    """Panels in a line, at most ``most``, so that all lines are about equally full."""
    return -(-count // -(-count // most))


def settle(figure: Figure) -> None:
    """Place everything once, so that it is placed alike in every format and not again for each."""
    engine = figure.get_layout_engine()
    if engine is not None:
        # At the resolution of the files: letters of few pixels are narrower than those that are written.
        before = figure.dpi
        figure.set_dpi(_RESOLUTION)
        engine.execute(figure)
        figure.set_dpi(before)
    figure.set_layout_engine("none")


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, PDF or SVG, by the suffix of ``path``; equal figures give equal bytes."""
    kind = path.suffix.lstrip(".")
    with print_style():
        figure.savefig(path, format=kind, metadata=_METADATA[kind])


def head(figure: Figure, title: str | None) -> None:
    """A title above everything, on as many lines as it needs; none for None."""
    if title:
        size = points(9 if figure.get_figwidth() * 72 > points(7.5 * 40) else 8)
        figure.suptitle(textwrap.fill(title, int(figure.get_figwidth() * 72 / (0.62 * size))), fontsize=size)


def below(figure: Figure, handles: Sequence[Artist], label: str | None = None) -> None:
    """What stands below all panels: a label of their common axis or a remark, and one legend; perhaps neither.

    Both are one legend, since matplotlib would draw an axis label of the whole figure across it.
    """
    if not handles and not label:
        return
    size = SMALLEST if len(handles) > 12 else _BASE
    lengths = [size * (0.6 * len(str(handle.get_label())) + 4.9) for handle in handles]
    room = figure.get_figwidth() * 72 * _BASE / mpl.rcParams["font.size"]
    fitting = next((count for count in range(len(handles), 1, -1) if _row(lengths, count) < room), 1)
    if label:
        label = textwrap.fill(label, int(room / (_BASE * 0.62)))
    legend = figure.legend(
        handles=list(handles),
        loc="outside lower center",
        ncols=fitting,
        title=label,
        fontsize=points(size),
    )
    legend.get_title().set_multialignment("center")


def _row(lengths: Sequence[float], columns: int) -> float:
    """Length of a legend's rows: entries are dealt to the columns in order, each as wide as its widest."""
    return float(sum(column.max() for column in np.array_split(np.asarray(lengths), columns)))


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
    axes.tick_params(axis=axis, length=0, pad=points(6))


def task_handles(names: Sequence[str], tasks: Mapping[str, str]) -> list[Patch]:
    """Legend entries for the tasks of ``names``, in the paper's order; none if no task has a colour of its own."""
    if not _any_coloured(names, tasks):
        return []
    present = list(dict.fromkeys(tasks.get(name, name) for name in names))
    return [Patch(facecolor=task_colour(task), label=task) for task in order_by_task(present, {})]


def known_task_handles(names: Sequence[str], tasks: Mapping[str, str]) -> list[Patch]:
    """Legend entries for the paper's tasks alone, where others are drawn in the colour of no task."""
    return [handle for handle in task_handles(names, tasks) if handle.get_label() in TASK_COLOURS]


def _any_coloured(names: Sequence[str], tasks: Mapping[str, str]) -> bool:
    return any(tasks.get(name, name) in TASK_COLOURS for name in names)
