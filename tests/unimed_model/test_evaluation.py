import json

import pandas as pd
import pytest

from unimed_model import evaluation
from unimed_model.data import load_dataset
from unimed_model.data.corpus.writing import picture_planes
from unimed_model.errors import UserError
from unimed_model.predictions import read_predictions
from unimed_model.prompts import RELEASED
from unimed_model.scoring import load_tallies, tally

pytestmark = pytest.mark.usefixtures("without_java")


def test_perfect_and_useless_answers_bracket_the_baselines(corpus):
    train, test = (load_dataset("mni_rec", corpus, split) for split in ("train", "test"))
    planes = picture_planes(corpus)
    perfect, _ = evaluation.score(test, [sample.answer for sample in test], train, planes)
    assert perfect.metrics["paper"]["iou"].value == 1
    assert (perfect.empty, perfect.unparsable, perfect.refusals) == (0, 0, 0)
    for found in perfect.baselines.values():
        assert found["paper"]["lead"].value == pytest.approx(1 - found["paper"]["iou"].value)
        assert found["paper"]["lead"].low > 0
        assert found["paper"]["lead"].p_value < 0.05
    useless, _ = evaluation.score(test, ["to the left"] * (len(test) - 2) + ["", "I cannot tell"], train, planes)
    assert (useless.empty, useless.unparsable, useless.refusals) == (1, len(test) - 2, 1)
    assert useless.metrics["paper"]["iou"].value == 0
    assert useless.images == len({sample.image_id for sample in test})


def test_the_plane_is_known_only_in_the_sample_corpus(corpus):
    train, test = (load_dataset("mni_rec", corpus, split) for split in ("train", "test"))
    result, _ = evaluation.score(test, [""] * len(test), train, {})
    assert set(result.baselines) == {"mean box", "mean box of the object"}


def test_everything_is_written_together_and_agrees(trained, corpus, tmp_path):
    out = tmp_path / "evaluation"
    names = ("mni_vqa", "mni_rec", "mni_reg", "mni_t1", "mni_caption", "mni_qa")
    results = evaluation.evaluate(trained, corpus, out, names=names, limit=5, batch_size=2, quiet=True)
    assert {path.name for path in tmp_path.iterdir()} == {"evaluation"}
    assert {path.name for path in out.iterdir()} == {
        "predictions.jsonl",
        "scores.json",
        "scores.csv",
        "sample_statistics.parquet",
    }
    answers = read_predictions(out / "predictions.jsonl")
    assert len(answers) == sum(result.samples for result in results.values()) == 5 * len(results)
    scores = json.loads((out / "scores.json").read_text())["datasets"]
    table = pd.read_csv(out / "scores.csv")
    for kept in load_tallies(out / "sample_statistics.parquet"):
        again = tally([answer for answer in answers if answer.dataset == kept.dataset])
        assert set(kept.metrics) == set(again.metrics)
        for metric, flavour in kept.metrics:
            found = scores[kept.dataset]["metrics"][flavour][metric]
            rows = table.query("dataset == @kept.dataset and metric == @metric and flavour == @flavour")
            values = (again.value(metric, flavour), kept.value(metric, flavour), rows.value.item())
            assert values == pytest.approx((found["value"],) * 3)
            assert (rows.low.item(), rows.high.item()) == pytest.approx((found["low"], found["high"]))
    assert set(table.dataset) == set(scores) == set(results)


def test_a_prediction_has_what_scoring_needs_of_its_sample(trained, corpus, tmp_path):
    evaluation.evaluate(trained, corpus, tmp_path / "e", names=("mni_rec", "mni_vqa"), limit=3, quiet=True)
    lines = [json.loads(line) for line in (tmp_path / "e" / "predictions.jsonl").read_text().splitlines()]
    common = {"dataset", "task", "id", "image_id", "prompt", "prediction", "reference"}
    for line in lines:
        extra = {"REC": {"box_pixels", "image_size"}, "VQA": {"answer_type"}}[line["task"]]
        assert set(line) == common | extra
    sample = load_dataset("mni_rec", corpus, "test")[0]
    (first,) = (line for line in lines if (line["dataset"], line["id"]) == ("mni_rec", sample.sample_id))
    assert first["box_pixels"] == list(sample.meta["box_pixels"])
    assert first["image_size"] == list(sample.image.size)


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


def test_text_alone_is_scored_by_sample_and_counts_no_images(tmp_path):
    records = {str(i): {"QUESTION": f"Does {i} help?", "final_decision": "yes"} for i in range(8)}
    (tmp_path / "ori_pqal.json").write_text(json.dumps(records))
    (tmp_path / "test_ground_truth.json").write_text(json.dumps({str(i): "yes" for i in range(4)}))
    train, test = (load_dataset("pubmedqa", tmp_path, split) for split in ("train", "test"))
    result, _ = evaluation.score(test, ["yes", "no", "Yes ", ""], train, {})
    assert (result.samples, result.images, result.empty) == (4, 0, 1)
    assert result.metrics["paper"]["accuracy"].value == 0.5
    assert result.baselines["majority answer"]["paper"]["lead"].value == -0.5


def test_a_dataset_whose_planes_are_not_all_known_has_no_baseline_by_plane(corpus):
    train, test = (load_dataset("mni_rec", corpus, split) for split in ("train", "test"))
    some = {key: plane for key, plane in picture_planes(corpus).items() if key != test[0].image_id}
    result, _ = evaluation.score(test, [""] * len(test), train, some)
    assert set(result.baselines) == {"mean box", "mean box of the object"}
