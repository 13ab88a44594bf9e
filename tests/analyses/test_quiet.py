"""`--quiet` reaches the progress bars of readers, many calls below the commands."""

import pytest

from tugofwar.cli import main
from unimed_model import probing
from unimed_model.cli_eval import eval_main
from unimed_model.data import progress, sources

from ..unimed_model.report_roots import command, trained, write_root

FEW = ("--batches", 2, "--batch-size", 2)
COMMANDS = {
    "gradients": ("--params", "connector.router.*", "--no-statistics", *FEW),
    "routing": ("--no-switching-off", *FEW),
    "features": ("--samples", 6),
    "dynamics": ("--params", "connector.router.*", *FEW),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_root(tmp_path_factory.mktemp("root"))


@pytest.fixture(scope="module")
def run(root, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "cmoe"
    assert trained(root, out) == 0
    return out


@pytest.fixture
def bars(monkeypatch):
    """Whether each bar of the readers was to be seen; each dataset that is opened shows one."""
    shown = []

    def open_source(source, split):
        with progress.progress_bar(total=1, desc="reading") as bar:
            shown.append(not bar.disable)
        return sources.open_source(source, split)

    monkeypatch.setattr(probing, "open_source", open_source)
    monkeypatch.setattr("unimed_model.data.open_source", open_source)
    return shown


@pytest.mark.parametrize("name", COMMANDS)
def test_quiet_silences_the_readers_too(name, root, run, tmp_path, bars, capsys):
    place = (run,) if name == "dynamics" else ("--ckpt", run)
    words = (name, *place, "--data", root, *COMMANDS[name])
    assert command(main, *words, "--out", tmp_path / "loud") == 0
    assert bars
    assert all(bars)
    bars.clear()
    capsys.readouterr()
    assert command(main, *words, "--out", tmp_path / "quiet", "--quiet") == 0
    assert bars
    assert not any(bars)
    assert "|" not in capsys.readouterr().err


@pytest.mark.usefixtures("without_java")
def test_quiet_silences_the_readers_when_a_run_is_evaluated(root, run, tmp_path, monkeypatch, capsys):
    shown = []

    def open_source(source, split):
        with progress.progress_bar(total=1, desc="reading") as bar:
            shown.append(not bar.disable)
        return sources.open_source(source, split)

    monkeypatch.setattr("unimed_model.evaluation.open_source", open_source)
    words = (run, "--data", root, "--limit", 1)
    assert command(eval_main, *words, "--out", tmp_path / "loud") == 0
    assert shown
    assert all(shown)
    shown.clear()
    assert command(eval_main, *words, "--out", tmp_path / "quiet", "--quiet") == 0
    assert shown
    assert not any(shown)
