"""One tiny corpus, model and processor for the tests that need a whole model."""

from pathlib import Path

import pytest

from unimed_model.data.corpus import writing
from unimed_model.settings import resolve

SMALL = {"mni_slake": (24, 12), "mni_mpx": (12, 6), "mni_t1": (32, 16), "mni_gray": (24, 8)}


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """The sample corpus with a few pictures per folder, written by the real code."""
    root = tmp_path_factory.mktemp("corpus") / "data"
    small = tuple(
        (name, write, dict(zip(("train", "test"), SMALL[name], strict=True))) for name, write, _ in writing.FOLDERS
    )
    patch = pytest.MonkeyPatch()
    patch.setattr(writing, "FOLDERS", small)
    writing.write_sample_corpus(root)
    patch.undo()
    return root


def tiny_settings(*overrides: str):
    return resolve("tiny", ["training.steps=4", "training.warmup_steps=1", "training.batch_size=2", *overrides])


@pytest.fixture(scope="session")
def trained(corpus, tmp_path_factory) -> Path:
    """A run folder of four steps, as ``unimed-train`` leaves it."""
    from unimed_model.training import train

    out = tmp_path_factory.mktemp("runs") / "cmoe"
    assert train(tiny_settings(), corpus, out, quiet=True)
    return out


@pytest.fixture(scope="session")
def opened(trained):
    """Model and processor of the trained run."""
    from unimed_model.loading import open_run

    return open_run(trained)
