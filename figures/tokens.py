"""Where in an image a router sends what: the weights of tokens drawn over the image as the strips that they are."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import imread

from figures import palette, style
from figures.labels import shortened

# Images and experts that are drawn at most; the table has all.
MOST_IMAGES = 6
MOST_EXPERTS = 8
MOST_EDGES = 64
# From clear to opaque in one colour, so that the image shows through where an expert has little to do.
_OVERLAY = LinearSegmentedColormap.from_list("weight", [(0.9, 0.35, 0.0, 0.0), (0.9, 0.35, 0.0, 0.85)])


def token_weights(
    tokens: pd.DataFrame,
    images: Mapping[str, Path],
    tasks: Mapping[str, str] | None = None,
    title: str | None = None,
    look: str = "paper",
) -> Figure:
    """Weights of tokens over a few images, a row per image and a column per expert.

    Args:
        tokens: of one router at one checkpoint: ``dataset``, ``image``, ``token``, ``left``, ``top``, ``right``,
            ``bottom`` (shares of width and height), ``expert``, ``weight``.
        images: file of each image.
        tasks: task of each dataset, which orders them.
        title: text above.
        look: ``paper`` or ``talk``.

    Returns:
        A figure of text width with at most six images, of different tasks first, and the eight experts with the
        largest mean weight; the first column shows the image alone.
    """
    chosen = chosen_tokens(tokens[tokens["image"].isin(list(images))], tasks or {})
    pictures = list(dict.fromkeys(chosen["image"]))
    experts = sorted(chosen["expert"].unique())
    top = float(chosen["weight"].max())
    each = 5.6 / (len(experts) + 1)
    with style.print_style(look):
        figure = style.new_figure(style.TEXT_WIDTH, 0.9 + len(pictures) * min(each, 1.3), look)
        grid = figure.subplots(len(pictures), len(experts) + 1, squeeze=False)
        for row, name in enumerate(pictures):
            here = chosen[chosen["image"] == name]
            dataset = here["dataset"].iloc[0]
            shown = _grey(images[name])
            grid[row, 0].set_ylabel(_label(dataset, tasks or {}), fontsize=style.points(style.SMALLEST))
            for column, axes in enumerate(grid[row]):
                _image(axes, shown)
                if column:
                    strips = _strips(axes, here[here["expert"] == experts[column - 1]], top)
        for column, heading in enumerate(["image", *(f"expert {expert}" for expert in experts)]):
            grid[0, column].set_title(heading, fontsize=style.points(7))
        bar = figure.colorbar(strips, ax=list(grid.ravel()), aspect=30, fraction=0.03)
        bar.set_label("weight of the token")
        style.head(figure, title)
    return figure


def chosen_tokens(tokens: pd.DataFrame, tasks: Mapping[str, str]) -> pd.DataFrame:
    """Those rows that are drawn: one image of each dataset, of different tasks first, and the busiest experts."""
    firsts = tokens.groupby("dataset", sort=False)["image"].first()
    names = palette.order_by_task(list(firsts.index), tasks)
    seen: dict[str, int] = {}
    turns = {}
    for name in names:
        task = tasks.get(name, name)
        turns[name] = seen[task] = seen.get(task, -1) + 1
    kept = palette.order_by_task(sorted(names, key=turns.__getitem__)[:MOST_IMAGES], tasks)
    busiest = tokens.groupby("expert")["weight"].mean().nlargest(MOST_EXPERTS).index
    parts = [tokens[(tokens["image"] == firsts[name]) & tokens["expert"].isin(busiest)] for name in kept]
    return pd.concat(parts, ignore_index=True)


def _label(dataset: str, tasks: Mapping[str, str]) -> str:
    name = shortened([dataset], 18)[0]
    return f"{name}\n({tasks[dataset]})" if dataset in tasks else name


def _grey(path: Path) -> np.ndarray:
    """The image in grey, so that the overlay's colour is the only one."""
    pixels = np.asarray(imread(path), dtype=float)
    grey: np.ndarray = pixels if pixels.ndim == 2 else pixels[..., :3] @ np.array([0.299, 0.587, 0.114])
    return grey


def _image(axes: Axes, pixels: np.ndarray) -> None:
    axes.imshow(pixels, cmap="gray", extent=(0, 1, 1, 0), aspect=pixels.shape[0] / pixels.shape[1])
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _strips(axes: Axes, tokens: pd.DataFrame, top: float) -> PolyCollection:
    left, above, right, below = (tokens[edge].to_numpy() for edge in ("left", "top", "right", "bottom"))
    corners = np.stack([left, above, right, above, right, below, left, below], axis=-1).reshape(-1, 4, 2)
    # Fine lines show where a strip ends; between many they would be all that is seen.
    edges = (0.6, 0.6, 0.6, 0.7) if len(tokens) <= MOST_EDGES else "none"
    strips = PolyCollection(
        list(corners), array=tokens["weight"].to_numpy(), cmap=_OVERLAY, edgecolors=edges, linewidths=style.points(0.3)
    )
    strips.set_clim(0, top)
    axes.add_collection(strips, autolim=False)
    return strips
