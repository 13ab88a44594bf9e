import json

import pytest
import torch
from safetensors.torch import load_file

from unimed_model.errors import UserError
from unimed_model.training import train

from .conftest import tiny_settings


def test_a_run_says_what_happened(trained):
    run = json.loads((trained / "run.json").read_text())
    log = [json.loads(line) for line in (trained / "training_log.jsonl").read_text().splitlines()]
    assert run["exit_reason"] == "finished"
    assert [entry["step"] for entry in log] == [1, 2, 3, 4]
    assert sum(run["realised_mixture"].values()) == 4 * 2
    drawn = {name: 2 * sum(entry["dataset"] == name for entry in log) for name in run["datasets"]}
    assert drawn == run["realised_mixture"]
    settings = tiny_settings().training
    # warm-up from 0 over one step, then the cosine to the floor over the other three
    assert [entry["learning_rate"] for entry in log[:2]] == pytest.approx([0.0, settings.peak_learning_rate])
    assert {"model.safetensors", "config.json", "tokenizer.json", "run.json"} <= {p.name for p in trained.iterdir()}


def test_one_seed_gives_identical_weights_and_losses(trained, corpus, tmp_path):
    assert train(tiny_settings(), corpus, tmp_path / "again", quiet=True)
    first, second = load_file(trained / "model.safetensors"), load_file(tmp_path / "again" / "model.safetensors")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    logs = [(folder / "training_log.jsonl").read_text() for folder in (trained, tmp_path / "again")]
    assert logs[0] == logs[1]


def test_a_finished_run_is_not_trained_again(trained, corpus):
    before = (trained / "run.json").stat().st_mtime_ns
    assert train(tiny_settings(), corpus, trained, quiet=True) is False
    assert (trained / "run.json").stat().st_mtime_ns == before


def test_other_settings_are_refused_by_name_unless_overwriting(corpus, tmp_path):
    out = tmp_path / "run"
    train(tiny_settings("training.steps=1"), corpus, out, quiet=True)
    with pytest.raises(UserError, match=r"connector\.kind: cmoe there, mlp asked for"):
        train(tiny_settings("training.steps=1", "connector.kind=mlp"), corpus, out, quiet=True)
    assert train(tiny_settings("training.steps=1", "connector.kind=mlp"), corpus, out, quiet=True, overwrite=True)
    assert "mlp" in (out / "config.json").read_text()


def test_other_data_are_refused_by_name(trained, corpus, tmp_path):
    alone = tmp_path / "datasets.yaml"
    alone.write_text(f"- {{name: mni_rec, layout: slake_rec, root: {corpus / 'mni_slake'}}}")
    with pytest.raises(UserError, match=r"other data \(mni_caption: 12 there, None asked for"):
        train(tiny_settings(), alone, trained, quiet=True)


def test_a_loss_that_is_no_number_stops_with_nothing_left_behind(corpus, tmp_path):
    with pytest.raises(UserError, match=r"The loss is (nan|inf) at step \d+ on mni_"):
        train(
            tiny_settings("training.peak_learning_rate=1e30", "training.steps=20"), corpus, tmp_path / "run", quiet=True
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interruption_leaves_nothing_behind(corpus, tmp_path, monkeypatch, interruption):
    from unimed_model.modeling import UniMedForConditionalGeneration

    def fail(*_, **__):
        raise interruption

    monkeypatch.setattr(UniMedForConditionalGeneration, "save_pretrained", fail)
    with pytest.raises((KeyboardInterrupt, OSError)):
        train(tiny_settings(), corpus, tmp_path / "run", quiet=True)
    assert list(tmp_path.iterdir()) == []


def test_datasets_are_chosen_by_name(corpus, tmp_path):
    out = tmp_path / "run"
    train(tiny_settings("data.datasets=[mni_rec]", "training.steps=1"), corpus, out, quiet=True)
    assert list(json.loads((out / "run.json").read_text())["datasets"]) == ["mni_rec"]
    with pytest.raises(UserError, match="offers no dataset 'mni_captoin'; the nearest is 'mni_caption'"):
        train(tiny_settings("data.datasets=[mni_captoin]"), corpus, tmp_path / "other", quiet=True)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_no_run_is_refused_even_when_overwriting(corpus, tmp_path, overwrite):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not a finished run"):
        train(tiny_settings(), corpus, tmp_path, quiet=True, overwrite=overwrite)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_an_empty_folder_is_as_good_as_none(corpus, tmp_path):
    (tmp_path / "run").mkdir()
    assert train(tiny_settings("training.steps=1"), corpus, tmp_path / "run", quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("content", ["{", "[]", '{"settings": 3}'])
def test_a_damaged_run_file_is_one_sentence(corpus, tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(UserError, match=r"run\.json"):
        train(tiny_settings(), corpus, tmp_path, quiet=True)
