"""Models side by side in the layouts of Tables 3 and 6."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from analyses.ablation_scores import METRIC_NAMES, Score, require_flavour, score, value_text
from analyses.paper_tables import DATASETS, Published, comparison
from analyses.printing import ABSENT, Cell, Grid, printed, require_format
from tugofwar.errors import UserError
from unimed_model.closed import nearest
from unimed_model.comparing import open_side
from unimed_model.scoring import Tally

LAYOUTS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "3": {
        "VQA": ("bleu_1", "f1"),
        "RG": ("bleu_1", "bleu_4", "rouge_1", "rouge_2", "rouge_l", "meteor"),
        "CLS": ("accuracy",),
    },
    "6": {
        "REC": ("iou", "recall_at_0.5"),
        "REG": ("bleu_1", "f1", "accuracy"),
    },
}
"""Layout -> task -> its metrics, in the paper's order."""

PAPER = "published"
"""Stands after the name of a model whose numbers are the paper's own."""

LEAKAGE = "leakage"
Sides = Mapping[str, Mapping[str, Sequence[Tally]]]
"""Model -> dataset -> tallies of its runs."""

_SEPARATORS = str.maketrans("", "", "-_. ")


@dataclass(frozen=True)
class _Line:
    """A metric of a dataset: the score of every model that has it."""

    task: str
    dataset: str
    metric: str
    scores: Mapping[str, Score]


def table_text(models: Sequence[str], layout: str, form: str, flavour: str, with_paper: bool = False) -> str:
    """Return a table of models.

    Args:
        models: ``name=where``; where is a run folder, evaluation folder or prediction file, or several (seeds) joined
            by commas.
        layout: ``3`` or ``6``.
        form: ``markdown``, ``csv`` or ``latex``.
        flavour: ``paper`` or ``released``.
        with_paper: also show the paper's published numbers.

    Raises:
        UserError: an unknown layout, format or flavour, a model that cannot be read, or none that has anything to show.
    """
    require_format(form)
    require_flavour(flavour)
    if layout not in LAYOUTS:
        raise UserError(f"There is no layout {layout!r}; the nearest is {nearest(layout, LAYOUTS)!r}.")
    sides = _opened(models)
    published = [number for number in comparison() if number.table == layout] if with_paper else []
    lines = _lines(sides, LAYOUTS[layout], flavour, {number.dataset: number.task for number in published})
    if not any(line.scores for line in lines):
        raise UserError(
            f"No model has answered a dataset of Table {layout}, whose tasks are {', '.join(LAYOUTS[layout])}."
        )
    notes = [*_how(sides), *_samples(sides, {line.dataset for line in lines}), *_reasons(lines)]
    names = list(sides)
    if published:
        names += [_published(model) for model in dict.fromkeys(number.model for number in published)]
        lines = _with_paper(lines, published)
        notes.append(_about_paper(published))
    grid = Grid(
        f"Table {layout}: comparison of models (scores as in: {flavour})",
        ["Task", "Dataset", "Metric", *names],
        [_row(line, names, sides) for line in lines],
        notes,
        [number for number in range(1, len(lines)) if lines[number].dataset != lines[number - 1].dataset],
    )
    return printed(form, grid, _records(lines, sides, names, flavour))


def _opened(models: Sequence[str]) -> dict[str, dict[str, list[Tally]]]:
    sides: dict[str, dict[str, list[Tally]]] = {}
    for model in models:
        name, separator, where = model.partition("=")
        if not name or not separator or not where:
            raise UserError(f"A model is given as NAME=WHERE, such as uni-med=runs/a, not {model!r}.")
        if name in sides:
            raise UserError(f"The model {name!r} is given twice; join its seeds with commas.")
        sides[name] = open_side(where)
    return sides


def _lines(sides: Sides, metrics: Mapping[str, Sequence[str]], flavour: str, further: Mapping[str, str]) -> list[_Line]:
    """Metrics of all datasets that any model has answered, and of further ones (dataset -> task)."""
    lines = []
    for task, names in metrics.items():
        for key, dataset in _datasets(sides, task, further).items():
            answered = {model: runs for model, side in sides.items() if (runs := _of_dataset(side, key, task))}
            for metric in names:
                scores = {model: score(runs, metric, flavour) for model, runs in answered.items()}
                lines.append(_Line(task, dataset, metric, scores))
    return lines


def _datasets(sides: Sides, task: str, further: Mapping[str, str]) -> dict[str, str]:
    """Spelling-free name -> name of a task's datasets: the paper's first, in its order, by our names of them."""
    ours = {_key(name): name for name in DATASETS}
    found = {_key(name): name for side in sides.values() for name, runs in side.items() if runs[0].task == task}
    found |= {_key(name): name for name, its_task in further.items() if its_task == task}
    order = [*(key for key in ours if key in found), *found]
    return {key: ours.get(key, found[key]) for key in order}


def _of_dataset(side: Mapping[str, Sequence[Tally]], key: str, task: str) -> Sequence[Tally]:
    return next((runs for name, runs in side.items() if _key(name) == key and runs[0].task == task), ())


def _key(dataset: str) -> str:
    """A dataset's name without what spellings differ in: Slake-VQA and slake_vqa are one."""
    return dataset.lower().translate(_SEPARATORS)


def _with_paper(lines: Sequence[_Line], published: Sequence[Published]) -> list[_Line]:
    of_paper: dict[tuple[str, str], dict[str, Score]] = {}
    for number in published:
        shown = Score(number.value, deviation=number.deviation, reason=LEAKAGE if number.leakage else None)
        of_paper.setdefault((number.dataset, number.metric), {})[_published(number.model)] = shown
    return [
        _Line(line.task, line.dataset, line.metric, {**line.scores, **of_paper.get((line.dataset, line.metric), {})})
        for line in lines
    ]


def _row(line: _Line, names: Sequence[str], sides: Sides) -> list[Cell | str]:
    known = {name: line.scores.get(name, Score()) for name in names}
    # as printed, so that equal numbers are marked alike; what was not measured here takes no part
    measured = {round(s.value, 2) for name, s in known.items() if name in sides and s.value is not None}
    ranked = sorted(measured, reverse=True)
    cells = [_cell(found, ranked if name in sides else ()) for name, found in known.items()]
    return [line.task, DATASETS.get(line.dataset, line.dataset), METRIC_NAMES[line.metric], *cells]


def _cell(found: Score, ranked: Sequence[float]) -> Cell:
    if found.value is None:
        return Cell(ABSENT)
    star = "*" if found.reason == LEAKAGE else ""
    marks: dict[int, Literal["best", "second"]] = {0: "best", 1: "second"}
    place = ranked.index(round(found.value, 2)) if len(ranked) > 1 else None
    return Cell(value_text(found) + star, None if place is None else marks.get(place))


def _how(sides: Sides) -> list[str]:
    runs = {name: len(next(iter(side.values()))) for name, side in sides.items()}
    several = ", ".join(f"{name} ({count} runs)" for name, count in runs.items() if count > 1)
    notes = ["Values in percent, [95 % interval]. Bold: best; underlined: second best."]
    return [*notes, f"Mean ± standard deviation over runs: {several}."] if several else notes


def _samples(sides: Sides, datasets: set[str]) -> list[str]:
    """Datasets of which the models have answered different samples, so that their numbers do not compare."""
    notes = []
    for dataset in (name for name in dict.fromkeys([*DATASETS, *sorted(datasets)]) if name in datasets):
        asked = {
            model: frozenset(runs[0].ids)
            for model, side in sides.items()
            for name, runs in side.items()
            if _key(name) == _key(dataset)
        }
        if len(set(asked.values())) > 1:
            common = len(frozenset.intersection(*asked.values()))
            counts = ", ".join(f"{model} {len(ids)}" for model, ids in asked.items())
            notes.append(
                f"{DATASETS.get(dataset, dataset)}: the models answered different samples ({counts}; {common} ids in "
                "common), so these numbers do not compare models alone."
            )
    return notes


def _reasons(lines: Sequence[_Line]) -> list[str]:
    where: dict[str, list[str]] = {}
    for line in lines:
        for model, found in line.scores.items():
            if found.reason:
                where.setdefault(found.reason.rstrip("."), []).append(f"{model} {METRIC_NAMES[line.metric]}")
    return [f"No value or no interval, {reason}: {', '.join(places)}." for reason, places in where.items()]


def _published(model: str) -> str:
    return f"{model} ({PAPER})"


def _about_paper(published: Sequence[Published]) -> str:
    leaked = any(number.leakage for number in published)
    text = (
        f"({PAPER}): as printed in the paper (arXiv 2409.17508), of its own models, data and scripts; not "
        "measured here and not marked."
    )
    return text + (" *: the authors saw the test set in that model's training data." if leaked else "")


def _records(lines: Sequence[_Line], sides: Sides, names: Sequence[str], flavour: str) -> list[dict[str, Any]]:
    return [
        {
            "task": line.task,
            "dataset": line.dataset,
            "metric": line.metric,
            "model": name,
            "source": "measured" if name in sides else PAPER,
            "runs": len(_of_dataset(sides[name], _key(line.dataset), line.task)) if name in sides else None,
            "flavour": flavour if name in sides else None,
            "value": line.scores[name].value,
            "low": line.scores[name].low,
            "high": line.scores[name].high,
            "deviation": line.scores[name].deviation,
            "reason": line.scores[name].reason,
        }
        for line in lines
        for name in names
        if name in line.scores
    ]
