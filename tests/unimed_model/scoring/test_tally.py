from dataclasses import replace

import numpy as np
import pytest

from unimed_model.errors import UserError
from unimed_model.scoring import FLAVOURS, PRIMARY, Answer, Counts, load_tallies, paper, released, save_tallies, tally

from .pairs import PAIRS


def question(number, prediction, reference, kind=None, image=None):
    return Answer(str(number), "Slake-VQA", "VQA", prediction, reference, image, kind)


QUESTIONS = [
    question(1, "lung", "left lung", "OPEN", "a"),
    question(2, "lung lung lung lung", "lung", "OPEN", "a"),
    question(3, "it is normal", "no", "CLOSED", "b"),
    question(4, "Yes.", "yes", "CLOSED", "c"),
]


def test_a_vqa_dataset_is_scored_overall_and_on_open_and_closed_questions():
    found = tally(QUESTIONS)
    assert found.value("bleu_1", "paper") == pytest.approx((1 + 0.25 + 0 + 1) / 4)
    assert found.value("bleu_1", "released") == pytest.approx((np.exp(-1) + 0.25 + 0 + 1) / 4)
    assert found.value("f1_open", "paper") == pytest.approx((2 / 3 + 0.4) / 2)
    assert found.value("f1_open", "released") == pytest.approx((2 / 3 + 1) / 2)
    assert found.value("recall_open", "paper") == found.value("recall_open", "released") == pytest.approx(0.75)
    assert found.value("accuracy_closed", "paper") == 0.5
    assert found.value("accuracy_closed", "released") == 1  # "no" is in "normal"
    assert found.value("accuracy", "released") == 0.5
    assert found.scored("accuracy_closed", "paper") == 2
    assert found.scored("accuracy", "paper") == 4
    assert ("recall_closed", "paper") not in found.metrics


def test_a_question_of_no_stated_type_is_closed_when_its_answer_is_yes_or_no():
    found = tally([replace(answer, answer_type=None) for answer in QUESTIONS])
    assert found.scored("accuracy_closed", "paper") == 2


def test_a_kind_of_question_that_never_comes_has_no_score():
    found = tally(QUESTIONS[:2])
    assert found.unavailable["accuracy_closed", "paper"] == "no question is closed"
    with pytest.raises(UserError, match=r"no accuracy_closed \(paper\): no question is closed"):
        found.value("accuracy_closed", "paper")


@pytest.mark.parametrize("task", ["QA", "CLS", "REG", "VQA"])
def test_a_dataset_scores_the_mean_of_its_samples(task):
    found = tally([Answer(str(i), "D", task, *pair) for i, pair in enumerate(PAIRS)])
    for flavour, module in (("paper", paper), ("released", released)):
        one_by_one = [module.f1(*pair) for pair in PAIRS] if task in ("REG", "VQA") else []
        if one_by_one:
            assert found.value("f1", flavour) == pytest.approx(np.mean(one_by_one))
        else:
            assert [name for name, kind in found.metrics if kind == flavour] == ["accuracy"]


@pytest.mark.parametrize("task", PRIMARY)
def test_every_task_has_its_primary_metric_in_the_paper_flavour(task, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))  # no Java
    text = "<1><2><3><4>" if task == "REC" else "left lung"
    found = tally([Answer("1", "D", task, text, text)])
    assert found.value(PRIMARY[task], FLAVOURS[0]) == 1


def test_answers_that_are_none_are_counted_once_and_never_dropped():
    said = {
        "nevus": "nevus",
        "melanoma": "melanoma",
        "Melanoma.": "nevus",
        "a mole": "nevus",
        " ": "nevus",
        "I cannot tell, I am sorry": "nevus",
        "As an AI, I do not diagnose": "nevus",
        "I\N{RIGHT SINGLE QUOTATION MARK}m sorry, but": "nevus",
    }
    classes = [Answer(str(i), "DermaMNIST", "CLS", *pair) for i, pair in enumerate(said.items())]
    found = tally(classes)
    assert found.counts == Counts(empty=1, refusals=3, unparsable=1)
    assert found.value("accuracy", "paper") == pytest.approx(2 / 8)


def test_what_counts_as_unparsable_is_a_matter_of_the_task():
    assert tally(QUESTIONS).counts.unparsable == 1  # "it is normal" is no answer to a closed question
    boxes = [Answer(str(i), "D", "REC", text, "<1><2><3><4>") for i, text in enumerate(["<1><2><3><4>", "left", ""])]
    assert tally(boxes).counts == Counts(empty=1, unparsable=1)
    assert tally([Answer("1", "D", "QA", "nonsense", "yes")]).counts == Counts()


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([], "no answers"),
        ([QUESTIONS[0], QUESTIONS[0]], "id '1' comes more than once"),
        ([QUESTIONS[0], replace(QUESTIONS[1], dataset="Path-VQA")], r"Path-VQA \(VQA\) and Slake-VQA \(VQA\)"),
        ([replace(QUESTIONS[0], task="vqa")], "unknown task 'vqa'; tasks are QA, VQA"),
    ],
)
def test_what_cannot_be_one_dataset_is_one_sentence(answers, said):
    with pytest.raises(UserError, match=said):
        tally(answers)


def test_a_metric_that_the_task_has_not_is_answered_with_those_it_has():
    with pytest.raises(UserError, match=r"a VQA dataset has accuracy \(paper\)"):
        tally(QUESTIONS).value("iou", "paper")


def test_tallies_come_back_from_their_file_as_they_were(tmp_path):
    boxes = [Answer("1", "Slake-REC", "REC", "<1><2><3><4>", "<1><2><3><4>", image_id="é")]
    written = [tally(QUESTIONS), tally(boxes)]
    save_tallies(tmp_path / "sample_statistics.parquet", written)
    for before, after in zip(written, load_tallies(tmp_path / "sample_statistics.parquet"), strict=True):
        for name in ("dataset", "task", "ids", "clusters", "counts", "unavailable"):
            assert getattr(before, name) == getattr(after, name)
        assert before.metrics == after.metrics
        for metric in before.metrics:
            np.testing.assert_array_equal(before.of(*metric), after.of(*metric))
    assert [path.name for path in tmp_path.iterdir()] == ["sample_statistics.parquet"]


def test_the_file_is_a_tidy_table_without_text(tmp_path):
    import pandas as pd

    save_tallies(tmp_path / "s.parquet", [tally(QUESTIONS)])
    table = pd.read_parquet(tmp_path / "s.parquet")
    assert list(table) == ["dataset", "task", "id", "cluster", "metric", "flavour", "statistics"]
    f1 = table.query("metric == 'f1' and flavour == 'paper'")
    assert list(f1["cluster"]) == ["a", "a", "b", "c"]
    assert np.stack(f1["statistics"])[:, 0].mean() == pytest.approx(tally(QUESTIONS).value("f1", "paper"))
    assert b"lung" not in (tmp_path / "s.parquet").read_bytes()


def test_a_missing_or_damaged_file_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_tallies(tmp_path / "none.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(UserError, match=r"bad.parquet is damaged"):
        load_tallies(tmp_path / "bad.parquet")
    with pytest.raises(UserError, match="cannot be written"):
        save_tallies(tmp_path / "none" / "s.parquet", [tally(QUESTIONS)])


@pytest.mark.parametrize("task", PRIMARY)
def test_the_primary_metric_alone_has_the_statistics_that_it_has_among_all(task):
    box = {"prediction": "{<1><2><30><40>}", "reference": "<1><2><33><44>"}
    texts = box if task == "REC" else {"prediction": "a small left lung", "reference": "the left lung is small"}
    answers = [Answer(id=str(number), dataset="data", task=task, **texts) for number in range(3)]
    alone, among = tally(answers, primary_only=True), tally(answers)
    assert {metric for metric, _ in alone.metrics} == {PRIMARY[task]}
    for metric in alone.metrics:
        assert (alone.of(*metric) == among.of(*metric)).all()
    assert alone.unavailable == {key: why for key, why in among.unavailable.items() if key[0] == PRIMARY[task]}
