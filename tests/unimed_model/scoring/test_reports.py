"""RG in both flavours."""

from dataclasses import replace

import numpy as np
import pytest

from unimed_model.scoring import Answer, java, reports, tally
from unimed_model.scoring.bleu import corpus_bleu, statistics
from unimed_model.scoring.meteor import corpus_meteor
from unimed_model.scoring.words import generated, normalise

from .pairs import pairs

needs_java = pytest.mark.skipif(java.missing() is not None, reason=str(java.missing()))

REPORTS = [
    Answer(str(number), "MPx-Single", "RG", prediction, reference)
    for number, (prediction, reference) in enumerate([*pairs(40, seed=3, longest=25), ("", "clear"), ("clear", " ")])
]


def without_java(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))


def test_corpus_bleu_agrees_with_pycocoevalcap():
    bleu = pytest.importorskip("pycocoevalcap.bleu.bleu")
    chosen = [(ours, theirs) for ours, theirs in pairs(500, seed=4) if theirs]
    whole, each = bleu.Bleu(4).compute_score(
        {i: [pair[1]] for i, pair in enumerate(chosen)}, {i: [pair[0]] for i, pair in enumerate(chosen)}, verbose=0
    )
    counts = np.array([statistics(ours.split(), theirs.split()) for ours, theirs in chosen])
    for n in (1, 4):
        assert float(corpus_bleu(counts.sum(axis=0), n)) == pytest.approx(whole[n - 1], abs=1e-9)
        assert corpus_bleu(counts, n) == pytest.approx(each[n - 1], abs=1e-9)


def test_corpus_bleu_of_a_worked_example():
    # 2 of 3 words and 1 of 2 pairs, candidate shorter than reference: penalty exp(1 - 4/3)
    counts = np.array(statistics(["the", "lung", "here"], ["the", "lung", "is", "clear"]))
    assert float(corpus_bleu(counts, 1)) == pytest.approx(2 / 3 * np.exp(-1 / 3))
    assert float(corpus_bleu(counts, 2)) == pytest.approx((2 / 3 * 1 / 2) ** 0.5 * np.exp(-1 / 3))


@needs_java
def test_released_scores_are_those_of_the_published_pipeline():
    rouge = pytest.importorskip("rouge").Rouge()
    from pycocoevalcap.bleu.bleu import Bleu

    found = tally(REPORTS)
    kept = [(generated(a.prediction), a.reference) for a in REPORTS if generated(a.prediction) and a.reference.strip()]
    assert found.counts.dropped == len(REPORTS) - len(kept) >= 2

    references, predictions = coco_form(kept)
    bleu, _ = Bleu(4).compute_score(references, predictions, verbose=0)
    assert found.value("bleu_1", "released") == pytest.approx(bleu[0], abs=1e-9)
    assert found.value("bleu_4", "released") == pytest.approx(bleu[3], abs=1e-9)

    plain = [(normalise(prediction), normalise(reference)) for prediction, reference in kept]
    whole, each = meteor(*coco_form(plain))
    assert found.value("meteor", "released") == pytest.approx(whole, abs=1e-9)
    statistics_of_kept = found.of("meteor", "released")[found.of("bleu_1", "released").any(axis=1)]
    assert corpus_meteor(statistics_of_kept) == pytest.approx(each, abs=1e-9)

    oracle = rouge.get_scores(*zip(*[pair for pair in plain if all(pair)], strict=True), avg=True)
    for name in ("rouge_1", "rouge_2", "rouge_l"):
        assert found.value(name, "released") == pytest.approx(oracle[name.replace("_", "-")]["f"], abs=1e-9)


def coco_form(texts):
    """References and predictions in PTB tokens, as pycocoevalcap takes them."""
    predictions, references = (java.ptb_tokenised(side) for side in zip(*texts, strict=True))
    return tuple({i: [text] for i, text in enumerate(side)} for side in (references, predictions))


def meteor(references, predictions):
    from pycocoevalcap.meteor.meteor import Meteor

    program = Meteor()
    try:
        return program.compute_score(references, predictions)
    finally:
        # its own end leaves the program's output streams open, which is a warning
        for stream in (program.meteor_p.stdout, program.meteor_p.stderr):
            stream.close()


def test_an_empty_report_scores_0_in_the_paper_flavour_and_is_dropped_and_counted_in_the_other(monkeypatch, tmp_path):
    without_java(monkeypatch, tmp_path)
    right = Answer("1", "D", "RG", "the lungs are clear", "the lungs are clear")
    found = tally([right, replace(right, id="2", prediction=" <unk> "), replace(right, id="3", prediction="the")])
    assert found.counts.dropped == 1
    assert found.value("rouge_1", "paper") == pytest.approx((1 + 0 + 1 / 4) / 3)
    # nothing is left of "the" when it is normalised: ROUGE drops it as well
    assert found.scored("rouge_1", "released") == 1
    assert found.value("rouge_1", "released") == pytest.approx(1, abs=1e-7)


def test_without_java_the_other_scores_stand_and_the_reason_is_given(monkeypatch, tmp_path):
    without_java(monkeypatch, tmp_path)
    found = tally(REPORTS)
    missing = {("bleu_1", "released"), ("bleu_4", "released"), ("meteor", "released")}
    assert set(found.unavailable) == missing
    assert all("needs Java" in reason for reason in found.unavailable.values())
    assert {("rouge_l", "released"), ("meteor", "paper")} <= set(found.metrics)
    assert not missing & set(found.metrics)


def test_when_every_report_is_empty_no_released_score_is_invented():
    found = tally([replace(answer, prediction="") for answer in REPORTS])
    assert {flavour for _, flavour in found.metrics} == {"paper"}
    assert set(found.unavailable.values()) == {reports.ALL_EMPTY}
    assert found.counts.dropped == found.counts.empty == len(REPORTS)
