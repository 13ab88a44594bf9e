"""Which pictures there are of what was measured, each made when it is asked for."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import pandas as pd

from figures.breakdown import block_intervals, block_maps, mean_direction
from figures.explaining import ablation as ablation_texts
from figures.explaining import interference as texts
from figures.explaining import scores as score_texts
from figures.forest import delta_forest
from figures.gallery_of_changes import difference_pictures, dynamics_pictures
from figures.gallery_of_parts import feature_pictures, routing_pictures, separation_pictures, token_pictures
from figures.indexes import index_comparison
from figures.interference import interference_heatmap
from figures.intervals import interval_forest
from figures.picture import Picture, level_suffix, stem_of
from figures.scores import score_blocks, score_distribution
from figures.tables.gradients import LEVELS, GradientTables
from figures.tables.runs import Material


def _interference(material: Material, look: str) -> Iterator[Picture]:
    for run in material.measured:
        for level, tables in run.levels.items():
            told = texts.heatmap(run, level)
            figure = interference_heatmap(tables.gd, tables.gm, run.tasks, told.title, tables.sign_uncertain, look)
            keys = ["row", "column"]
            table = tables.gd_intervals.merge(
                tables.gm_intervals, on=keys, suffixes=("_gd", "_gm"), validate="one_to_one"
            )
            yield Picture(stem_of("interference", run.name, level_suffix(level)), figure, table, told)


def _intervals(material: Material, look: str) -> Iterator[Picture]:
    for run in material.measured:
        for level, tables in run.levels.items():
            if len(tables.gd) == 1:
                continue
            for measure, table in (("GD", tables.gd_intervals), ("GM", tables.gm_intervals)):
                told = texts.intervals(run, level, measure)
                figure = interval_forest(table, measure, run.tasks, told.title, look)
                stem = stem_of("intervals", measure.lower(), run.name, level_suffix(level))
                yield Picture(stem, figure, table, told)


def _indexes(material: Material, look: str) -> Iterator[Picture]:
    shown = {level: _normalised(material.measured, level) for level in LEVELS}
    if not shown["dataset"]:
        return
    tasks = {name: task for run in material.measured for name, task in run.tasks.items()}
    told = texts.indexes(material.measured)
    figure = index_comparison(shown["dataset"], shown["task"], tasks, told.title, look)
    parts = [
        table.drop(columns="task", errors="ignore").rename_axis("name").reset_index().assign(run=run, level=level)
        for level, tables in shown.items()
        for run, table in tables.items()
    ]
    table = pd.concat(parts, ignore_index=True)
    leading = ["run", "level", "name"]
    ordered = table[leading + [column for column in table if column not in leading]]
    yield Picture("tug_of_war_indexes", figure, ordered, told)


def _normalised(runs: Sequence[GradientTables], level: str) -> dict[str, pd.DataFrame]:
    """Indexes of the runs that have a largest one to be divided by; the explanation names the others."""
    found = {run.name: run.levels[level].index for run in runs if level in run.levels}
    return {name: table for name, table in found.items() if "index_normalised" in table}


def _breakdown(material: Material, look: str) -> Iterator[Picture]:
    for run in material.measured:
        for level, tables in run.levels.items():
            index, gd = tables.index_blocks, tables.gd_blocks
            if index is None or gd is None or index.empty:
                continue
            told = texts.breakdown(run, level)
            stem = stem_of("breakdown", run.name, level_suffix(level))
            means = mean_direction(gd).rename(columns={"value": "mean_gd_with_others"})
            table = index.merge(means, on=["block", "name"], how="left") if len(means) else index
            yield Picture(stem, block_maps(index, gd, run.tasks, told.title, look), table, told)
            stem = stem_of("breakdown_intervals", run.name, level_suffix(level))
            yield Picture(stem, block_intervals(index, run.tasks, told.title, look), index, told)


def _scores(material: Material, look: str) -> Iterator[Picture]:
    for level in LEVELS:
        runs = [run for run in material.measured if level in run.levels and run.levels[level].scores is not None]
        tables = {run.name: table for run in runs if (table := run.levels[level].scores) is not None}
        if tables:
            told = score_texts.distribution(runs, level)
            joined = pd.concat([table.assign(run=name) for name, table in tables.items()], ignore_index=True)
            figure = score_distribution(tables, told.title, look)
            yield Picture(stem_of("scores", level_suffix(level)), figure, joined, told)
        for run in runs:
            blocks = run.levels[level].score_blocks
            if blocks is not None:
                told = score_texts.blocks(run, level)
                stem = stem_of("scores_blocks", run.name, level_suffix(level))
                yield Picture(stem, score_blocks(blocks, told.title, look), blocks, told)


def _forest(material: Material, look: str) -> Iterator[Picture]:
    for tables in material.ablations:
        told = ablation_texts.forest(tables)
        figure = delta_forest(tables.deltas, tables.waiting, told.title, look)
        yield Picture(stem_of("forest", tables.name, tables.flavour), figure, tables.deltas, told)


PICTURES: Mapping[str, Callable[[Material, str], Iterator[Picture]]] = {
    "interference": _interference,
    "intervals": _intervals,
    "indexes": _indexes,
    "breakdown": _breakdown,
    "scores": _scores,
    "routing": routing_pictures,
    "tokens": token_pictures,
    "features": feature_pictures,
    "separation": separation_pictures,
    "dynamics": dynamics_pictures,
    "difference": difference_pictures,
    "forest": _forest,
}
"""What makes the pictures of each kind, in the order they are made in; ``--only`` takes these names."""
