"""Pictures of routers and of features."""

from collections.abc import Callable, Iterator

import pandas as pd
from matplotlib.figure import Figure

from figures.explaining import features as feature_texts
from figures.explaining import routing as texts
from figures.explanation import Explanation
from figures.features import COLOURINGS, feature_map
from figures.picture import Picture, stem_of
from figures.routing import (
    expert_load,
    routing_divergence,
    routing_information,
    routing_maps,
    routing_measures,
    switched_off_experts,
)
from figures.separation import feature_alignment, picture_stability, separation_measures
from figures.tables.routing import RoutingTables
from figures.tables.runs import Material, Run
from figures.tokens import chosen_tokens, token_weights


def routing_pictures(material: Material, look: str) -> Iterator[Picture]:
    """Maps, measures, load, divergence and switched-off experts of every router of every run."""
    for run in material.runs:
        if run.routing is not None:
            for router in run.routing.routers:
                yield from _of_router(run, run.routing, router, look)


def _of_router(run: Run, tables: RoutingTables, router: str, look: str) -> Iterator[Picture]:
    def stem(what: str) -> str:
        return stem_of("routing", what, run.name, router if len(tables.routers) > 1 else "")

    tasks, labels = tables.tasks, tables.labels
    weights, measures, load = (_of(table, router) for table in (tables.weights, tables.measures, tables.load))
    told = texts.weights(run, router)
    yield Picture(stem("weights"), routing_maps(weights, labels, tasks, told.title, look), weights, told)
    told = texts.measures(run, router)
    yield Picture(stem("measures"), routing_measures(measures, labels, tasks, told.title, look), measures, told)
    if tables.information is not None:
        information = _of(tables.information, router)
        told = texts.information(run, router)
        figure = routing_information(information, labels, told.title, look)
        yield Picture(stem("information"), figure, information, told)
    told = texts.load(run, router)
    yield Picture(stem("load"), expert_load(load, labels, tasks, told.title, look), load, told)
    divergence = None if tables.divergence is None else _of(tables.divergence, router)
    # Of a single name there is no other to diverge from.
    if divergence is not None and (divergence["row"] != divergence["column"]).any():
        told = texts.divergence(run, router)
        figure = routing_divergence(divergence, labels, tasks, told.title, look)
        yield Picture(stem("divergence"), figure, divergence, told)
    if tables.switched_off is not None:
        changes = _last(_of(tables.switched_off, router), tables)
        told = texts.switched_off(run, router)
        figure = switched_off_experts(changes, tasks, _at_last(told.title, changes, tables), look)
        yield Picture(stem("switched_off"), figure, changes, told)


def token_pictures(material: Material, look: str) -> Iterator[Picture]:
    """Weights of tokens over images, of every router that has any."""
    for run in material.runs:
        tables = run.routing
        if tables is None or tables.tokens is None:
            continue
        for router in tables.routers:
            tokens = _last(_of(tables.tokens, router), tables)
            tokens = tokens[tokens["image"].isin(list(tables.images))]
            if tokens.empty:
                continue
            told = texts.tokens(run, router)
            title = _at_last(told.title, tokens, tables)
            figure = token_weights(tokens, tables.images, tables.tasks, title, look)
            stem = stem_of("tokens", run.name, router if len(tables.routers) > 1 else "")
            yield Picture(stem, figure, chosen_tokens(tokens, tables.tasks), told)


def feature_pictures(material: Material, look: str) -> Iterator[Picture]:
    """t-SNE pictures of all runs side by side, in two and in three dimensions, by task and by dataset."""
    for dimensions in (2, 3):
        runs = [run for run in material.runs if run.features and dimensions in run.features.embeddings]
        if not runs:
            continue
        told = feature_texts.embedding(runs, dimensions)
        tables = {
            run.name: table[table["seed"] == run.features.manifest["seeds"][0]]
            for run in runs
            if run.features is not None and (table := run.features.embeddings[dimensions]) is not None
        }
        joined = _joined(tables)
        for colouring in COLOURINGS:
            if colouring == "task" and not material_tasks(runs):
                continue
            figure = feature_map(tables, material_tasks(runs), colouring, f"{told.title}, by {colouring}", look)
            yield Picture(stem_of("features", f"{dimensions}d", colouring), figure, joined, told)


def separation_pictures(material: Material, look: str) -> Iterator[Picture]:
    """Separation, alignment and stability of all runs that have them."""
    makers: tuple[tuple[str, Callable[[list[Run]], Explanation], Callable[..., Figure]], ...] = (
        ("separation", feature_texts.separation, separation_measures),
        ("alignment", feature_texts.alignment, feature_alignment),
        ("stability", feature_texts.stability, picture_stability),
    )
    for name, explain, draw in makers:
        runs = [run for run in material.runs if run.features and getattr(run.features, name) is not None]
        if not runs:
            continue
        tables = {run.name: getattr(run.features, name) for run in runs}
        told = explain(runs)
        tasks = {} if name == "stability" else {"tasks": material_tasks(runs)}
        figure = draw(tables, title=told.title, look=look, **tasks)
        stem = "features_separation" if name == "separation" else f"features_{name}"
        yield Picture(stem, figure, _joined(tables), told)


def material_tasks(runs: list[Run]) -> dict[str, str]:
    """Task of each dataset of several runs."""
    return {name: task for run in runs for name, task in run.tasks.items()}


def _joined(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    return pd.concat([table.assign(run=name) for name, table in tables.items()], ignore_index=True)


def _of(table: pd.DataFrame, router: str) -> pd.DataFrame:
    return table[table["router"] == router]


def _at_last(title: str, table: pd.DataFrame, tables: RoutingTables) -> str:
    """A title that says which checkpoint of a table with one only is shown, where the run has several."""
    return f"{title}, {tables.labels[table['checkpoint'].iloc[0]]}" if len(tables.checkpoints) > 1 else title


def _last(table: pd.DataFrame, tables: RoutingTables) -> pd.DataFrame:
    """Rows of the latest checkpoint that the table has."""
    there = set(table["checkpoint"])
    found = [name for name in tables.checkpoints if name in there]
    return table[table["checkpoint"] == found[-1]] if found else table
