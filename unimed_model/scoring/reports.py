"""RG: how much of a report's wording a generated report has, in both flavours."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from . import java, paper
from .answers import Answer
from .bleu import statistics as bleu_statistics
from .counts import is_empty
from .meteor import additive
from .rouge import rouge
from .statistics import Metric, Reasons, Statistics, counted, spread
from .words import generated, normalise

ROUGES = ("rouge_1", "rouge_2", "rouge_l")
BLEUS = ("bleu_1", "bleu_4")

ALL_EMPTY = "no sample is left: the released scripts leave out those whose prediction or reference is empty"


def paper_statistics(answers: Sequence[Answer]) -> Statistics:
    """Return BLEU-1, BLEU-4 (eq. 19), ROUGE (eq. 20 and 21) and METEOR (eq. 22); an empty answer scores 0."""
    pairs = [(answer.prediction, answer.reference) for answer in answers]
    rouges = np.array([paper.rouge(*pair) for pair in pairs])
    return {
        ("bleu_1", "paper"): counted([paper.bleu(*pair, 1) for pair in pairs]),
        ("bleu_4", "paper"): counted([paper.bleu(*pair, 4) for pair in pairs]),
        **{(name, "paper"): counted(rouges[:, column]) for column, name in enumerate(ROUGES)},
        ("meteor", "paper"): counted([paper.meteor(*pair) for pair in pairs]),
    }


def dropped(answer: Answer) -> bool:
    """Return whether the released scripts leave a sample out of all scores of reports."""
    return is_empty(generated(answer.prediction)) or is_empty(answer.reference)


def released_statistics(answers: Sequence[Answer]) -> tuple[Statistics, Reasons]:
    """Return corpus BLEU of PTB tokens, corpus METEOR of normalised PTB tokens, and ROUGE of normalised text."""
    kept = [index for index, answer in enumerate(answers) if not dropped(answer)]
    ours = [generated(answers[index].prediction) for index in kept]
    theirs = [answers[index].reference for index in kept]
    plain_ours, plain_theirs = ([normalise(text) for text in texts] for texts in (ours, theirs))
    rouges, reasons = _rouges(plain_ours, plain_theirs)
    found, no_java = _java_scores(ours, theirs, plain_ours, plain_theirs)
    everything = {name: spread(values, kept, len(answers)) for name, values in {**rouges, **found}.items()}
    return everything, {**reasons, **no_java}


def bleu(answers: Sequence[Answer]) -> tuple[Statistics, Reasons]:
    """Return BLEU-1 and BLEU-4 alone, in both flavours: METEOR's program takes seconds to start."""
    pairs = [(answer.prediction, answer.reference) for answer in answers]
    paper_bleus: Statistics = {
        (name, "paper"): counted([paper.bleu(*pair, order) for pair in pairs])
        for name, order in (("bleu_1", 1), ("bleu_4", 4))
    }
    kept = [index for index, answer in enumerate(answers) if not dropped(answer)]
    names: list[Metric] = [(name, "released") for name in BLEUS]
    if not kept:
        return paper_bleus, dict.fromkeys(names, ALL_EMPTY)
    texts = [generated(answers[index].prediction) for index in kept], [answers[index].reference for index in kept]
    try:
        tokens = java.ptb_tokenised([text for side in texts for text in side])
    except java.Unavailable as error:
        return paper_bleus, dict.fromkeys(names, str(error))
    counts = spread(_bleu_counts(tokens[: len(kept)], tokens[len(kept) :]), kept, len(answers))
    return {**paper_bleus, **dict.fromkeys(names, counts)}, {}


def _rouges(ours: Sequence[str], theirs: Sequence[str]) -> tuple[Statistics, Reasons]:
    # the scripts normalise once more here, and leave out what has no word left
    scores = [rouge(normalise(a), normalise(b)) for a, b in zip(ours, theirs, strict=True)]
    values = np.array([(0.0,) * 4 if found is None else (*found, 1.0) for found in scores]).reshape(-1, 4)
    names: list[Metric] = [(name, "released") for name in ROUGES]
    if not values[:, 3].any():
        return {}, dict.fromkeys(names, ALL_EMPTY)
    return {name: values[:, [column, 3]] for column, name in enumerate(names)}, {}


def _java_scores(
    ours: Sequence[str], theirs: Sequence[str], plain_ours: Sequence[str], plain_theirs: Sequence[str]
) -> tuple[Statistics, Reasons]:
    bleus: list[Metric] = [(name, "released") for name in BLEUS]
    meteor: Metric = ("meteor", "released")
    found: Statistics = {}
    if not ours:
        return found, dict.fromkeys([*bleus, meteor], ALL_EMPTY)
    try:
        tokens = java.ptb_tokenised([*ours, *theirs, *plain_ours, *plain_theirs])
        candidates, references, *plain = (
            tokens[start : start + len(ours)] for start in range(0, len(tokens), len(ours))
        )
        found.update(dict.fromkeys(bleus, _bleu_counts(candidates, references)))
        found[meteor] = additive(java.meteor_statistics(*plain))
    except java.Unavailable as error:
        return found, {name: str(error) for name in (*bleus, meteor) if name not in found}
    return found, {}


def _bleu_counts(candidates: Sequence[str], references: Sequence[str]) -> NDArray[np.float64]:
    pairs = zip(candidates, references, strict=True)
    return np.array([bleu_statistics(ours.split(), theirs.split()) for ours, theirs in pairs])
