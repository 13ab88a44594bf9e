"""Appendix D's equations against hand-worked numbers and the libraries that compute the same."""

import numpy as np
import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from unimed_model.scoring import paper
from unimed_model.scoring.words import words

from .pairs import PAIRS

texts = st.lists(st.sampled_from(["lung", "left", "heart", "no", "x"]), max_size=8).map(" ".join)


@pytest.mark.parametrize(
    ("prediction", "reference", "accuracy", "f1", "bleu_1"),
    [
        ("lung", "left lung", 0.0, 2 / 3, 1.0),  # eq. 19 has no brevity penalty
        ("lung lung lung lung", "lung", 0.0, 0.4, 0.25),  # common words are clipped
        ("Left lung.", "left lung", 1.0, 1.0, 1.0),
        ("", "lung", 0.0, 0.0, 0.0),
        ("lung", "", 0.0, 0.0, 0.0),
        ("heart", "lung", 0.0, 0.0, 0.0),
    ],
)
def test_worked_examples(prediction, reference, accuracy, f1, bleu_1):
    assert paper.accuracy(prediction, reference) == accuracy
    assert paper.f1(prediction, reference) == pytest.approx(f1)
    assert paper.bleu(prediction, reference, 1) == pytest.approx(bleu_1)


def test_f1_is_the_harmonic_mean_of_equations_16_and_17():
    # common words: the, lung, is = 3 of 5 and of 4
    prediction, reference = "the left lung is clear", "the lung is normal"
    precision, recall = 3 / 5, 3 / 4
    assert paper.recall(prediction, reference) == pytest.approx(recall)
    assert paper.f1(prediction, reference) == pytest.approx(2 * precision * recall / (precision + recall))


def test_bleu_4_is_the_precision_of_four_grams_alone():
    # "the heart is big" is one of three 4-grams of the candidate; shorter n-grams do not count
    assert paper.bleu("see the heart is big now", "the heart is big", 4) == pytest.approx(1 / 3)
    assert paper.bleu("the heart is", "the heart is", 4) == 0  # 0/0


def test_rouge_of_a_worked_example():
    # reference: 4 words, 3 pairs; shared: the, lung, is; "lung is"; LCS: the lung is
    one, two, longest = paper.rouge("the left lung is clear", "the lung is normal")
    assert one == pytest.approx(3 / 4)
    assert two == pytest.approx(1 / 3)
    r, p = 3 / 5, 3 / 4  # as printed: R over the candidate, P over the reference
    beta = p / r
    assert longest == pytest.approx((1 + beta**2) * r * p / (r + beta**2 * p))


def test_rouge_l_of_texts_of_equal_length_is_what_they_share():
    # beta is 1, so equation 21 is the harmonic mean of two equal numbers
    assert paper.rouge("a b c d", "a c b e")[2] == pytest.approx(2 / 4)
    assert paper.rouge("x", "y") == (0, 0, 0)


def test_meteor_of_worked_examples():
    # one chunk of two matches: penalty 0.5 (1/2)^3; precision 1, recall 2/3
    precision, recall = 1.0, 2 / 3
    mean = precision * recall / (0.9 * precision + 0.1 * recall)
    assert paper.meteor("left lung", "left lung clear") == pytest.approx(mean * (1 - 0.5 / 8))
    assert paper.meteor("enlarged hearts", "enlargement heart") == pytest.approx(1 - 0.5 / 8)  # equal stems
    assert paper.meteor("big heart", "large lung") == 0  # no synonyms
    assert paper.meteor("", "lung") == paper.meteor("lung", "") == 0


def test_clipped_precision_agrees_with_sacrebleu():
    scorer = sacrebleu.BLEU(tokenize="none", smooth_method="none", effective_order=True)
    for prediction, reference in PAIRS:
        candidate, wanted = " ".join(words(prediction)), " ".join(words(reference))
        found = scorer.sentence_score(candidate, [wanted])
        for n in (1, 4):
            oracle = found.counts[n - 1] / found.totals[n - 1] if found.totals[n - 1] else 0.0
            assert paper.bleu(prediction, reference, n) == pytest.approx(oracle, abs=1e-12)


def test_rouge_recall_agrees_with_rouge_score_on_plain_words():
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"])
    for prediction, reference in PAIRS:
        plain = [" ".join(word for word in words(text) if word.isalnum()) for text in (prediction, reference)]
        oracle = scorer.score(plain[1], plain[0])
        one, two, longest = paper.rouge(*plain)
        assert one == pytest.approx(oracle["rouge1"].recall, abs=1e-12)
        assert two == pytest.approx(oracle["rouge2"].recall, abs=1e-12)
        assert longest == pytest.approx(paper.rouge_l(oracle["rougeL"].precision, oracle["rougeL"].recall), abs=1e-12)


@given(texts, texts)
def test_every_score_lies_between_0_and_1_and_a_copy_scores_1(prediction, reference):
    scores = [
        paper.accuracy(prediction, reference),
        paper.f1(prediction, reference),
        paper.recall(prediction, reference),
        paper.bleu(prediction, reference, 1),
        paper.bleu(prediction, reference, 4),
        paper.meteor(prediction, reference),
        *paper.rouge(prediction, reference),
    ]
    assert all(0 <= score <= 1 + 1e-12 for score in scores)
    if reference:
        assert (
            paper.f1(reference, reference)
            == paper.bleu(reference, reference, 1)
            == paper.accuracy(reference, reference)
            == 1
        )
        assert np.isclose(paper.rouge(reference, reference)[2], 1)


@given(texts, texts)
def test_f1_is_symmetric(prediction, reference):
    assert paper.f1(prediction, reference) == paper.f1(reference, prediction)
