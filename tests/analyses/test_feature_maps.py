"""`tugofwar features` on a trained run: which samples, and that features are those of the connector."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file

from analyses.feature_maps.measuring import Settings, map_features, summary
from analyses.feature_maps.sources import TrainedRun
from tugofwar import cli
from tugofwar.errors import UserError
from unimed_model.data import discover, open_source
from unimed_model.loading import open_run

from ..unimed_model.conftest import corpus, trained  # noqa: F401 - fixtures

DATASETS = ["mni_vqa", "mni_rec", "mni_t1"]


@pytest.fixture(scope="module")
def found(corpus, trained, tmp_path_factory):  # noqa: F811
    out = tmp_path_factory.mktemp("looked") / "features"
    source = TrainedRun(trained, [corpus], batch_size=3)
    maps = map_features(source, out, Settings(samples=8, datasets=[*DATASETS, "mni_qa"], quiet=True))
    return maps, out


def test_features_are_those_at_the_connector(found, corpus, trained):  # noqa: F811
    maps, out = found
    features = load_file(out / "features.safetensors")
    model, processor = open_run(trained)
    source = next(source for source in discover(corpus) if source.name == "mni_t1")
    images = [sample.image for sample in open_source(source, "train")]
    with torch.no_grad():
        output = model.get_image_features(processor.pixels(images), torch.full((len(images),), 4))
    possible = {"before": output.inputs.mean(1).numpy(), "after": output.tokens.mean(1).numpy()}
    drawn = pd.read_csv(out / "samples.csv")
    own = (drawn["dataset"] == "mni_t1").to_numpy()
    assert own.sum() == 8
    for stage, rows in possible.items():
        distances = np.abs(features[stage][own][:, None] - rows).max(axis=2)
        assert distances.min(axis=1).max() < 1e-5
        assert len(set(distances.argmin(axis=1))) == 8
    assert maps.manifest["modules"] == ["connector"]


def test_text_never_reaches_the_connector(found):
    maps, out = found
    assert maps.manifest["untouched"] == ["mni_qa"]
    assert set(pd.read_csv(out / "embedding_2d.csv")["dataset"]) == set(DATASETS)
    assert maps.manifest["tasks"] == {"mni_vqa": "VQA", "mni_rec": "REC", "mni_t1": "CLS"}
    assert summary(maps)["separation"] == maps.tables["separation.csv"].to_dict(orient="records")


def test_no_image_is_taken_twice_for_a_dataset(corpus, trained):  # noqa: F811
    source = next(source for source in discover(corpus) if source.name == "mni_vqa")
    samples = open_source(source, "train")
    images = [sample.image_id for sample in samples]
    assert len(set(images)) < len(images)
    rows = TrainedRun(trained, [corpus], 4)._rows("mni_vqa", samples, len(samples), seed=0)
    taken = [images[index] for row in rows for index in row]
    assert sorted(taken) == sorted(set(images))
    assert all(len(row) == 4 for row in rows[:-1])
    shorter = TrainedRun(trained, [corpus], 4)._rows("mni_vqa", samples, 4, seed=0)
    assert shorter == rows[:1]


def test_the_command_measures_a_run_and_says_what_was_fewer(corpus, trained, monkeypatch, capsys, tmp_path):  # noqa: F811
    arguments = ["--ckpt", trained, "--data", corpus, "--datasets", "mni_t1,mni_gray", "--out", tmp_path / "out"]
    arguments += ["--quiet", "--json"]
    monkeypatch.setattr(sys, "argv", ["tugofwar", "features", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    printed = capsys.readouterr()
    assert printed.err == ""
    content = json.loads(printed.out)
    assert content["samples"] == {"mni_t1": 32, "mni_gray": 24}
    assert content["samples_wanted"] == 100
    assert {row["label"] for row in content["separation"]} == {"dataset"}


def test_another_module_of_a_run_is_reached_by_the_whole_model(corpus, trained, tmp_path):  # noqa: F811
    source = TrainedRun(trained, [corpus], module="language_model.lm_head")
    maps = map_features(source, tmp_path / "out", Settings(12, ["mni_t1", "mni_qa"], quiet=True))
    assert maps.manifest["untouched"] == []


def test_a_run_must_hold_the_module(corpus, trained, tmp_path):  # noqa: F811
    with pytest.raises(UserError, match="'conector' matches no module"):
        map_features(TrainedRun(trained, [corpus], module="conector"), tmp_path / "out", Settings(12, ["mni_t1"]))
    assert list(tmp_path.iterdir()) == []
