"""Tables of a module's features: pictures, separation, alignment, stability (docs/formats.md)."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from tugofwar.features.capture import AFTER, BEFORE, Features
from tugofwar.features.cka import linear_cka
from tugofwar.features.embedding import LIMITS, Components, embed, stratified
from tugofwar.features.faithfulness import (
    chance_overlap,
    chance_trustworthiness,
    neighbour_overlap,
    picture_neighbours,
    trustworthiness,
)
from tugofwar.features.separation import ALL, separation

AXES = ("x", "y", "z")
PICTURES = 3
"""Pictures with seeds of their own of every stage, the first of which is the one to show."""

Frames = dict[str, pd.DataFrame]


def sample_table(features: Features, tasks: Mapping[str, str]) -> pd.DataFrame:
    """``samples.csv``: a running number, and what the sample is of; nothing that names it."""
    table = pd.DataFrame({"sample": range(len(features.datasets)), "dataset": features.datasets})
    return table.assign(task=[tasks[name] for name in features.datasets]) if tasks else table


def separation_table(
    features: Features, tasks: Mapping[str, str], neighbours: int, level: float, seed: int
) -> pd.DataFrame:
    """``separation.csv``: silhouette and kNN purity by task and by dataset, where there are several."""
    labels = {"task": [tasks[name] for name in features.datasets]} if tasks else {}
    labels["dataset"] = list(features.datasets)
    rows = [
        {"stage": stage, "label": found.label, "name": found.name, "measure": found.measure}
        | {"value": found.estimate.value, "low": found.estimate.low, "high": found.estimate.high}
        | {"chance": found.chance}
        for stage, points in features.stages.items()
        for found in separation(points, labels, features.datasets, neighbours, level, seed)
    ]
    return pd.DataFrame(rows, columns=["stage", "label", "name", "measure", "value", "low", "high", "chance"])


def alignment_table(features: Features, level: float) -> pd.DataFrame:
    """``alignment.csv``: debiased linear CKA over all samples and within datasets, where it exists."""
    names = np.asarray(features.datasets)
    chosen = {ALL: np.ones(len(names), bool)}
    if len(set(features.datasets)) > 1:
        chosen |= {name: names == name for name in dict.fromkeys(features.datasets)}
    rows = []
    for name, own in chosen.items():
        found = linear_cka(features.stages[BEFORE][own], features.stages[AFTER][own], list(names[own]), level)
        if found is not None:
            rows.append(
                {"name": name, "value": found.value, "low": found.low, "high": found.high, "samples": int(own.sum())}
            )
    return pd.DataFrame(rows, columns=["name", "value", "low", "high", "samples"])


def picture_tables(
    features: Features,
    samples: pd.DataFrame,
    components: Mapping[str, Components],
    neighbours: int,
    seeds: Sequence[int],
    progress: bool,
) -> Frames:
    """``embedding_2d.csv``, ``embedding_3d.csv`` and ``stability.csv``.

    The first seed's picture starts from the principal components, those of the others at random. A stage with fewer
    components than a picture has dimensions has none.

    Args:
        features: what is shown.
        samples: ``sample_table`` of it.
        components: stage -> its principal components.
        neighbours: of the measures of stability.
        seeds: of the pictures.
        progress: show a bar on stderr.
    """
    points: dict[int, list[pd.DataFrame]] = {dimensions: [] for dimensions in LIMITS}
    stability: list[dict[str, Any]] = []
    with tqdm(
        total=len(LIMITS) * len(components) * len(seeds), unit="picture", disable=not progress, desc="t-SNE"
    ) as bar:
        for dimensions, limit in LIMITS.items():
            drawn = stratified(features.datasets, limit, seeds[0])
            for stage, found in components.items():
                if found.scores.shape[1] < dimensions:
                    bar.update(len(seeds))
                    continue
                pictures = {}
                for number, seed in enumerate(seeds):
                    pictures[seed] = embed(found.scores[drawn], dimensions, seed, "random" if number else "pca")
                    points[dimensions].append(_picture(samples.iloc[drawn], stage, seed, pictures[seed]))
                    bar.update()
                stability += _stability(features.stages[stage][drawn], pictures, stage, dimensions, neighbours)
    empty = [*("stage", "seed"), *samples.columns]
    frames = {
        f"embedding_{number}d.csv": pd.concat(tables) if tables else pd.DataFrame(columns=[*empty, *AXES[:number]])
        for number, tables in points.items()
    }
    columns = ["stage", "dimensions", "measure", "seed", "other_seed", "value", "chance"]
    return frames | {"stability.csv": pd.DataFrame(stability, columns=columns)}


def _picture(samples: pd.DataFrame, stage: str, seed: int, picture: NDArray[np.float32]) -> pd.DataFrame:
    table = samples.copy()
    table.insert(0, "stage", stage)
    table.insert(1, "seed", seed)
    return table.assign(**dict(zip(AXES, picture.T, strict=False)))


def _stability(
    features: NDArray[np.float32],
    pictures: Mapping[int, NDArray[np.float32]],
    stage: str,
    dimensions: int,
    neighbours: int,
) -> list[dict[str, Any]]:
    shared: dict[str, Any] = {"stage": stage, "dimensions": dimensions}
    samples = len(features)
    near = {seed: picture_neighbours(picture, neighbours) for seed, picture in pictures.items()}
    rows = [
        shared
        | {"measure": "trustworthiness", "seed": seed, "other_seed": seed, "value": value}
        | {"chance": chance_trustworthiness(samples, neighbours)}
        for seed, value in zip(near, trustworthiness(features, list(near.values())), strict=True)
    ]
    rows += [
        shared
        | {"measure": "neighbour_overlap", "seed": one, "other_seed": other}
        | {"value": neighbour_overlap(near[one], near[other]), "chance": chance_overlap(samples, neighbours)}
        for one, other in combinations(near, 2)
    ]
    return rows
