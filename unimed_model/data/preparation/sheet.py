"""A contact sheet: some samples of a dataset as a person should see them, with prompt, target and box."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unimed_model.data.boxes import to_pixels
from unimed_model.data.privacy import FLAG, passed_on
from unimed_model.data.sample import IDENTIFIERS, Sample

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3
_SIDE = 3.4  # inches
_LINE = 0.135  # inches, of the small print
_WIDTH = 50  # letters a line
_LINES = 9
_WITHHELD = f"(withheld: the licence forbids passing this text on; {FLAG} shows it)"
_COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7")


def spread(samples: Sequence[Sample], count: int) -> list[Sample]:
    """Return at most ``count`` samples, spread evenly over all."""
    if count >= len(samples):
        return list(samples)
    return [samples[i * len(samples) // count] for i in range(count)]


def draw_sheet(samples: Sequence[Sample], path: Path, *, show_restricted: bool = False) -> None:
    """Draw samples side by side and save the picture; the format follows from the name.

    Args:
        samples: at least one.
        path: of the picture; written whole or not at all.
        show_restricted: print the text of samples whose licence forbids passing it on.

    Raises:
        UserError: an image that cannot be read.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    texts = [_texts(sample, show_restricted) for sample in samples]
    columns = min(COLUMNS, len(samples))
    rows = -(-len(samples) // columns)
    below = _LINE * max(map(len, texts)) + 0.1
    figure = Figure(figsize=(_SIDE * columns, (_SIDE + below) * rows), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows * 2, columns, squeeze=False, height_ratios=[_SIDE, below] * rows)
    for axes in grid.ravel():
        axes.axis("off")
    for place, (sample, lines) in enumerate(zip(samples, texts, strict=True)):
        row, column = divmod(place, columns)
        _picture(grid[2 * row, column], sample)
        _caption(grid[2 * row + 1, column], lines)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        figure.savefig(partial, dpi=110)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _texts(sample: Sample, show_restricted: bool) -> list[str]:
    """Return what is asked, and the target behind an arrow, as lines."""
    instruction = f"[{IDENTIFIERS[sample.task]}] {sample.instruction}"
    asked = passed_on(instruction, sample, show_restricted) or _WITHHELD
    target = passed_on(sample.answer, sample, show_restricted) or _WITHHELD
    return [*_wrapped(asked), *_wrapped(f"→ {target}")]


def _picture(axes: Axes, sample: Sample) -> None:
    image = sample.image
    axes.set_title(f"{sample.dataset} {sample.split}\n{_short(sample.sample_id, 44)}", fontsize=8, parse_math=False)
    if image is None:
        axes.text(0.5, 0.5, "no image: text alone", ha="center", va="center", fontsize=8, color="#555555")
        return
    axes.imshow(image)
    for number, box in enumerate(sample.boxes):
        axes.add_patch(_rectangle(to_pixels(box, image.size), _COLOURS[number % len(_COLOURS)]))


def _caption(axes: Axes, lines: Sequence[str]) -> None:
    axes.text(0, 1, "\n".join(lines), va="top", fontsize=7, parse_math=False, transform=axes.transAxes)


def _rectangle(box: tuple[float, float, float, float], colour: str) -> Any:
    from matplotlib.patches import Rectangle

    x, y, width, height = box
    # matplotlib's pixel centres are whole numbers
    return Rectangle((x - 0.5, y - 0.5), width, height, fill=False, edgecolor=colour, linewidth=1.6)


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, max_lines=_LINES, placeholder=" …")


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length // 2 - 1]}…{text[-length // 2 :]}"
