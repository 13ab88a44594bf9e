"""Tables 3 and 6 from evaluation folders and prediction files."""

import csv
import io
import json

import numpy as np
import pytest

from analyses.comparison_table import table_text
from tugofwar.errors import UserError
from unimed_model import errors
from unimed_model.scoring import tally

from .fake_runs import REFERENCES, answers, write_evaluation, write_predictions


def lines(dataset, task, right, samples=20):
    return [
        {
            "id": str(index),
            "dataset": dataset,
            "task": task,
            "prediction": REFERENCES[task] if index < right else "wrong",
            "reference": REFERENCES[task],
        }
        for index in range(samples)
    ]


@pytest.fixture
def files(tmp_path):
    for seed, right in enumerate((12, 14, 16)):
        folder = tmp_path / f"run-{seed}" / "evaluation"
        write_evaluation(folder, [tally(answers("slake_vqa", "VQA", right)), tally(answers("names", "REG", right))])
    write_predictions(tmp_path / "llava.jsonl", [*lines("Slake-VQA", "VQA", 10), *lines("mine", "CLS", 5)])
    write_predictions(tmp_path / "worse.jsonl", lines("Slake-VQA", "VQA", 2))
    return tmp_path


def models(files):
    runs = ",".join(str(files / f"run-{seed}") for seed in range(3))
    return [f"uni-med={runs}", f"llava-med={files / 'llava.jsonl'}", f"other={files / 'worse.jsonl'}"]


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def cells_of(text, *start):
    table = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:1] == "|"]
    (row,) = [line for line in table if tuple(line[: len(start)]) == start]
    return dict(zip(table[0], row, strict=True))


def test_models_stand_side_by_side_the_best_and_second_best_marked(files):
    text = table_text(models(files), "3", "markdown", "paper")
    row = cells_of(text, "VQA", "Slake-VQA", "BLEU-1")
    assert row["uni-med"].startswith(f"**70.00 ± {np.std([60, 70, 80], ddof=1):.2f} [")
    assert row["llava-med"].startswith("<u>50.00 [")
    assert row["other"].startswith("10.00 [")
    assert cells_of(text, "CLS", "mine", "Accuracy")["uni-med"] == "-"
    assert "REG" not in text


def test_table_6_has_the_other_tasks(files):
    text = table_text(models(files)[:1], "6", "markdown", "paper")
    row = cells_of(text, "REG", "names", "Accuracy")
    assert row["uni-med"].startswith("70.00 ± 10.00 [")  # a single model is not its own best


def test_numbers_are_tidy_in_csv(files):
    rows = rows_of(table_text(models(files), "3", "csv", "paper"))
    (row,) = [r for r in rows if (r["model"], r["metric"]) == ("uni-med", "f1")]
    assert (row["dataset"], row["runs"], row["source"], row["flavour"]) == ("slake_vqa", "3", "measured", "paper")
    assert float(row["value"]) == pytest.approx(70)
    assert float(row["low"]) < 70 < float(row["high"])


def test_the_papers_numbers_are_shown_on_request_and_labelled(files):
    text = table_text(models(files), "3", "markdown", "paper", with_paper=True)
    row = cells_of(text, "VQA", "Slake-VQA", "BLEU-1")
    assert row["Uni-Med (published)"] == "82.12 ± 0.38"
    assert row["uni-med"].startswith("**70.00")  # published numbers take no part in the marks
    assert cells_of(text, "RG", "MPx-Single", "METEOR")["RadFM (published)"] == "16.79*"
    assert cells_of(text, "RG", "MPx-Single", "METEOR")["uni-med"] == "-"
    assert "not measured here" in text
    rows = rows_of(table_text(models(files), "3", "csv", "paper", with_paper=True))
    assert {row["source"] for row in rows} == {"measured", "published"}
    assert len([row for row in rows if row["source"] == "published"]) == 82


def test_models_that_answered_other_samples_are_said_not_to_compare(files):
    write_predictions(files / "few.jsonl", lines("slake_vqa", "VQA", 3, samples=8))
    text = table_text([*models(files)[:1], f"few={files / 'few.jsonl'}"], "3", "markdown", "paper")
    assert "Slake-VQA: the models answered different samples (uni-med 20, few 8; 8 ids in common)" in text


def test_a_metric_that_a_flavour_cannot_have_is_absent_with_its_reason(tmp_path):
    box = {"id": "1", "task": "REC", "prediction": "<1><2><30><40>", "reference": "<1><2><30><40>"}
    write_predictions(tmp_path / "boxes.jsonl", [box, {**box, "id": "2"}])
    text = table_text([f"m={tmp_path / 'boxes.jsonl'}"], "6", "markdown", "released")
    assert cells_of(text, "REC", "REC", "IoU")["m"] == "-"
    assert "box_pixels" in text
    assert cells_of(table_text([f"m={tmp_path / 'boxes.jsonl'}"], "6", "markdown", "paper"), "REC", "REC", "IoU")[
        "m"
    ].startswith("100.00")


@pytest.mark.parametrize(
    ("given", "options", "reason"),
    [
        (["uni-med"], {}, "NAME=WHERE"),
        (["m=worse.jsonl", "m=worse.jsonl"], {}, "given twice"),
        (["m=nowhere.jsonl"], {}, "nowhere.jsonl"),
        (["m=worse.jsonl"], {"layout": "4"}, "no layout '4'"),
        (["m=worse.jsonl"], {"layout": "6"}, "No model has answered a dataset of Table 6"),
        (["m=worse.jsonl"], {"form": "html"}, "no format 'html'"),
        (["m=worse.jsonl"], {"flavour": "published"}, "no flavour 'published'"),
    ],
)
def test_mistakes_are_one_sentence(files, monkeypatch, given, options, reason):
    monkeypatch.chdir(files)
    with pytest.raises((UserError, errors.UserError), match=reason):
        table_text(given, **{"layout": "3", "form": "markdown", "flavour": "paper", **options})


def test_latex_has_a_line_per_metric(files):
    text = table_text(models(files), "3", "latex", "paper")
    assert text.count(r"\\") == 4
    assert r"\textbf{70.00 $\pm$ 10.00" in text


def test_text_never_stands_in_a_table(files):
    text = table_text(models(files), "3", "csv", "paper")
    assert "left lung" not in text
    assert json.dumps("wrong") not in text
