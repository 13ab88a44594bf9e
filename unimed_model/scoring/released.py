"""What the published evaluation scripts compute for one prediction and one reference, with normalised text."""

from collections import Counter

from .words import generated, normalise


def accuracy(prediction: str, reference: str) -> float:
    """Return 1 when the normalised texts are equal, else 0."""
    return float(normalise(generated(prediction)) == normalise(reference))


def accuracy_closed(prediction: str, reference: str) -> float:
    """Return 1 when the normalised reference is a substring of the prediction, as for closed questions, else 0.

    So `normal` is a right answer to a question whose answer is `no`.
    """
    return float(normalise(reference) in normalise(generated(prediction)))


def f1(prediction: str, reference: str) -> float:
    """Return F1 in which every repetition of a shared word in the prediction counts as right.

    Precision tp / (tp + fp) and recall tp / (tp + fn), where tp counts the prediction's words that the reference has,
    unclipped, fp its other words, and fn the reference's words that the prediction lacks.
    """
    precision, found = _precision_recall(prediction, reference)
    return 2 * precision * found / (precision + found) if precision else 0.0


def recall(prediction: str, reference: str) -> float:
    """Return the recall of the same counts, which Med-MoE reports for open questions."""
    return _precision_recall(prediction, reference)[1]


def _precision_recall(prediction: str, reference: str) -> tuple[float, float]:
    candidate = Counter(normalise(generated(prediction)).split())
    wanted = Counter(normalise(reference).lower().split())
    right = sum(count for word, count in candidate.items() if word in wanted)
    if not right:
        return 0.0, 0.0
    missing = sum(count for word, count in wanted.items() if word not in candidate)
    return right / candidate.total(), right / (right + missing)


def bleu_1(prediction: str, reference: str) -> float:
    """Return nltk's sentence BLEU of one reference with the weight on single words: brevity penalty, no smoothing."""
    from nltk.translate.bleu_score import sentence_bleu

    candidate, wanted = normalise(generated(prediction)).split(), normalise(reference).split()
    # the released weights (1, 0, 0, 0) give the same value, and warn where no longer n-gram matches
    return float(sentence_bleu([wanted], candidate, weights=(1.0,)))
