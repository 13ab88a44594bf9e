"""Tables of ablations, on runs whose scores are known."""

import csv
import io
import re

import numpy as np
import pytest

from analyses.ablation_table import comparison_text, table_text
from tugofwar.errors import UserError
from unimed_model.scoring import tally

from .fake_runs import answers, write_evaluation, write_record, write_run

TASKS = {"zebra_cls": "CLS", "planes": "CLS", "questions": "QA", "names": "REG"}
MLP = {"zebra_cls": 10, "planes": 8, "questions": 4, "names": 16}
HARD = {"zebra_cls": 15, "planes": 10, "questions": 8, "names": 12}


@pytest.fixture
def out(tmp_path):
    write_record(tmp_path, "2a", 2, TASKS)
    for seed in range(2):
        write_run(tmp_path / "2a-mlp" / f"seed-{seed}", MLP, TASKS, parameters=4321)
    write_run(tmp_path / "2a-hard" / "seed-0", HARD, TASKS)
    shifted = {name: count - 2 for name, count in HARD.items()}
    write_run(tmp_path / "2a-hard" / "seed-1", shifted, TASKS)
    write_run(tmp_path / "fair-mlp" / "seed-1", MLP, TASKS)
    return tmp_path


def table(out, form="csv", flavour="paper"):
    return table_text(out, form, flavour)


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def value_of(rows, arm, dataset="", task=None):
    (row,) = [r for r in rows if (r["arm"], r["dataset"]) == (arm, dataset) and task in (None, r["task"])]
    return row


def cells_of(text, arm):
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    (row,) = [line for line in cells if arm in line]
    return dict(zip(cells[0], row, strict=True))


def test_values_are_means_over_seeds_in_percent_with_deviation_and_interval(out):
    row = value_of(rows_of(table(out)), "2a-hard", "zebra_cls")
    assert float(row["value"]) == pytest.approx(100 * (15 + 13) / 40)
    assert float(row["deviation"]) == pytest.approx(np.std([75, 65], ddof=1))
    assert float(row["low"]) < float(row["value"]) < float(row["high"])
    assert (row["seeds"], row["seeds_asked"], row["metric"], row["flavour"]) == ("2", "2", "accuracy", "paper")


def test_deltas_are_the_papers_formula_over_a_tasks_datasets_and_over_all_but_qa(out):
    rows = rows_of(table(out))
    gains = {name: 100 * (HARD[name] - 1 - MLP[name]) / MLP[name] for name in TASKS}
    expected = {
        "CLS": (gains["zebra_cls"] + gains["planes"]) / 2,
        "REG": gains["names"],
        "QA": gains["questions"],
        "Total": (gains["zebra_cls"] + gains["planes"] + gains["names"]) / 3,
    }
    found = {task: float(value_of(rows, "2a-hard", "", task)["value"]) for task in expected}
    assert found == pytest.approx(expected)
    assert not [r for r in rows if r["arm"] == "2a-mlp" and r["metric"] == "delta"]


def test_columns_go_by_task_as_in_the_paper_and_by_the_roots_order_within(out):
    lines = [line for line in table(out, "markdown").splitlines() if line.startswith("|")]
    headings = [cell.strip() for cell in lines[0].strip("|").split(" | ")]
    assert headings == [
        "Connector",
        "Router",
        "Strategy",
        "Arm",
        "Seeds",
        "REG BLEU-1: names",
        "Δ REG",
        "CLS Accuracy: zebra_cls / planes",
        "Δ CLS",
        "QA Accuracy: questions",
        "Δ QA",
        "Total Δ",
        "Connector parameters",
    ]


def test_every_row_of_the_table_is_there_and_says_what_was_not_run(out):
    text = table(out, "markdown")
    arms = [line.split("|")[4].strip() for line in text.splitlines() if line.startswith("|")][2:]
    assert arms == [
        "2a-linear",
        "2a-mlp",
        "2a-constant",
        "2a-hard",
        "2a-sparse",
        "2a-soft-token",
        "2a-soft-task",
        "2a-soft-token-task",
        "fair-mlp",
        "fair-light-router",
    ]
    assert cells_of(text, "2a-sparse")["Seeds"] == "not run"
    assert cells_of(text, "fair-mlp")["Seeds"] == "1 of 2"
    assert cells_of(text, "2a-hard")["Seeds"] == "2"
    assert cells_of(text, "2a-mlp")["Connector parameters"] == "4,321"
    assert "Fewer seeds than the 2 asked for: fair-mlp (1)." in text
    assert value_of(rows_of(table(out)), "2a-sparse")["reason"] == "not run"


def test_cells_read_as_in_the_paper(out):
    text = table(out, "markdown")
    hard = cells_of(text, "2a-hard")
    pattern = r"70\.00 ± 7\.07 \[\d+\.\d\d, \d+\.\d\d\] / 45\.00 ± 7\.07 \[\d+\.\d\d, \d+\.\d\d\]"
    assert re.fullmatch(pattern, hard["CLS Accuracy: zebra_cls / planes"])
    assert re.fullmatch(r"26\.2% \[-?\d+\.\d, \d+\.\d\]", hard["Δ CLS"])
    assert cells_of(text, "2a-mlp")["Total Δ"] == ""
    single = cells_of(text, "fair-mlp")["QA Accuracy: questions"]
    assert re.fullmatch(r"20\.00 \[\d+\.\d\d, \d+\.\d\d\]", single)


def test_without_the_baseline_there_are_no_deltas(tmp_path):
    write_record(tmp_path, "2a", 1, TASKS)
    write_run(tmp_path / "2a-hard" / "seed-0", HARD, TASKS)
    assert cells_of(table(tmp_path, "markdown"), "2a-hard")["Total Δ"] == "-"
    assert not [row for row in rows_of(table(tmp_path)) if row["metric"] == "delta"]


def test_a_baseline_of_zero_gives_a_reason_and_no_number(tmp_path):
    write_record(tmp_path, "2a", 1, {"planes": "CLS"})
    write_run(tmp_path / "2a-mlp" / "seed-0", {"planes": 0}, TASKS)
    write_run(tmp_path / "2a-hard" / "seed-0", {"planes": 5}, TASKS)
    row = value_of(rows_of(table(tmp_path)), "2a-hard", "", "Total")
    assert row["value"] == ""
    assert "baseline scores 0" in row["reason"]
    assert ": 2a-hard Δ CLS, 2a-hard Δ Total." in table(tmp_path, "markdown")


def test_nothing_run_yet_is_a_table_with_the_roots_columns(tmp_path):
    write_record(tmp_path, "5", 3, {"planes": "CLS"})
    text = table(tmp_path, "markdown")
    assert "CLS Accuracy: planes" in text
    assert text.count("not run") == 5


def test_a_run_that_is_still_training_does_not_count(out):
    (out / "fair-mlp" / "seed-1" / "run.json").write_text('{"exit_reason": "running"}')
    assert cells_of(table(out, "markdown"), "fair-mlp")["Seeds"] == "not run"


def test_the_papers_datasets_have_its_names_and_its_order(tmp_path):
    tasks = {"mine": "VQA", "path_vqa": "VQA", "slake_vqa": "VQA"}
    write_record(tmp_path, "2b", 1, tasks)
    write_run(tmp_path / "2a-mlp" / "seed-0", dict.fromkeys(tasks, 5), tasks)
    assert "VQA BLEU-1: Slake-VQA / Path-VQA / mine" in table(tmp_path, "markdown")


def test_both_flavours_can_be_asked_for(tmp_path):
    write_record(tmp_path, "2a", 1, {"q": "VQA"})
    lung = [a.__class__(a.id, "q", "VQA", "lung", "left lung") for a in answers("q", "VQA", 0)]
    write_evaluation(tmp_path / "2a-mlp" / "seed-0" / "evaluation", [tally(lung)])
    (tmp_path / "2a-mlp" / "seed-0" / "run.json").write_text('{"exit_reason": "finished"}')
    for flavour, expected in (("paper", 100.0), ("released", 100 * np.exp(-1))):
        row = value_of(rows_of(table(tmp_path, flavour=flavour)), "2a-mlp", "q")
        assert float(row["value"]) == pytest.approx(expected)
        assert row["flavour"] == flavour


def test_latex_is_the_same_table(out):
    text = table(out, "latex")
    assert text.count(r"\\") == 11
    assert r"2a-hard & 2 & " in text
    assert r"zebra\_cls" in text


def test_two_arms_are_compared_pair_by_pair(out):
    rows = rows_of(comparison_text(out, "2a-hard", "2a-mlp", "csv", "paper"))
    found = {row["dataset"]: row for row in rows}
    assert float(found["zebra_cls"]["value"]) == pytest.approx(70 - 50)
    assert float(found["names"]["value"]) == pytest.approx(55 - 80)
    assert all(float(row["low"]) <= float(row["value"]) <= float(row["high"]) for row in rows)
    assert all(0 < float(row["p_value"]) <= 1 for row in rows)
    text = comparison_text(out, "2a-hard", "2a-mlp", "markdown", "paper")
    assert "2a-hard minus 2a-mlp" in text


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda out: table_text(out, "markdwn", "paper"), "nearest is 'markdown'"),
        (lambda out: table_text(out, "markdown", "papr"), "nearest is 'paper'"),
        (lambda out: table_text(out / "nowhere", "markdown", "paper"), "holds no ablation.json"),
        (lambda out: comparison_text(out, "2a-hart", "2a-mlp", "csv", "paper"), "nearest is '2a-hard'"),
        (lambda out: comparison_text(out, "2a-sparse", "2a-mlp", "csv", "paper"), "2a-sparse has no finished run"),
    ],
)
def test_mistakes_are_one_sentence(out, call, reason):
    with pytest.raises(UserError, match=reason):
        call(out)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"table": "9z", "seeds": 1, "datasets": {}}'])
def test_a_damaged_record_is_one_sentence(tmp_path, content):
    (tmp_path / "ablation.json").write_text(content)
    with pytest.raises(UserError):
        table(tmp_path)
