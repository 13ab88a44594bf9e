import json

import pytest

from analyses.summary import summarise
from tugofwar.errors import UserError


def write_run(folder, accuracy):
    mean = {"value": accuracy, "low": accuracy - 0.1, "high": accuracy + 0.05}
    lead = {"value": accuracy - 0.3, "low": accuracy - 0.4, "high": accuracy - 0.2}
    wrong = {"value": 0.9, "low": 0.9, "high": 0.9}
    planes = {
        "primary": "accuracy",
        "metrics": {"paper": {"f1": wrong, "accuracy": mean}, "released": {"accuracy": wrong}},
        "baselines": {
            "majority class": {
                "paper": {"accuracy": {"value": 0.3, "low": 0.2, "high": 0.4}, "lead": lead},
                "released": {"accuracy": wrong, "lead": wrong},
            }
        },
    }
    scores = {"datasets": {"planes": planes}}
    (folder / "evaluation").mkdir(parents=True)
    (folder / "evaluation" / "scores.json").write_text(json.dumps(scores))
    (folder / "gradients").mkdir()
    header = "dataset,task,index_normalised,index_normalised_low,index_normalised_high"
    (folder / "gradients" / "index_dataset.csv").write_text(f"{header}\nplanes,CLS,{accuracy},0.1,0.9\n")


def test_every_run_has_a_column_and_every_number_its_interval(tmp_path):
    for name, accuracy in (("mlp", 0.5), ("cmoe", 0.25)):
        write_run(tmp_path / name, accuracy)
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in summarise([tmp_path / "mlp", tmp_path / "cmoe"]).splitlines()
        if line
    ]
    assert rows[0][1:] == ["mlp", "cmoe"]
    assert rows[2] == ["planes accuracy", "0.500 [0.400, 0.550]", "0.250 [0.150, 0.300]"]
    assert rows[3] == [
        "· lead over majority class (0.300)",
        "+0.200 [+0.100, +0.300]",
        "-0.050 [-0.150, +0.050]",
    ]
    assert rows[-1] == ["planes (CLS)", "0.500 [0.100, 0.900]", "0.250 [0.100, 0.900]"]


@pytest.mark.parametrize(
    ("missing", "command"),
    [("evaluation/scores.json", "unimed-eval"), ("gradients/index_dataset.csv", "tugofwar gradients")],
)
def test_what_is_missing_names_the_command_that_makes_it(tmp_path, missing, command):
    write_run(tmp_path / "mlp", 0.5)
    (tmp_path / "mlp" / missing).unlink()
    with pytest.raises(UserError, match=command):
        summarise([tmp_path / "mlp"])


@pytest.mark.parametrize(
    ("table", "cell"),
    [
        ("dataset,task,index\nplanes,CLS,-1.0\n", "undefined: no index is positive"),
        ("dataset,task,index,index_normalised\nplanes,CLS,2.0,1.0\n", "1.000 [no interval]"),
    ],
)
def test_an_index_without_maximum_or_interval_is_said_to_be_so(tmp_path, table, cell):
    write_run(tmp_path / "mlp", 0.5)
    (tmp_path / "mlp" / "gradients" / "index_dataset.csv").write_text(table)
    assert cell in summarise([tmp_path / "mlp"]).splitlines()[-1]


def test_a_dataset_that_only_the_first_run_was_asked_is_said_to_be_so(tmp_path):
    for name in ("mlp", "cmoe"):
        write_run(tmp_path / name, 0.5)
    (tmp_path / "cmoe" / "evaluation" / "scores.json").write_text('{"datasets": {}}')
    rows = summarise([tmp_path / "mlp", tmp_path / "cmoe"]).splitlines()
    assert [row.split("|")[-2].strip() for row in rows[2:4]] == ["not evaluated", "not evaluated"]


def test_a_score_without_interval_says_so(tmp_path):
    write_run(tmp_path / "mlp", 0.5)
    path = tmp_path / "mlp" / "evaluation" / "scores.json"
    scores = json.loads(path.read_text())
    scores["datasets"]["planes"]["metrics"]["paper"]["accuracy"] |= {"low": None, "high": None}
    path.write_text(json.dumps(scores))
    assert "0.500 [no interval]" in summarise([tmp_path / "mlp"])


OLDER = '{"datasets": {"planes": {"metrics": {"accuracy": {"value": 0.5}}, "baselines": {}}}}'


@pytest.mark.parametrize("content", ["{", "[]", "{}", OLDER])
def test_damaged_scores_are_one_sentence(tmp_path, content):
    write_run(tmp_path / "mlp", 0.5)
    (tmp_path / "mlp" / "evaluation" / "scores.json").write_text(content)
    with pytest.raises(UserError, match="damaged; make it again with: unimed-eval"):
        summarise([tmp_path / "mlp"])
