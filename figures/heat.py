"""Tables as coloured cells with their numbers, and names along an axis that never overlap."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch

from figures import style
from figures.labels import shortened

# Points of print that a cell of full-sized numbers has at least, that a small character takes, and a line of text.
_ROOMY, _CHARACTER, _LINE = 34.0, 3.41, 7.5
# As strong as cells that are not to be trusted are drawn.
_FAINT = 0.3
# From here on a square table's columns are known by their numbers.
NUMBERED_FROM = 17


def heat(
    axes: Axes,
    values: pd.DataFrame,
    colours: str | Colormap,
    bounds: tuple[float, float],
    room: tuple[float, float],
) -> AxesImage:
    """Draw a table as cells, each with its number where there is room for text of legible size.

    Args:
        axes: axes of its own.
        values: rows from top to bottom; a NaN stays white.
        colours: colour map.
        bounds: values of the first and the last colour.
        room: inches in print that the cells take, width and height.
    """
    matrix = values.to_numpy(dtype=float)
    image = axes.imshow(matrix, aspect="auto", cmap=colours, vmin=bounds[0], vmax=bounds[1])
    axes.spines[:].set_visible(False)
    size = number_size(matrix, room)
    if size is not None:
        for (row, column), value in np.ndenumerate(matrix):
            if np.isfinite(value):
                ink = "white" if _is_dark(image, value) else "black"
                axes.text(column, row, short(value), ha="center", va="center", fontsize=size, color=ink)
    return image


def fade(axes: Axes, doubtful: np.ndarray) -> None:
    """Draw some of the cells that ``heat`` drew pale.

    Args:
        axes: those given to ``heat``.
        doubtful: rows x columns, true where a number is not to be trusted.
    """
    axes.images[0].set_alpha(np.where(doubtful, _FAINT, 1.0))
    for text in axes.texts:
        column, row = text.get_position()
        if doubtful[int(row), int(column)]:
            text.set_color("#555555")


def number_size(matrix: np.ndarray, room: tuple[float, float]) -> float | None:
    """Points of the numbers in cells, or None where there is no room for any."""
    across, down = style.pitch(room[0], matrix.shape[1]), style.pitch(room[1], matrix.shape[0])
    longest = max((len(short(value)) for value in matrix.ravel() if np.isfinite(value)), default=0)
    if across < _CHARACTER * longest + 1.5 or down < _LINE:
        return None
    return style.points(7.0 if across >= _ROOMY and down >= _LINE + 2 else style.SMALLEST)


def short(value: float) -> str:
    """Two decimals, fewer from 100 on, with a true minus sign and without a minus before 0.00."""
    text = f"{value:.2f}" if abs(value) < 99.5 else f"{value:.0f}"
    return "0.00" if text == "-0.00" else text.replace("-", "−")


def names_on(
    axes: Axes,
    names: Sequence[str],
    axis: Literal["x", "y"],
    room: float,
    tasks: Mapping[str, str] | None = None,
    width: int = 24,
) -> None:
    """Write names at 0, 1, 2, ... along an axis, with a strip in their tasks' colours.

    Args:
        axes: the axes.
        names: in order.
        axis: which.
        room: inches in print that all of them share; names that do not fit are thinned out evenly.
        tasks: task of each name, for the strip; None draws none.
        width: most characters of a name.
    """
    free = style.pitch(room, len(names))
    needed = _LINE if axis == "y" else 6.5
    every = max(1, int(np.ceil(needed * 0.85 / free)))
    shown = range(0, len(names), every)
    labels = shortened(names, width)
    ticks: dict[str, Any] = {
        "fontsize": style.points(7.0 if free >= (8.5 if axis == "y" else 11.5) else style.SMALLEST)
    }
    if axis == "y":
        axes.set_yticks(shown, [labels[place] for place in shown], **ticks)
    else:
        turned: dict[str, Any] = {"rotation": 45 if free >= 9.5 else 90, "ha": "right", "rotation_mode": "anchor"}
        turned |= {} if free >= 9.5 else {"va": "center"}
        axes.set_xticks(shown, [labels[place] for place in shown], **ticks, **turned)
    if tasks is not None:
        style.mark_tasks(axes, names, tasks, axis)


def name_square(
    axes: Axes,
    names: Sequence[str],
    tasks: Mapping[str, str],
    room: tuple[float, float],
    uncertain: Collection[str] = (),
    rows: bool = True,
) -> None:
    """Names of a square table: beside its rows, and below its columns where they fit, else as numbers.

    Args:
        axes: the axes.
        names: of rows and columns, in order.
        tasks: task of each, for the strips.
        room: inches in print that the cells take, width and height.
        uncertain: names that get a dagger.
        rows: whether the rows' names are written, too.
    """
    many = len(names) >= NUMBERED_FROM
    if rows:
        names_on(axes, names, "y", room[1], tasks)
        labels = shortened(names)
        labels = [f"{label}  {number}" for number, label in enumerate(labels, 1)] if many else labels
        daggers = [f"{label} †" if name in uncertain else label for name, label in zip(names, labels, strict=True)]
        axes.set_yticks(range(len(names)), daggers)
    if not many:
        names_on(axes, names, "x", room[0], tasks)
        return
    places = [number for number in range(1, len(names) + 1) if number % 5 == 0 or number == 1]
    axes.set_xticks([place - 1 for place in places], [str(place) for place in places])
    style.mark_tasks(axes, names, tasks, "x")


def colour_bar(
    figure: Figure, image: AxesImage, axes: Axes | Sequence[Axes], label: str, **options: object
) -> Colorbar:
    """A colour bar without an outline, above the cells, where it takes no width from them."""
    where = {"location": "top"} | options
    bar = figure.colorbar(image, ax=cast(Axes, axes), **where)  # type: ignore[arg-type]
    bar.set_label(label, fontsize=style.points(8))
    cast(Patch, bar.outline).set_visible(False)
    return bar


def _is_dark(image: AxesImage, value: float) -> bool:
    red, green, blue, _ = image.to_rgba(np.array([value]))[0]
    return bool(0.299 * red + 0.587 * green + 0.114 * blue < 0.5)
