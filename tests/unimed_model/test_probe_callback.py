import csv
from contextlib import contextmanager

import pytest

from tugofwar.callback import TugOfWarCallback
from unimed_model.errors import UserError
from unimed_model.train_log import TrainLog
from unimed_model.training import train

from .conftest import tiny_settings


def test_probing_writes_recordings_and_does_not_change_training(corpus, trained, tmp_path):
    run = tmp_path / "run"
    train(tiny_settings(), corpus, run, quiet=True, probe_every=2)
    assert {path.name for path in (run / "tugofwar").iterdir()} >= {"step-000002", "step-000004", "history.csv"}
    with (run / "tugofwar" / "history.csv").open() as file:
        assert {int(row["step"]) for row in csv.DictReader(file)} == {2, 4}
    for name in ("model.safetensors", "training_log.jsonl"):
        assert (run / name).read_bytes() == (trained / name).read_bytes()


def test_the_time_of_probing_is_none_of_trainings(corpus, tmp_path, monkeypatch):
    paused, probed = [], []

    @contextmanager
    def pause(self):
        paused.append(True)
        yield
        paused.pop()

    monkeypatch.setattr(TrainLog, "paused", pause)
    monkeypatch.setattr(TugOfWarCallback, "on_step_end", lambda *_, **__: probed.append(bool(paused)))
    train(tiny_settings(), corpus, tmp_path / "run", quiet=True, probe_every=2)
    assert probed == [True] * 4


def test_too_few_samples_for_two_batches_are_said(corpus, tmp_path):
    settings = tiny_settings("training.batch_size=8")
    with pytest.raises(UserError, match="needs two batches of 8 samples of every dataset, and mni_caption has 12"):
        train(settings, corpus, tmp_path / "run", quiet=True, probe_every=1)
    assert list(tmp_path.iterdir()) == []
