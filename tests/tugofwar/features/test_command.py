"""`tugofwar features` on models of one's own, as a user calls it."""

import json
import subprocess
import sys

import pandas as pd
import pytest
from safetensors.numpy import load_file

from tugofwar import cli

STUDY = """
import torch

torch.manual_seed(0)


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.connector = torch.nn.Linear(6, 4)
        self.head = torch.nn.Linear(4, 1)

    def forward(self, x, text=False):
        return self.head(x[..., :4] if text else self.connector(x)).mean()


def batches(shift, count=3, size=5, width=6):
    return [{"x": torch.randn(size, 2, width) + shift} for _ in range(count)]


def of(datasets, tasks=None):
    return {"model": Model(), "datasets": datasets, "tasks": tasks or {}}


def setup():
    text = [{"x": torch.randn(5, 2, 6), "text": True}]
    datasets = {"slake": batches(0), "chest": batches(3), "skin": batches(-3), "words": text}
    return of(datasets, {"slake": "VQA", "chest": "CLS", "skin": "CLS", "words": "QA"})


def one():
    return of({"slake": batches(0)}, {"slake": "VQA"})


def one_task():
    return of({"slake": batches(0), "chest": batches(3)}, {"slake": "VQA", "chest": "VQA"})


def unknown_tasks():
    return of({"slake": batches(0), "chest": batches(3), "lone": batches(1, 1, 1)})


def few():
    return of({"slake": batches(0, 1, 4)})


def same():
    return of({"slake": [{"x": torch.ones(12, 2, 6)}]})


def bad():
    return of({"slake": [{"x": torch.full((12, 2, 6), float("nan"))}]})


def text():
    return of({"words": [{"x": torch.randn(5, 2, 6), "text": True}]})


def called_all():
    return of({"all": batches(0), "chest": batches(3)})


def task_called_all():
    return of({"slake": batches(0), "chest": batches(3)}, {"slake": "VQA", "chest": "all"})


def many():
    name = "a very long name of a dataset, such as people may give"
    return of({f"{name}_{n:05}": batches(n, 1, 4) for n in range(40)})


def narrow():
    model = torch.nn.ModuleDict({"connector": torch.nn.Linear(2, 1)})
    return model, {"slake": [torch.randn(12, 2)]}, lambda model, batch: model["connector"](batch).mean()


def broken():
    def loss(model, batch):
        raise KeyError("labels")
    return Model(), {"slake": batches(0)}, loss
"""
FILES = {
    "manifest.json",
    "samples.csv",
    "features.safetensors",
    "embedding_2d.csv",
    "embedding_3d.csv",
    "separation.csv",
    "alignment.csv",
    "stability.csv",
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "my_study.py").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["tugofwar", "features", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code or 0


def look(monkeypatch, function, *more, out="out", module="connector"):
    target = f"my_study.py:{function}"
    return call(monkeypatch, "--setup", target, "--module", module, "--out", out, "--quiet", *more)


def tables(out="out"):
    stems = ("samples", "embedding_2d", "embedding_3d", "separation", "alignment", "stability")
    return {stem: pd.read_csv(f"{out}/{stem}.csv", keep_default_na=False) for stem in stems}


def test_tables_are_those_of_the_contract(here, monkeypatch, capsys):
    assert look(monkeypatch, "setup") == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "connector: 45 samples of 3 datasets, width 6 before, 4 after" in printed.out
    assert "not reaching connector: words" in printed.out
    assert "fewer than the 100 samples that were asked for: slake 15, chest 15, skin 15" in printed.out
    assert {path.name for path in (here / "out").iterdir()} == FILES
    found = tables()
    assert list(found["samples"]) == ["sample", "dataset", "task"]
    assert list(found["embedding_2d"]) == ["stage", "seed", "sample", "dataset", "task", "x", "y"]
    assert list(found["embedding_3d"]) == ["stage", "seed", "sample", "dataset", "task", "x", "y", "z"]
    assert list(found["separation"]) == ["stage", "label", "name", "measure", "value", "low", "high", "chance"]
    assert list(found["alignment"]) == ["name", "value", "low", "high", "samples"]
    assert list(found["stability"]) == ["stage", "dimensions", "measure", "seed", "other_seed", "value", "chance"]
    assert not any((table == "").any(axis=None) for table in found.values())
    assert len(found["embedding_2d"]) == 2 * 3 * 45
    assert list(found["alignment"]["name"]) == ["all", "slake", "chest", "skin"]
    rows = found["separation"].set_index(["stage", "label", "name", "measure"])
    assert len(rows) == 2 * 2 * (3 + 4)
    # the datasets lie six standard deviations apart
    assert rows.loc[("before", "dataset", "all", "knn_purity"), "value"] == 1
    assert rows.loc[("before", "dataset", "all", "knn_purity"), "chance"] == pytest.approx(14 / 44)
    assert ((rows["low"] <= rows["value"]) & (rows["value"] <= rows["high"])).all()
    features = load_file("out/features.safetensors")
    assert {name: each.shape for name, each in features.items()} == {"before": (45, 6), "after": (45, 4)}
    manifest = json.loads((here / "out" / "manifest.json").read_text())
    assert manifest["format"] == "tugofwar-features"
    assert manifest["untouched"] == ["words"]
    assert manifest["tasks"] == {"slake": "VQA", "chest": "CLS", "skin": "CLS"}
    assert manifest["stages"] == {"before": 6, "after": 4}
    assert manifest["perplexity"] == pytest.approx(44 / 3)
    assert manifest["seeds"] == [0, 1, 2]
    assert manifest["pca"]["after"] == {"components": 4, "variance": pytest.approx(1)}
    assert str(here) not in (here / "out" / "manifest.json").read_text()


def test_equal_calls_give_equal_bytes_and_json_is_the_tables(here):
    command = [
        sys.executable,
        "-m",
        "tugofwar.cli",
        "features",
        "--setup",
        "my_study.py:setup",
        "--module",
        "connector",
    ]
    printed = [
        subprocess.run([*command, "--json", "--out", out], capture_output=True, text=True, check=True, cwd=here)
        for out in ("one", "two")
    ]
    for name in FILES:
        assert (here / "one" / name).read_bytes() == (here / "two" / name).read_bytes()
    assert "t-SNE" in printed[0].stderr
    content = json.loads(printed[0].stdout)
    assert content["folder"] == "one"
    expected = pd.read_csv(here / "one" / "separation.csv")
    pd.testing.assert_frame_equal(pd.DataFrame(content["separation"]), expected, check_dtype=False, rtol=1e-12)


def test_one_dataset_has_pictures_and_nothing_to_be_apart_from(here, monkeypatch, capsys):
    assert look(monkeypatch, "one") == 0
    found = tables()
    assert len(found["separation"]) == 0
    assert len(found["embedding_3d"]) == 2 * 3 * 15
    assert list(found["alignment"]["name"]) == ["all"]
    assert "one dataset only, so there is nothing to tell apart" in capsys.readouterr().out


def test_one_task_has_no_task_rows(here, monkeypatch):
    assert look(monkeypatch, "one_task") == 0
    assert set(tables()["separation"]["label"]) == {"dataset"}


def test_without_tasks_there_is_no_task_column_and_a_lone_sample_is_fine(here, monkeypatch):
    assert look(monkeypatch, "unknown_tasks") == 0
    found = tables()
    assert "task" not in found["samples"]
    assert "task" not in found["embedding_2d"]
    assert set(found["separation"]["label"]) == {"dataset"}
    assert set(found["separation"]["name"]) == {"all", "slake", "chest"}
    assert "lone" in set(found["embedding_2d"]["dataset"])
    assert list(found["alignment"]["name"]) == ["all", "slake", "chest"]


def test_forty_datasets_with_long_names(here, monkeypatch, capsys):
    assert look(monkeypatch, "many", "--samples", 4) == 0
    assert len(set(tables()["separation"]["name"])) == 41
    assert "under 10 samples, so that intervals say little: a very long" in capsys.readouterr().out


def test_features_of_a_single_number_are_not_drawn(here, monkeypatch):
    assert look(monkeypatch, "narrow") == 0
    found = tables()
    assert set(found["embedding_2d"]["stage"]) == {"before"}
    assert list(found["embedding_3d"]) == ["stage", "seed", "sample", "dataset", "x", "y", "z"]
    assert len(found["embedding_3d"]) == 0
    assert len(found["alignment"]) == 1


def test_chosen_datasets_and_fewer_samples(here, monkeypatch):
    assert look(monkeypatch, "setup", "--datasets", "chest,skin", "--samples", 7, "--seed", 4) == 0
    manifest = json.loads((here / "out" / "manifest.json").read_text())
    assert manifest["samples"] == {"chest": 7, "skin": 7}
    assert manifest["seeds"] == [4, 5, 6]


def test_earlier_output_is_replaced_and_nothing_else(here, monkeypatch, capsys):
    assert look(monkeypatch, "one") == 0
    assert look(monkeypatch, "setup") == 0
    assert "slake" in (here / "out" / "alignment.csv").read_text()
    (here / "mine").mkdir()
    (here / "mine" / "thesis.txt").write_text("dear")
    assert look(monkeypatch, "setup", out="mine") == 2
    assert "is not replaced" in capsys.readouterr().err
    assert (here / "mine" / "thesis.txt").read_text() == "dear"


@pytest.mark.parametrize(
    ("function", "more", "message"),
    [
        ("few", (), "There are features of 4 samples only at the module connector; at least 10 are needed"),
        ("same", (), "All 12 samples have the same features before the module connector"),
        ("bad", (), "The features before connector on dataset slake hold NaN or infinite values"),
        ("text", (), "No batch of words reaches the module connector"),
        ("called_all", (), "A dataset or task is called 'all'"),
        ("task_called_all", (), "A dataset or task is called 'all'"),
        ("setup", ("--samples", 0), "--samples is 0; take at least 1"),
        ("setup", ("--datasets", "chset"), "--datasets names 'chset'"),
        ("setup", ("--batch-size", 2), "--batch-size has no meaning with --setup"),
        ("broken", (), "KeyError"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(here, monkeypatch, capsys, function, more, message):
    if function == "broken":
        with pytest.raises(KeyError):
            look(monkeypatch, function, *more)
    else:
        assert look(monkeypatch, function, *more) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("Error: ")
        assert message in line
    assert [path.name for path in here.iterdir() if path.name != "__pycache__"] == ["my_study.py"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Give either --ckpt RUN with --data ROOT, or --setup"),
        (("--ckpt", "run"), "--ckpt needs --data"),
        (("--ckpt", "run", "--data", "data"), "There is no checkpoint folder run"),
        (("--setup", "my_study.py:setup", "--out", "out"), "--setup needs --module"),
        (("--setup", "my_study.py:setup", "--module", "connector"), "--setup needs --out"),
        (("--setup", "my_study.py:setup", "--module", "conector", "--out", "o"), "the closest names are connector"),
        (("--setup", "my_study.py:setup", "--module", "*", "--out", "o"), "matches 2 modules (connector, head)"),
    ],
)
def test_options_that_do_not_go_together(here, monkeypatch, capsys, arguments, message):
    assert call(monkeypatch, *arguments) == 2
    assert message in capsys.readouterr().err
