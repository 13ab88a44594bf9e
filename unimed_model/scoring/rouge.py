"""ROUGE as the package `rouge` 1.0.1 computes it: F-measures of sets of n-grams, which the released scripts average.

Written anew because that package is slow, recurses once per word and is no longer kept; tested to agree with it.
"""

from collections.abc import Sequence

_SMALL = 1e-8  # in the denominator of the F-measure


def rouge(candidate: str, reference: str) -> tuple[float, float, float] | None:
    """Return the F-measures ROUGE-1, ROUGE-2 and ROUGE-L of two normalised texts.

    None where either has no sentence: the package refuses it, and the released script drops such a sample.
    """
    ours, theirs = _sentences(candidate), _sentences(reference)
    if not ours or not theirs:
        return None
    return _n_gram_f(ours, theirs, 1), _n_gram_f(ours, theirs, 2), _union_lcs_f(ours, theirs)


def _sentences(text: str) -> list[list[str]]:
    # split(" ") as there: a sentence of blanks is the one word ""
    return [" ".join(part.split()).split(" ") for part in text.split(".") if part]


def _n_gram_f(ours: Sequence[Sequence[str]], theirs: Sequence[Sequence[str]], n: int) -> float:
    first, second = (_n_gram_set([word for sentence in text for word in sentence], n) for text in (ours, theirs))
    return _f(len(first & second), len(first), len(second))


def _n_gram_set(found: Sequence[str], n: int) -> set[tuple[str, ...]]:
    return {tuple(found[start : start + n]) for start in range(len(found) - n + 1)}


def _union_lcs_f(ours: Sequence[Sequence[str]], theirs: Sequence[Sequence[str]]) -> float:
    """F-measure of the distinct words in any longest common subsequence of a sentence of each."""
    shared = {word for wanted in theirs for said in ours for word in _common_subsequence(wanted, said)}
    distinct = [len({word for sentence in text for word in sentence}) for text in (ours, theirs)]
    return _f(len(shared), distinct[0], distinct[1])


def _f(shared: int, ours: int, theirs: int) -> float:
    precision = shared / ours if ours else 0.0
    recall = shared / theirs if theirs else 0.0
    return 2.0 * (precision * recall / (precision + recall + _SMALL))


def _common_subsequence(wanted: Sequence[str], said: Sequence[str]) -> list[str]:
    """A longest common subsequence; of several the one that the package finds."""
    table = [[0] * (len(said) + 1) for _ in range(len(wanted) + 1)]
    for i, word in enumerate(wanted, start=1):
        above, row = table[i - 1], table[i]
        for j, other in enumerate(said, start=1):
            row[j] = above[j - 1] + 1 if word == other else max(above[j], row[j - 1])
    i, j, found = len(wanted), len(said), []
    while i and j:
        if wanted[i - 1] == said[j - 1]:
            found.append(wanted[i - 1])
            i, j = i - 1, j - 1
        elif table[i - 1][j] > table[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return found
