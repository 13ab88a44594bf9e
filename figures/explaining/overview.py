"""The findings and warnings of everything that was measured, for the head of the report."""

from collections.abc import Callable, Iterator

from figures.explaining import ablation, difference, dynamics, features, interference, routing, scores
from figures.explanation import Explanation
from figures.tables.runs import Material, Run

Entry = tuple[str, Explanation]


def findings(material: Material) -> list[tuple[str, str]]:
    """Supported findings in order of importance, each with the kind of the picture it belongs to."""
    texts = [(kind, told.finding) for kind, told in explanations(material) if told.finding is not None]
    return list(dict.fromkeys(texts))


def warnings(material: Material) -> list[str]:
    """Every warning once."""
    return list(dict.fromkeys(text for _, told in explanations(material) for text in told.warnings))


def explanations(material: Material) -> Iterator[Entry]:
    """The text beside every picture there is material for, in order of importance."""
    yield from _interference(material)
    yield from _differences(material)
    yield from _scores(material)
    for run in material.runs:
        yield from _routing(run)
    yield from _features(material)
    for table in material.ablations:
        yield "forest", ablation.forest(table)
    for run in material.runs:
        yield from _dynamics(run)
    yield from _parts(material)


def _interference(material: Material) -> Iterator[Entry]:
    for run in material.measured:
        for level in reversed(run.levels):
            yield "interference", interference.heatmap(run, level)
            yield "intervals", interference.intervals(run, level)
    if material.measured:
        yield "indexes", interference.indexes(material.measured)


def _differences(material: Material) -> Iterator[Entry]:
    for tables in material.differences:
        for level in reversed(tables.gd):
            yield "difference", difference.maps(tables, level)
        for level in reversed(tables.index):
            yield "difference", difference.indexes(tables, level)
        for level in reversed(tables.scores):
            yield "difference", difference.scores(tables, level)


def _scores(material: Material) -> Iterator[Entry]:
    for level in ("task", "dataset"):
        runs = [run for run in material.measured if level in run.levels and run.levels[level].scores is not None]
        if runs:
            yield "scores", scores.distribution(runs, level)


def _routing(run: Run) -> Iterator[Entry]:
    if run.routing is None:
        return
    optional: list[tuple[str, object, Callable[[Run, str], Explanation]]] = [
        ("routing", run.routing.information, routing.information),
        ("routing", run.routing.weights, routing.weights),
        ("routing", run.routing.measures, routing.measures),
        ("routing", run.routing.load, routing.load),
        ("routing", run.routing.divergence, routing.divergence),
        ("routing", run.routing.switched_off, routing.switched_off),
        ("tokens", run.routing.tokens, routing.tokens),
    ]
    for router in run.routing.routers:
        for kind, table, explain in optional:
            if table is not None:
                yield kind, explain(run, router)


def _features(material: Material) -> Iterator[Entry]:
    runs = [run for run in material.runs if run.features is not None]
    for number in (2, 3):
        drawn = [run for run in runs if run.features is not None and number in run.features.embeddings]
        if drawn:
            yield "features", features.embedding(drawn, number)
    for attribute, explain in (
        ("separation", features.separation),
        ("alignment", features.alignment),
        ("stability", features.stability),
    ):
        having = [run for run in runs if getattr(run.features, attribute) is not None]
        if having:
            yield "separation", explain(having)


def _dynamics(run: Run) -> Iterator[Entry]:
    if run.dynamics is None:
        return
    for level in reversed(run.dynamics.index):
        yield "dynamics", dynamics.index(run, level)
    for level in reversed(run.dynamics.gd):
        yield "dynamics", dynamics.gd(run, level)
    if run.dynamics.routing is not None:
        yield "dynamics", dynamics.routing(run)


def _parts(material: Material) -> Iterator[Entry]:
    for run in material.measured:
        for level in reversed(run.levels):
            if run.levels[level].index_blocks is not None:
                yield "breakdown", interference.breakdown(run, level)
            if run.levels[level].score_blocks is not None:
                yield "scores", scores.blocks(run, level)
