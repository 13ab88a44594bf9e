import json

import numpy as np
import pytest

from unimed_model import evaluation
from unimed_model.data import load_dataset
from unimed_model.data.corpus.writing import picture_planes
from unimed_model.errors import UserError
from unimed_model.prompts import RELEASED


def test_perfect_and_useless_answers_bracket_the_baselines(corpus):
    train, test = (load_dataset("mni_rec", corpus, split) for split in ("train", "test"))
    planes = picture_planes(corpus)
    perfect = evaluation.score(test, [sample.answer for sample in test], train, planes)
    assert perfect.metrics["iou"].value == 1
    assert perfect.unparsable == 0
    for means in perfect.baselines.values():
        assert means["lead"].value == pytest.approx(1 - means["iou"].value)
        assert means["lead"].low > 0
    useless = evaluation.score(test, ["I cannot tell"] * len(test), train, planes)
    assert useless.unparsable == len(test)
    assert useless.metrics["iou"].value == 0
    assert useless.images == len({sample.image_id for sample in test})


def test_the_plane_is_known_only_in_the_sample_corpus(corpus):
    train, test = (load_dataset("mni_rec", corpus, split) for split in ("train", "test"))
    result = evaluation.score(test, [""] * len(test), train, {})
    assert set(result.baselines) == {"mean box", "mean box of the object"}


def test_predictions_and_scores_are_written_together(trained, corpus, tmp_path):
    out = tmp_path / "evaluation"
    results = evaluation.evaluate(trained, corpus, out, limit=5, batch_size=2, quiet=True)
    lines = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert len(lines) == sum(result.samples for result in results.values()) == 5 * len(results)
    scores = json.loads((out / "scores.json").read_text())["datasets"]
    for name, result in results.items():
        metric = next(iter(result.metrics))
        again = evaluation.scoring.METRICS[result.task][metric]
        mine = [again(line["prediction"], line["reference"]) for line in lines if line["dataset"] == name]
        assert scores[name]["metrics"][metric]["value"] == pytest.approx(np.mean(mine))


def test_answers_do_not_depend_on_the_batch_size(opened, corpus):
    samples = load_dataset("mni_vqa", corpus, "test")[:7]
    model, processor = opened
    assert evaluation.generate(model, processor, samples, 7, True) == evaluation.generate(
        model, processor, samples, 2, True
    )


def test_prompts_and_references_are_written_by_the_processor_s_profile(trained, corpus, tmp_path, monkeypatch):
    model, processor = evaluation.open_run(trained)
    processor.prompts = RELEASED
    monkeypatch.setattr(evaluation, "open_run", lambda *_: (model, processor))
    out = tmp_path / "evaluation"
    names = ("mni_rec", "mni_reg")
    evaluation.evaluate(trained, corpus, out, names=names, limit=3, quiet=True)
    lines = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    asked = {"REC": "give me the location of ", "REG": "what object is in this location {<"}
    assert len(lines) == 6
    for line in lines:
        assert line["prompt"].startswith(asked[line["task"]])
        assert line["reference"].startswith("{<") == (line["task"] == "REC")


def test_an_output_that_is_no_evaluation_is_kept(trained, corpus, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds no evaluation"):
        evaluation.evaluate(trained, corpus, tmp_path, quiet=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_failure_leaves_nothing_behind(trained, corpus, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluation, "generate", fail)
    with pytest.raises(KeyboardInterrupt):
        evaluation.evaluate(trained, corpus, tmp_path / "out", quiet=True)
    assert list(tmp_path.iterdir()) == []


def test_text_alone_is_scored_by_sample_and_counts_no_images(tmp_path):
    records = {str(i): {"QUESTION": f"Does {i} help?", "final_decision": "yes"} for i in range(8)}
    (tmp_path / "ori_pqal.json").write_text(json.dumps(records))
    (tmp_path / "test_ground_truth.json").write_text(json.dumps({str(i): "yes" for i in range(4)}))
    train, test = (load_dataset("pubmedqa", tmp_path, split) for split in ("train", "test"))
    result = evaluation.score(test, ["yes", "no", "Yes ", ""], train, {})
    assert (result.samples, result.images) == (4, 0)
    assert result.metrics["accuracy"].value == 0.5
    assert result.baselines["majority answer"]["lead"].value == -0.5


def test_a_dataset_whose_planes_are_not_all_known_has_no_baseline_by_plane(corpus):
    train, test = (load_dataset("mni_rec", corpus, split) for split in ("train", "test"))
    some = {key: plane for key, plane in picture_planes(corpus).items() if key != test[0].image_id}
    result = evaluation.score(test, [""] * len(test), train, some)
    assert set(result.baselines) == {"mean box", "mean box of the object"}
