"""Tidy tables of what routers did (docs/formats.md, "Routing weights"), from a ``RoutingRecord``.

Datasets weigh alike in a task and in ``all``; tasks weigh alike in the mutual information. Tokens weigh alike within a
dataset.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tugofwar.errors import UserError
from tugofwar.routing.intervals import (
    DatasetMeans,
    Level,
    curved_bounds,
    dataset_means,
    draw_counts,
    information_null,
    levels_of,
    mean_bounds,
    p_value,
    resampled_means,
)
from tugofwar.routing.measures import Array, dead_experts, jensen_shannon, mutual_information, share_of_largest_entropy
from tugofwar.routing.recorder import RouterRecord, RoutingRecord
from tugofwar.simultaneous import Bounds, percentile_bounds

LEVEL = 0.95
RESAMPLES = 1000

Frames = dict[str, pd.DataFrame]


@dataclass(frozen=True)
class _Measured:
    """One level of one router: means as measured and resampled, and the units behind each name."""

    level: Level
    point: DatasetMeans
    drawn: DatasetMeans
    samples: NDArray[np.int64]
    smallest: NDArray[np.int64]
    tokens: NDArray[np.int64]


def routing_tables(record: RoutingRecord, seed: int, resamples: int = RESAMPLES, level: float = LEVEL) -> Frames:
    """All tables of one checkpoint by name, with a column ``router``; a table without rows is left out.

    Args:
        record: what ``record_routing`` returned.
        seed: of the bootstrap and of the null.
        resamples: draws behind every interval, and shuffles behind the null.
        level: probability that an interval should cover the truth.

    Raises:
        UserError: a dataset of which a single sample or image reaches a router, so that there is no interval.
    """
    parts: dict[str, list[pd.DataFrame]] = {}
    for router in record.routers:
        for name, frame in _router_tables(router, record, seed, resamples, level).items():
            if len(frame):
                frame.insert(0, "router", router.name)
                parts.setdefault(name, []).append(frame)
    return {name: pd.concat(frames, ignore_index=True) for name, frames in parts.items()}


def _router_tables(router: RouterRecord, record: RoutingRecord, seed: int, resamples: int, level: float) -> Frames:
    for dataset, samples in router.samples.items():
        if len(samples) < 2:
            raise UserError(
                f"Of dataset {dataset!r} a single sample, or samples of a single image, reach {router.name}, but an "
                "interval needs two; raise --batches, or leave the dataset out with --datasets."
            )
    levels = _measured(router, record.tasks, seed, resamples)
    frames = {
        "weights": [_shares(each, "weight", level) for each in levels],
        "load": [_shares(each, "load", level) for each in levels],
        "measures": [_measures(each, level) for each in levels] if router.experts > 1 else [],
        "information": [_information(router, levels, seed, resamples, level)],
        "divergence": [_divergence(each, level) for each in levels],
        "switched_off": [_switched_off(router, record, each.level, seed, resamples, level) for each in levels],
    }
    found = {name: [part for part in parts if len(part)] for name, parts in frames.items()}
    tables = {name: pd.concat(parts, ignore_index=True) for name, parts in found.items() if parts}
    if "switched_off" in tables:
        tables["switched_off"] = tables["switched_off"].sort_values("expert", kind="stable", ignore_index=True)
    return tables


def _measured(router: RouterRecord, tasks: Mapping[str, str], seed: int, resamples: int) -> list[_Measured]:
    names = list(router.samples)
    point, drawn = dataset_means(router.samples), resampled_means(router.samples, resamples, seed)
    units = {name: len(samples) for name, samples in router.samples.items()}
    tokens = {name: int(samples.tokens.sum()) for name, samples in router.samples.items()}
    return [
        _Measured(
            each,
            point.at(each.mixing(names)),
            drawn.at(each.mixing(names)),
            np.array([sum(router.sizes[name] for name in pooled) for pooled in each.members.values()]),
            np.array([min(units[name] for name in pooled) for pooled in each.members.values()]),
            np.array([sum(tokens[name] for name in pooled) for pooled in each.members.values()]),
        )
        for each in levels_of(names, tasks)
    ]


def _shares(measured: _Measured, column: str, level: float) -> pd.DataFrame:
    """One row per name and expert: mean weight, or load."""
    field = {"weight": "weights", "load": "load"}[column]
    values: Array = getattr(measured.point, field)
    bounds = mean_bounds(getattr(measured.drawn, field), values, level, measured.smallest[:, np.newaxis])
    experts = values.shape[1]
    frame = pd.DataFrame(
        {
            "level": measured.level.level,
            "name": np.repeat(measured.level.names, experts),
            "expert": np.tile(np.arange(experts), len(values)),
            column: values.reshape(-1),
            "low": bounds.low.reshape(-1),
            "high": bounds.high.reshape(-1),
        }
    )
    if column == "load":
        return frame.assign(dead=dead_experts(measured.point.weights).reshape(-1))
    return frame.assign(samples=np.repeat(measured.samples, experts), tokens=np.repeat(measured.tokens, experts))


def _measures(measured: _Measured, level: float) -> pd.DataFrame:
    """Utilisation entropy and token entropy of every name, from 0 to 1."""
    point, drawn = measured.point, measured.drawn
    largest = np.log2(point.weights.shape[-1])
    used = np.minimum(share_of_largest_entropy(point.weights), 1)
    used_bounds = curved_bounds(share_of_largest_entropy(drawn.weights), used, 1.0, level, measured.smallest)
    single = np.minimum(point.entropy / largest, 1)  # equal weights give 1 and a rounding error
    single_bounds = mean_bounds(drawn.entropy / largest, single, level, measured.smallest)
    rows = [
        {"name": name, "measure": measure, "value": values[number], "low": ends.low[number], "high": ends.high[number]}
        for number, name in enumerate(measured.level.names)
        for measure, values, ends in (
            ("utilisation_entropy", used, used_bounds),
            ("token_entropy", single, single_bounds),
        )
    ]
    frame = pd.DataFrame(rows)
    frame.insert(0, "level", measured.level.level)
    return frame


def _information(
    router: RouterRecord, levels: list[_Measured], seed: int, resamples: int, level: float
) -> pd.DataFrame:
    """Mutual information at every level that has two names or more; the more specific level last."""
    compared = [each for each in levels if len(each.level.names) > 1]
    if not compared:
        return pd.DataFrame()
    names = list(router.samples)
    nulls = information_null(router.samples, [each.level.mixing(names) for each in compared], resamples, seed)
    rows = []
    for each, null in zip(compared, nulls, strict=True):
        value = mutual_information(each.point.weights)
        largest = float(np.log2(min(each.point.weights.shape)))
        bounds = curved_bounds(
            mutual_information(each.drawn.weights), value, largest, level, np.array(each.smallest.min())
        )
        rows.append(
            {
                "level": each.level.level,
                "value": float(value),
                "low": float(bounds.low),
                "high": float(bounds.high),
                "null_high": float(np.quantile(null, 0.95)),
                "p_value": p_value(float(value), null),
            }
        )
    return pd.DataFrame(rows)


def _divergence(measured: _Measured, level: float) -> pd.DataFrame:
    """Jensen-Shannon divergence of every pair of names; none where there is one name."""
    names = measured.level.names
    if len(names) < 2:
        return pd.DataFrame()
    values = jensen_shannon(measured.point.weights)
    smallest = np.minimum.outer(measured.smallest, measured.smallest)
    bounds = curved_bounds(jensen_shannon(measured.drawn.weights), values, 1.0, level, smallest)
    return pd.DataFrame(
        {
            "level": measured.level.level,
            "row": np.repeat(names, len(names)),
            "column": np.tile(names, len(names)),
            "value": values.reshape(-1),
            "low": bounds.low.reshape(-1),
            "high": bounds.high.reshape(-1),
        }
    )


def _switched_off(
    router: RouterRecord, record: RoutingRecord, level: Level, seed: int, resamples: int, confidence: float
) -> pd.DataFrame:
    """What the loss gains without each expert, paired by batch."""
    names = list(router.switched)
    if not names:
        return pd.DataFrame()
    # (datasets,), (datasets, experts) and (resamples, datasets, experts)
    losses = np.array([record.losses[name].mean() for name in names])
    changes = {name: router.switched[name] - record.losses[name] for name in names}
    point = np.stack([changes[name].mean(axis=1) for name in names])
    sizes = {name: len(record.losses[name]) for name in names}
    drawn = np.stack(
        [draw_counts(name, sizes[name], resamples, seed) @ changes[name].T / sizes[name] for name in names], axis=1
    )
    mixing = level.mixing(names)
    smallest = np.array([min(sizes[name] for name in pooled) for pooled in level.members.values()])
    bounds: Bounds = percentile_bounds(mixing @ drawn, confidence, smallest[:, np.newaxis])
    experts = point.shape[1]
    return pd.DataFrame(
        {
            "expert": np.tile(np.arange(experts), len(mixing)),
            "level": level.level,
            "name": np.repeat(level.names, experts),
            "loss": np.repeat(mixing @ losses, experts),
            "change": (mixing @ point).reshape(-1),
            "low": bounds.low.reshape(-1),
            "high": bounds.high.reshape(-1),
            "batches": np.repeat([sum(sizes[name] for name in pooled) for pooled in level.members.values()], experts),
        }
    )
