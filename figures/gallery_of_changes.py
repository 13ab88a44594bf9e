"""Pictures of what changes: during training, and from one run to another."""

from collections.abc import Iterator

import pandas as pd

from figures.difference import difference_indexes, difference_maps, difference_scores
from figures.dynamics import gd_over_steps, index_over_steps, routing_over_steps
from figures.explaining import difference as difference_texts
from figures.explaining import dynamics as texts
from figures.picture import Picture, level_suffix, stem_of
from figures.tables.difference import DifferenceTables
from figures.tables.dynamics import DynamicsTables
from figures.tables.runs import Material, Run


def dynamics_pictures(material: Material, look: str) -> Iterator[Picture]:
    """Indexes, GD and routing over steps, of every run that was followed."""
    for run in material.runs:
        if run.dynamics is not None:
            yield from _of_training(run, run.dynamics, look)


def _of_training(run: Run, tables: DynamicsTables, look: str) -> Iterator[Picture]:
    for level, index in tables.index.items():
        told = texts.index(run, level)
        figure = index_over_steps(index, tables.tasks, told.title, look)
        yield Picture(stem_of("dynamics_index", run.name, level_suffix(level)), figure, index, told)
    for level, gd in tables.gd.items():
        if (gd["row"] != gd["column"]).any():
            told = texts.gd(run, level)
            figure = gd_over_steps(gd, tables.tasks, told.title, look)
            yield Picture(stem_of("dynamics_gd", run.name, level_suffix(level)), figure, gd, told)
    if tables.routing is not None:
        told = texts.routing(run)
        figure = routing_over_steps(tables.routing, told.title, look)
        yield Picture(stem_of("dynamics_routing", run.name), figure, tables.routing, told)


def difference_pictures(material: Material, look: str) -> Iterator[Picture]:
    """Maps, indexes and scores of every difference between the runs."""
    for tables in material.differences:
        tasks = {name: task for run in material.runs for name, task in run.tasks.items()}
        yield from _of_difference(tables, tasks, look)


def _of_difference(tables: DifferenceTables, tasks: dict[str, str], look: str) -> Iterator[Picture]:
    def stem(what: str, level: str) -> str:
        return stem_of("difference", what, tables.b, "minus", tables.a, level_suffix(level))

    for level in tables.gd:
        if level in tables.gm:
            told = difference_texts.maps(tables, level)
            gd, gm = tables.gd[level], tables.gm[level]
            cells = pd.concat([gd.assign(measure="GD"), gm.assign(measure="GM")], ignore_index=True)
            figure = difference_maps(gd, gm, tasks, told.title, look)
            yield Picture(stem("maps", level), figure, cells, told)
    for level, index in tables.index.items():
        told = difference_texts.indexes(tables, level)
        figure = difference_indexes(index, tasks, told.title, look)
        yield Picture(stem("indexes", level), figure, index, told)
    for level, scores in tables.scores.items():
        told = difference_texts.scores(tables, level)
        figure = difference_scores(scores, tables.a, tables.b, told.title, look)
        yield Picture(stem("scores", level), figure, scores, told)
