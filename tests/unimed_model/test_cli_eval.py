"""``unimed-eval`` as it is typed: three commands, of which the first need not be named."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from unimed_model.cli_eval import eval_main
from unimed_model.predictions import line_of
from unimed_model.scoring import Answer, difference, tally

from .report_roots import command

BIN = Path(sys.executable).parent

pytestmark = pytest.mark.usefixtures("without_java")


def classes(right, seed=0, dataset="planes"):
    """120 answers on 40 images, of which a share is right."""
    random = np.random.default_rng(seed)
    return [
        {
            "id": str(i),
            "image_id": f"image {i % 40}",
            "task": "CLS",
            "dataset": dataset,
            "prediction": "axial" if random.random() < right else "coronal",
            "reference": "axial" if i % 3 else "coronal",
        }
        for i in range(120)
    ]


def write(path, records):
    path.write_text("".join(map(line_of, records)))
    return path


@pytest.fixture
def report():
    return [
        {"id": "1", "task": "RG", "prediction": "", "reference": "no effusion"},
        {"id": "2", "task": "RG", "prediction": "I cannot tell", "reference": "clear lungs"},
        {"id": "3", "task": "RG", "prediction": "clear lungs", "reference": "clear lungs"},
    ]


def printed(capfd, *arguments, status=0):
    assert command(eval_main, *arguments) == status
    return capfd.readouterr()


def table(text):
    """First words of each line -> the cells after them."""
    cells = (line.strip().split("  ") for line in text.splitlines())
    return {row[0]: [cell.strip() for cell in row[1:] if cell.strip()] for row in cells}


# ------------------------------------------------------------------------------------------------- commands


def test_help_shows_all_three(capfd):
    shown = printed(capfd, "--help").out
    for name in ("answer", "score", "compare", "unimed-eval RUN --data ROOT"):
        assert name in shown
    assert "--limit" in printed(capfd, "some-run", "--help").out


def test_without_arguments_it_shows_help(capfd):
    shown = printed(capfd, status=2)
    assert "compare" in shown.out + shown.err


@pytest.mark.parametrize("named", [(), ("answer",)])
def test_a_run_is_answered_by_default(trained, corpus, tmp_path, capfd, named):
    options = ("--data", corpus, "--datasets", "mni_t1", "--limit", 4, "--quiet")
    shown = printed(capfd, *named, trained, *options, "--out", tmp_path / "a")
    rows = table(shown.out)
    assert "mni_t1 (CLS): 4 samples on 4 images; " in shown.out
    assert rows["paper"] == ["released"]
    assert len(rows["accuracy"]) == len(rows["accuracy of majority class"]) == len(rows["lead over it"]) == 2
    assert shown.err == f"tables and predictions in {tmp_path / 'a'}\n"
    # options first is as good
    as_json = printed(capfd, *named, *options, "--json", "--out", tmp_path / "b", trained).out
    assert (
        json.loads(as_json)["mni_t1"] == json.loads((tmp_path / "b" / "scores.json").read_text())["datasets"]["mni_t1"]
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("/nowhere/run", "--data", "/nowhere"), "/nowhere"),
        (("score", "/nowhere.jsonl"), "There is no prediction file /nowhere.jsonl"),
        (("compare", "/nowhere", "/nowhere"), "/nowhere does not exist; name a run folder"),
        (("compare", ",", "/nowhere"), "Name a run folder"),
    ],
)
def test_mistakes_are_one_sentence(capfd, arguments, says):
    shown = printed(capfd, *arguments, status=2)
    assert shown.out == ""
    assert shown.err.startswith("Error: ")
    assert shown.err.count("\n") == 1
    assert says in shown.err


def test_as_a_module_it_is_the_same_command():
    done = subprocess.run([sys.executable, "-m", "unimed_model.cli_eval", "--version"], capture_output=True, text=True)
    assert done.stdout == subprocess.run([BIN / "unimed-eval", "--version"], capture_output=True, text=True).stdout


# --------------------------------------------------------------------------------------------------- score


def test_scoring_needs_no_torch(tmp_path):
    file = write(tmp_path / "p.jsonl", classes(0.7))
    code = (
        "import sys; from unimed_model.cli_eval import eval_main\n"
        f"sys.argv = ['unimed-eval', 'score', {str(file)!r}, '--out', {str(tmp_path / 'out')!r}]\n"
        "try: eval_main()\n"
        "finally: print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert (tmp_path / "out" / "scores.json").is_file()


def test_scores_of_a_file_are_printed_and_written(tmp_path, capfd):
    records = classes(0.7) + classes(0.2, dataset="others")
    file = write(tmp_path / "p.jsonl", records)
    shown = printed(capfd, "score", file, "--out", tmp_path / "out")
    assert shown.err == f"tables in {tmp_path / 'out'}\n"
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())["datasets"]
    rows = pd.read_csv(tmp_path / "out" / "scores.csv")
    assert list(rows.columns) == ["dataset", "task", "flavour", "metric", "value", "low", "high", "samples", "images"]
    for name in ("planes", "others"):
        mine = np.mean([r["prediction"] == r["reference"] for r in records if r["dataset"] == name])
        found = scores[name]["metrics"]["paper"]["accuracy"]
        assert found["value"] == pytest.approx(mine)
        assert found["low"] < mine < found["high"]
        assert f"{name} (CLS): 120 samples on 40 images; 0 empty, 0 unparsable, 0 refused" in shown.out
        assert f"{mine:.3f} [{found['low']:.3f}, {found['high']:.3f}]" in shown.out
        assert rows.query("dataset == @name and flavour == 'paper'").value.item() == pytest.approx(mine)
    again = printed(capfd, "score", file, "--json").out
    assert json.loads(again) == scores


def test_answers_that_are_none_are_counted_and_a_reason_is_said_once(tmp_path, capfd, report):
    both = report + [{**record, "dataset": "again"} for record in report]
    shown = printed(capfd, "score", write(tmp_path / "p.jsonl", both)).out
    counts = "3 samples; 1 empty, 0 unparsable, 1 refused, 1 left out of the released scores"
    assert shown.count(counts) == 2
    assert shown.count("needs Java") == 1
    (line,) = (line for line in shown.splitlines() if "needs Java" in line)
    assert line.startswith("not available: RG bleu_1 (released), RG bleu_4 (released), RG meteor (released): ")
    rows = table(shown)
    assert rows["meteor"][1] == "-"
    assert rows["rouge_l"][1] != "-"


def test_on_a_single_image_there_is_no_interval(tmp_path, capfd):
    records = [{**record, "image_id": "one"} for record in classes(0.7)]
    file = write(tmp_path / "p.jsonl", records)
    shown = printed(capfd, "score", file, "--out", tmp_path / "out").out
    assert "[no interval]" in shown
    assert "nan" not in shown.lower()
    written = (tmp_path / "out" / "scores.json").read_text() + (tmp_path / "out" / "scores.csv").read_text()
    assert "nan" not in written.lower()
    found = json.loads((tmp_path / "out" / "scores.json").read_text())["datasets"]["planes"]["metrics"]["paper"]
    assert (found["accuracy"]["low"], found["accuracy"]["high"]) == (None, None)
    assert "nan" not in printed(capfd, "compare", file, tmp_path / "out").out.lower()


def test_what_is_not_an_evaluation_is_not_replaced(tmp_path, capfd):
    file = write(tmp_path / "p.jsonl", classes(0.7))
    shown = printed(capfd, "score", file, "--out", tmp_path, status=2)
    assert "holds no evaluation" in shown.err
    assert list(tmp_path.iterdir()) == [file]
    assert "is a file" in printed(capfd, "score", file, "--out", file, status=2).err


def test_a_mistake_in_a_file_leaves_nothing(tmp_path, capfd):
    file = write(tmp_path / "p.jsonl", [*classes(0.7), {"id": "x"}])
    shown = printed(capfd, "score", file, "--out", tmp_path / "out", status=2)
    assert f"{file}, line 121: the key 'task' is missing" in shown.err
    assert list(tmp_path.iterdir()) == [file]


def test_our_own_predictions_score_as_when_they_were_made(trained, corpus, tmp_path, capfd):
    out = tmp_path / "out"
    names = "mni_vqa,mni_rec,mni_reg,mni_caption,mni_qa"
    printed(capfd, trained, "--data", corpus, "--datasets", names, "--limit", 6, "--out", out, "--quiet")
    again = json.loads(printed(capfd, "score", out / "predictions.jsonl", "--json").out)
    first = json.loads((out / "scores.json").read_text())["datasets"]
    for name in first:
        assert again[name] == {**first[name], "baselines": {}, "skipped": {}}


# ------------------------------------------------------------------------------------------------- compare


def tallied(records):
    keys = ("id", "dataset", "task", "prediction", "reference", "image_id")
    return tally([Answer(**{key: record[key] for key in keys}) for record in records])


@pytest.fixture
def models(tmp_path, capfd):
    """Three runs of a good model and two of a bad one: as files, as evaluation folders and as run folders."""
    runs = {"good": [classes(0.9, seed) for seed in range(3)], "bad": [classes(0.5, seed) for seed in (7, 8)]}
    for name, seeds in runs.items():
        for seed, records in enumerate(seeds):
            file = write(tmp_path / f"{name}{seed}.jsonl", records)
            printed(capfd, "score", file, "--out", tmp_path / f"{name}{seed}" / "evaluation")
    return runs


@pytest.mark.parametrize("form", ["{}.jsonl", "{}", "{}/evaluation", "{}/evaluation/../../{}.jsonl"])
def test_a_model_may_be_named_in_several_ways(tmp_path, capfd, models, form):
    a, b = (tmp_path / form.replace("{}", name) for name in ("good0", "bad0"))
    found = json.loads(printed(capfd, "compare", a, b, "--json").out)["planes"]["metrics"]["paper"]["accuracy"]
    wanted = difference([tallied(models["good"][0])], [tallied(models["bad"][0])], "accuracy", "paper")
    assert found["difference"] == pytest.approx(
        {"value": wanted.value, "low": wanted.low, "high": wanted.high, "p_value": wanted.p_value}
    )
    right = [np.mean([r["prediction"] == r["reference"] for r in models[name][0]]) for name in ("good", "bad")]
    assert [found["first"]["value"], found["second"]["value"]] == pytest.approx(right)
    assert found["difference"]["value"] == pytest.approx(right[0] - right[1])


def test_seeds_are_joined_by_commas(tmp_path, capfd, models):
    sides = [",".join(str(tmp_path / f"{name}{i}") for i in range(len(runs))) for name, runs in models.items()]
    shown = printed(capfd, "compare", *sides).out
    assert "planes (CLS): 120 samples, 3 and 2 runs" in shown
    found = json.loads(printed(capfd, "compare", *sides, "--json").out)["planes"]
    assert found["runs"] == [3, 2]
    for flavour in ("paper", "released"):
        accuracy = found["metrics"][flavour]["accuracy"]
        wanted = difference(*([tallied(records) for records in runs] for runs in models.values()), "accuracy", flavour)
        assert accuracy["difference"]["value"] == pytest.approx(wanted.value)
        difference_cell = f"{wanted.value:+.3f} [{wanted.low:+.3f}, {wanted.high:+.3f}]"
        (row,) = (line for line in shown.splitlines() if flavour in line)
        assert difference_cell in row
        assert f"{accuracy['first']['value']:.3f} [" in row


def test_a_path_may_have_a_comma(tmp_path, capfd):
    file = write(tmp_path / "lr=1,wd=0.jsonl", classes(0.9))
    found = json.loads(printed(capfd, "compare", file, file, "--json").out)["planes"]
    assert found["runs"] == [1, 1]
    assert found["metrics"]["paper"]["accuracy"]["difference"]["value"] == 0


def test_what_only_one_has_is_said_to_be_left_out(tmp_path, capfd):
    a = write(tmp_path / "a.jsonl", classes(0.9) + classes(0.5, dataset="more"))
    b = write(tmp_path / "b.jsonl", classes(0.6))
    shown = printed(capfd, "compare", a, b)
    assert shown.err == "more is left out: only one of the two has it\n"
    assert "more (CLS)" not in shown.out


def test_predictions_that_tell_no_images_are_compared_with_ours(tmp_path, capfd):
    ours = write(tmp_path / "ours.jsonl", classes(0.9))
    told = classes(0.6, seed=1)
    untold = [{key: value for key, value in record.items() if key != "image_id"} for record in told]
    others = [write(tmp_path / f"{len(records[0])}.jsonl", records) for records in (told, untold)]
    found = [json.loads(printed(capfd, "compare", ours, other, "--json").out)["planes"] for other in others]
    leads = [one["metrics"]["paper"]["accuracy"]["difference"] for one in found]
    assert leads[0] == leads[1]


def test_models_that_cannot_be_compared_are_refused_with_the_reason(tmp_path, capfd):
    records = classes(0.9)
    a = write(tmp_path / "a.jsonl", records)
    cases = {
        "share no dataset: the first has planes, the second others": [{**r, "dataset": "others"} for r in records],
        "other samples: 20 of them, such as '100'": records[:100],
        "have the tasks CLS and QA": [{**r, "task": "QA"} for r in records],
        "belongs to image": [{**r, "image_id": "one"} for r in records],
    }
    for says, others in cases.items():
        b = write(tmp_path / "b.jsonl", others)
        shown = printed(capfd, "compare", a, b, status=2)
        assert says in shown.err
        assert shown.err.count("\n") == 1
        if "image" not in says:
            assert "Error" in printed(capfd, "compare", f"{a},{b}", a, status=2).err
    (tmp_path / "empty").mkdir()
    assert "holds no evaluation; make one with" in printed(capfd, "compare", a, tmp_path / "empty", status=2).err


def test_a_metric_that_one_of_two_lacks_is_not_compared_and_said(tmp_path, capfd, report):
    a, b = (write(tmp_path / f"{name}.jsonl", report) for name in "ab")
    shown = printed(capfd, "compare", a, b).out
    assert shown.count("needs Java") == 1
    assert not [line for line in shown.splitlines() if line.split()[:2] == ["meteor", "released"]]
    assert [line for line in shown.splitlines() if line.split()[:2] == ["meteor", "paper"]]
