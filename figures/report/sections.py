"""The order of the page: one section per question, each with its pictures."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from figures.report.chart import Picture
from figures.report.plots import ablation, difference, dynamics, features, gradients, routing, scores, tokens
from figures.tables.runs import Material


@dataclass(frozen=True, eq=False)
class Section:
    """One question.

    Attributes:
        name: in links.
        title: the question, in a few words.
        lead: the question in a sentence.
        pictures: its answers.
    """

    name: str
    title: str
    lead: str
    pictures: Sequence[Picture]


# Pictures that a kind of `--only` has beside the one of its own name.
KINDS = {
    "intervals": "interference",
    "breakdown-cells": "breakdown",
    "features-2d": "features",
    "features-3d": "features",
    "dynamics-index": "dynamics",
}
# What pictures are called in the table of contents, whatever their pickers stand at.
LABELS = {
    "interference": "GD and GM maps",
    "intervals": "Intervals of GD and GM",
    "indexes": "Tug-of-war indexes",
    "breakdown": "Indexes by part of the network",
    "breakdown-cells": "GD and GM by part",
    "difference": "GD and GM",
    "difference-indexes": "Indexes",
    "difference-scores": "Statistics scores",
    "scores": "Statistics scores",
    "score-blocks": "Scores by block",
    "routing": "Routing weights and load",
    "routing-measures": "Entropies and information",
    "routing-divergence": "Divergence between tasks",
    "switched-off": "Experts switched off",
    "tokens": "Weights on images",
    "features-2d": "t-SNE, flat",
    "features-3d": "t-SNE, in space",
    "separation": "Separation of groups",
    "alignment": "Before against after (CKA)",
    "stability": "Stability over seeds",
    "dynamics-index": "Indexes over steps",
    "dynamics-gd": "GD and GM over steps",
    "dynamics-routing": "Routing over steps",
    "dynamics-loss": "Loss over steps",
    "forest": "Gains over the baseline",
}


def sections(material: Material) -> list[Section]:
    """The questions that the material answers."""
    runs, measured = material.runs, material.measured
    tasks = {name: task for run in runs for name, task in run.tasks.items()}
    every = [
        Section(
            "gradients",
            "Who pulls against whom",
            "A training step for one dataset moves parameters that all datasets share. Does it help the others, or "
            "harm them, and how surely is that known?",
            gradients.pictures(measured),
        ),
        Section(
            "differences",
            "What differs between runs",
            "Two runs measured on the same batches: which of their differences are sure, and which may be chance?",
            difference.pictures(material.differences, tasks),
        ),
        Section(
            "parameters",
            "How many parameters are torn",
            "A parameter is torn where datasets pull it in opposite directions; noise alone makes many look torn, "
            "hence the two nulls.",
            scores.pictures(measured),
        ),
        Section(
            "routers",
            "How the router divides the work",
            "A mixture of experts gives every token to its experts by weights: do tasks get experts of their own, and "
            "what is lost without one?",
            [*routing.pictures(runs), *tokens.pictures(runs)],
        ),
        Section(
            "representations",
            "What the connector does to features",
            "The same samples before and after the connector: what lies together, and is it more than a nice picture?",
            features.pictures(runs),
        ),
        Section(
            "training",
            "How it changes during training",
            "The same measures at several steps of training, and the loss that they are gradients of.",
            dynamics.pictures(runs),
        ),
        Section(
            "arms",
            "How good each arm is",
            "Gains of the arms of an ablation over its baseline.",
            ablation.pictures(material.ablations),
        ),
    ]
    # A single dataset has no pairs, hence no picture of pairs over steps.
    shown = [replace(section, pictures=[one for one in section.pictures if one.views]) for section in every]
    return [section for section in shown if section.pictures]
