"""Scores of answers, in two flavours side by side, with intervals over images and over training seeds.

    from unimed_model.scoring import Answer, tally, estimate, difference, delta, PRIMARY

    ours = tally([Answer("1", "Slake-VQA", "VQA", prediction="lung", reference="left lung", image_id="xmlab1"), ...])
    print(estimate([ours], "bleu_1", "paper"))

`paper` is what the equations of Appendix D say, `released` what the published scripts compute; docs/scoring.md sets
them side by side.
"""

from .answers import FLAVOURS, PRIMARY, Answer
from .boxes import parse_box
from .counts import Counts
from .tables import load_tallies, save_tallies
from .tally import Tally, tally
from .uncertainty import Difference, Estimate, delta, difference, estimate, estimates

__all__ = [
    "FLAVOURS",
    "PRIMARY",
    "Answer",
    "Counts",
    "Difference",
    "Estimate",
    "Tally",
    "delta",
    "difference",
    "estimate",
    "estimates",
    "load_tallies",
    "parse_box",
    "save_tallies",
    "tally",
]
