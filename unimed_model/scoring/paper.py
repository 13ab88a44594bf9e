"""Appendix D's equations, each for one prediction and one reference; a dataset's score is the mean over its samples.

The equations define a score of one candidate and one reference; of F1 the paper says that it averages over the
dataset. So no statistic is pooled over samples here.
"""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from .words import words


def accuracy(prediction: str, reference: str) -> float:
    """Return 1 when prediction and reference have the same words in the same order, else 0; no equation is given."""
    return float(words(prediction) == words(reference))


def f1(prediction: str, reference: str) -> float:
    """Return the harmonic mean of precision and recall of words (eq. 18); 0 without a common word."""
    candidate, wanted = words(prediction), words(reference)
    common = _common(candidate, wanted, 1)
    return 2 * common / (len(candidate) + len(wanted)) if common else 0.0


def recall(prediction: str, reference: str) -> float:
    """Return the share of the reference's words that the prediction has (eq. 17), clipped counts."""
    wanted = words(reference)
    return _common(words(prediction), wanted, 1) / len(wanted) if wanted else 0.0


def bleu(prediction: str, reference: str, n: int) -> float:
    """Return clipped n-gram precision (eq. 19): no brevity penalty, no mean over orders.

    0 for a candidate of fewer than n words, where the equation is 0/0.
    """
    candidate = words(prediction)
    total = len(candidate) - n + 1
    return _common(candidate, words(reference), n) / total if total > 0 else 0.0


def rouge(prediction: str, reference: str) -> tuple[float, float, float]:
    """Return ROUGE-1 and ROUGE-2 (eq. 20, recall) and ROUGE-L (eq. 21) by rouge-score, on the words above.

    Equation 21 as printed: R = LCS / L_C and P = LCS / L_R, the other way round than usual, beta = P / R.
    """
    found = _rouge_scorer().score(reference, prediction)
    # rouge-score's precision divides by the candidate's length: it is what the paper calls R
    r, p = found["rougeL"].precision, found["rougeL"].recall
    return found["rouge1"].recall, found["rouge2"].recall, rouge_l(r, p)


def rouge_l(r: float, p: float) -> float:
    """Return (1 + beta^2) R P / (R + beta^2 P) with beta = P / R (eq. 21); 0 without a common subsequence."""
    if r == 0:
        return 0.0
    beta_squared = (p / r) ** 2
    return (1 + beta_squared) * r * p / (r + beta_squared * p)


def meteor(prediction: str, reference: str) -> float:
    """Return METEOR of one pair (eq. 22) by nltk with its defaults: alpha 0.9, theta 3, gamma 0.5.

    Words match when they are equal, then when their Porter stems are: no synonyms, whether WordNet is installed or
    not, so that a score does not depend on the machine.
    """
    from nltk.translate.meteor_score import single_meteor_score

    return float(single_meteor_score(words(reference), words(prediction), wordnet=_NoSynonyms()))


class _NoSynonyms:
    """Stands in for WordNet."""

    def synsets(self, word: str) -> list[Any]:
        return []


class _Words:
    """The tokenizer that rouge-score is given."""

    def tokenize(self, text: str) -> list[str]:
        return list(words(text))


@lru_cache(maxsize=1)
def _rouge_scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=_Words())


def _common(candidate: Sequence[str], wanted: Sequence[str], n: int) -> int:
    """How many n-grams two word lists share, each counted as often as both have it."""
    return sum((_ngrams(candidate, n) & _ngrams(wanted, n)).values())


def _ngrams(found: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(found[start : start + n]) for start in range(len(found) - n + 1))
