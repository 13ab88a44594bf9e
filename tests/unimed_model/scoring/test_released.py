"""Scores as released, against the library calls of the published scripts."""

import warnings

import pytest
from nltk.translate.bleu_score import sentence_bleu

from unimed_model.scoring import released
from unimed_model.scoring.rouge import rouge
from unimed_model.scoring.words import generated, normalise

from .pairs import PAIRS, pairs


@pytest.mark.parametrize(
    ("prediction", "reference", "accuracy", "f1", "bleu_1"),
    [
        ("lung", "left lung", 0.0, 2 / 3, 0.36787944117144233),  # exp(1 - 2/1): the brevity penalty
        ("lung lung lung lung", "lung", 0.0, 1.0, 0.25),  # every repetition is right
        ("The left lung.", "left lung", 1.0, 1.0, 1.0),
        ("none", "0", 1.0, 1.0, 1.0),
        ("", "lung", 0.0, 0.0, 0.0),
        ("heart", "lung", 0.0, 0.0, 0.0),
    ],
)
def test_worked_examples(prediction, reference, accuracy, f1, bleu_1):
    assert released.accuracy(prediction, reference) == accuracy
    assert released.f1(prediction, reference) == pytest.approx(f1)
    assert released.bleu_1(prediction, reference) == pytest.approx(bleu_1)


def test_a_closed_answer_is_right_when_it_holds_the_reference():
    assert released.accuracy_closed("yes, it is", "Yes") == 1
    assert released.accuracy_closed("normal", "no") == 1
    assert released.accuracy_closed("yes", "no") == 0


def test_recall_counts_repetitions_too():
    # right: lung twice; missing: left and upper
    assert released.recall("lung lung", "left upper lung") == pytest.approx(2 / 4)


def test_sentence_bleu_is_that_of_nltk_with_the_released_weights():
    for prediction, reference in PAIRS:
        candidate, wanted = normalise(generated(prediction)).split(), normalise(reference).split()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # no longer n-gram matches
            oracle = sentence_bleu([wanted], candidate, weights=(1, 0, 0, 0))
        assert released.bleu_1(prediction, reference) == pytest.approx(oracle, abs=1e-12)


def test_f1_agrees_with_counting_every_word_of_either_text():
    for prediction, reference in PAIRS:
        candidate, wanted = normalise(generated(prediction)).split(), normalise(reference).lower().split()
        right = [word for word in candidate if word in wanted]
        wrong = [word for word in candidate if word not in wanted]
        missed = [word for word in wanted if word not in candidate]
        oracle = 2 * len(right) / (2 * len(right) + len(wrong) + len(missed)) if right else 0.0
        assert released.f1(prediction, reference) == pytest.approx(oracle, abs=1e-12)


def test_rouge_agrees_with_the_package_of_the_released_scripts():
    package = pytest.importorskip("rouge").Rouge()
    compared = 0
    for prediction, reference in [*PAIRS, *pairs(100, seed=1, longest=60)]:
        candidate, wanted = normalise(generated(prediction)), normalise(reference)
        found = rouge(candidate, wanted)
        if not candidate or not wanted:
            assert found is None
            continue
        oracle = package.get_scores(candidate, wanted)[0]
        assert found == pytest.approx([oracle[name]["f"] for name in ("rouge-1", "rouge-2", "rouge-l")], abs=1e-12)
        compared += 1
    assert compared > 500


def test_rouge_splits_sentences_at_the_stops_that_normalising_leaves():
    package = pytest.importorskip("rouge").Rouge()
    for candidate, wanted in [("a b.5 c d", "d c.5 b a"), ("x . . y.2", "y.3 x"), ("a.1.2", "a.2.1")]:
        oracle = package.get_scores(candidate, wanted)[0]
        assert rouge(candidate, wanted) == pytest.approx([oracle[f"rouge-{kind}"]["f"] for kind in "12l"], abs=1e-12)
