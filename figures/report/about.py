"""What the page says of its runs: settings, digests, sizes, and why runs may not be comparable."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from figures.tables.runs import Material, Run

# Facts of run.json that a reader looks for first, and what they are called; all follow as they are.
FIRST = {
    "settings.connector.kind": "connector",
    "settings.connector.router": "router",
    "settings.connector.strategy": "routed by",
    "settings.connector.num_experts": "experts",
    "parameters.connector": "parameters of the connector",
    "settings.training.steps": "training steps",
    "settings.training.batch_size": "training batch size",
    "settings.training.peak_learning_rate": "peak learning rate",
    "seed": "training seed",
}
QUESTIONS = {
    "gradients": "gradients",
    "routing": "routing weights",
    "features": "features",
    "dynamics": "changes over training",
}


@dataclass(frozen=True)
class Facts:
    """Named facts under one heading."""

    title: str
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class About:
    """A run.

    Attributes:
        name: of the run.
        glance: what a reader looks for first.
        missing: what was not measured of it.
        groups: all its facts.
    """

    name: str
    glance: tuple[tuple[str, str], ...]
    missing: tuple[str, ...]
    groups: tuple[Facts, ...]


def about_runs(material: Material) -> list[About]:
    """The facts of every run."""
    return [About(run.name, tuple(_glance(run)), tuple(_missing(run)), tuple(_groups(run))) for run in material.runs]


def differing_warnings(material: Material) -> list[str]:
    """Why runs of one page may not be comparable, beyond what the tables' reader refuses."""
    found = []
    runs = [run for run in material.runs if run.gradients is not None]
    datasets = {run.name: set(run.gradients.levels["dataset"].gd.index) for run in runs if run.gradients}
    every = set().union(*datasets.values()) if datasets else set()
    for name, present in datasets.items():
        if lacking := sorted(every - present):
            found.append(f"{name} lacks {', '.join(lacking)}, which another run has: their indexes add up over fewer.")
    for key, what in (("parameters", "parameters"), ("seed", "seeds of the draw of batches")):
        values = {run.name: str(run.gradients.metadata.get(key)) for run in runs if run.gradients}
        if len(set(values.values())) > 1:
            listed = "; ".join(f"{name}: {value}" for name, value in values.items())
            found.append(f"Runs were measured with different {what} ({listed}); compare them with care.")
    unfinished = [run.name for run in material.runs if run.about.get("exit_reason", "finished") != "finished"]
    if unfinished:
        found.append(f"Training did not end by itself: {', '.join(unfinished)}.")
    return found


def _glance(run: Run) -> Iterator[tuple[str, str]]:
    """Of run.json what is set, and of the gradients how they were measured."""
    known = dict(_flat(run.about))
    routed = known.get("settings.connector.kind") == "cmoe"
    for key, name in FIRST.items():
        of_router = key.startswith("settings.connector.") and not key.endswith(".kind")
        if known.get(key, "null") != "null" and (routed or not of_router):
            yield name, f"{int(known[key]):,}" if known[key].isdigit() else known[key]
    if run.gradients is not None:
        yield "probed parameters", str(run.gradients.metadata.get("parameters", "all selected"))
        counts = [int(number) for number in run.gradients.batches]
        each = f"{min(counts):,}" if min(counts) == max(counts) else f"{min(counts):,} to {max(counts):,}"
        yield "probed batches per dataset", each
        yield "datasets", f"{len(run.gradients.levels['dataset'].gd):,}"
        yield "estimator", run.gradients.estimator


def _missing(run: Run) -> Iterator[str]:
    for question, text in QUESTIONS.items():
        if getattr(run, question) is None:
            yield f"{text} (tugofwar {question})"


def _groups(run: Run) -> Iterator[Facts]:
    if run.about:
        yield Facts("Training (run.json)", tuple(_flat(run.about)))
    if run.gradients is not None:
        measured = {
            "estimator": run.gradients.estimator,
            "interval level": run.gradients.interval_level,
            "resamples": run.gradients.resamples,
            "batches per dataset": list(run.gradients.batches),
            "not touching the parameters": list(run.gradients.untouched),
            "tasks": run.gradients.tasks,
        }
        yield Facts("Gradients", tuple(_flat(measured | dict(run.gradients.metadata))))
    for question in ("routing", "features", "dynamics"):
        tables = getattr(run, question)
        if tables is not None:
            yield Facts(QUESTIONS[question].capitalize(), tuple(_flat(tables.manifest)))


def _flat(content: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Names with dots, and values as text; a list of plain values is one value."""
    for name, value in content.items():
        key = f"{before}{name}"
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{key}.")
        elif isinstance(value, list) and all(not isinstance(item, list | Mapping) for item in value):
            yield key, " ".join(map(str, value)) if name == "command" else ", ".join(map(str, value)) or "none"
        elif isinstance(value, str):
            yield key, value
        else:
            yield key, json.dumps(value, ensure_ascii=False)
