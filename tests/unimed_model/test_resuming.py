"""A run that was killed or told to stop, gone on with by the same command: the same run to the last bit."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from unimed_model import training
from unimed_model.checkpoints import SEAL
from unimed_model.errors import UserError
from unimed_model.moments import read_second_moments
from unimed_model.trainer import UniMedTrainer
from unimed_model.training import Outcome

from .conftest import tiny_settings

SETTINGS = (
    "training.steps=24",
    "training.warmup_steps=4",
    "checkpoints.every=5",
    "logging.every=7",
    "llm.trainable=false",
    "llm.adapter={kind: lora, rank: 2, dropout: 0.1}",  # draws from torch's generator at every step
)
SAME = ("model.safetensors", "second_moments.safetensors", "training_log.jsonl", "routing_weights.csv")


def train(*arguments, **more):
    return training.train(*arguments, quiet=True, **more)


def command(corpus, out, *more):
    settings = [word for setting in (*SETTINGS, "training.batch_size=2") for word in ("--set", setting)]
    return [
        *(sys.executable, "-m", "unimed_model.cli", "--preset", "tiny", *settings, "--quiet"),
        *("--data", str(corpus), "--out", str(out), *more),
    ]


@pytest.fixture(scope="module")
def environment():
    return os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    """The run that nobody disturbed."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    assert train(tiny_settings(*SETTINGS), corpus, out) is Outcome.TRAINED
    return out


def assert_same_run(run, whole):
    for name in SAME:
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name
    mine, theirs = (load_file(folder / "checkpoint-24" / "model.safetensors") for folder in (run, whole))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    mine, theirs = (torch.load(folder / "checkpoint-24" / "optimizer.pt") for folder in (run, whole))
    assert mine["param_groups"] == theirs["param_groups"]
    for key, state in theirs["state"].items():
        assert all(torch.equal(mine["state"][key][name], value) for name, value in state.items())
    said, meant = (json.loads((folder / "run.json").read_text()) for folder in (run, whole))
    assert said["exit_reason"] == "finished"
    assert said["realised_mixture"] == meant["realised_mixture"]


def steps_logged(run):
    path = run / "training_log.jsonl"
    return path.read_text().count("\n") if path.is_file() else 0


def started(corpus, run, environment):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command(corpus, run), env=environment, text=True, **pipes)


def wait_for(condition, process):
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.slow
def test_killed_again_and_again_it_ends_as_if_undisturbed(corpus, whole, environment, tmp_path):
    run = tmp_path / "run"
    for step in (2, 7, 13, 21):
        with started(corpus, run, environment) as process:
            wait_for(lambda step=step: steps_logged(run) >= step, process)
            process.kill()
            process.communicate()
        assert json.loads((run / "run.json").read_text())["exit_reason"] == "running"
    subprocess.run(command(corpus, run), env=environment, check=True, capture_output=True)
    assert_same_run(run, whole)
    sessions = json.loads((run / "run.json").read_text())["sessions"]
    assert [session["exit_reason"] for session in sessions] == ["killed"] * 4 + ["finished"]


MOMENTS = {
    "before a checkpoint is sealed": "trainer.commit = die",
    "before a checkpoint takes its place": "Path.rename = die",
    "before old ones are deleted": "trainer.prune = die",
    "before the final model is written": "trainer.UniMedTrainer.save_model = later(trainer.UniMedTrainer.save_model)",
    "between the files of the final model": "Path.replace = among(Path.replace)",
}
KILLED = """
import os, signal, sys
from pathlib import Path
from unimed_model import cli, trainer, training, whole_file

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def later(function):
    return lambda self, folder=None, **more: die() if ".final" in str(folder) else function(self, folder, **more)

def among(function):
    return lambda self, target: die() if "second_moments" in str(target) else function(self, target)

{patch}
sys.argv = {argv!r}
cli.train_main()
"""


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_while_files_are_written_it_ends_as_if_undisturbed(corpus, whole, environment, tmp_path, moment):
    run = tmp_path / "run"
    code = KILLED.format(patch=MOMENTS[moment], argv=command(corpus, run)[2:])
    killed = subprocess.run([sys.executable, "-c", code], env=environment, check=False, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (run / "run.json").exists() or "finished" not in (run / "run.json").read_text()
    assert train(tiny_settings(*SETTINGS), corpus, run) is Outcome.TRAINED
    assert_same_run(run, whole)
    assert not [path for path in run.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("number", "status", "said"),
    [
        (signal.SIGTERM, 0, "preempted: SIGTERM"),
        (signal.SIGUSR1, 0, "preempted: SIGUSR1"),
        (signal.SIGINT, 130, "interrupted"),
    ],
)
def test_told_to_stop_it_saves_and_can_be_gone_on_with(corpus, whole, environment, tmp_path, number, status, said):
    run = tmp_path / "run"
    with started(corpus, run, environment) as process:
        wait_for(lambda: steps_logged(run) >= 3, process)
        process.send_signal(number)
        out, error = process.communicate(timeout=120)
    assert process.returncode == status, error
    assert "Traceback" not in error
    assert "the same command goes on from it" in out + error
    state = json.loads((run / "run.json").read_text())
    assert state["exit_reason"] == said
    step = state["sessions"][0]["to_step"]
    assert (run / f"checkpoint-{step}" / SEAL).is_file()
    assert steps_logged(run) == step < 24
    assert train(tiny_settings(*SETTINGS), corpus, run) is Outcome.TRAINED
    assert_same_run(run, whole)


@pytest.fixture
def stopped(corpus, tmp_path):
    """A run that ended by a fault after step 13, with checkpoints 4, 5 (best or newest) and 10."""
    run = tmp_path / "run"
    _until(13, lambda: train(tiny_settings(*SETTINGS), corpus, run))
    return run


def _until(step, begin):
    patch = pytest.MonkeyPatch()
    end_step = UniMedTrainer.end_step

    def fail(self):
        end_step(self)
        if self.state.global_step == step:
            raise MemoryError

    patch.setattr(UniMedTrainer, "end_step", fail)
    with pytest.raises(MemoryError):
        begin()
    patch.undo()


def test_a_damaged_checkpoint_is_said_and_the_one_before_is_taken(corpus, whole, stopped, capsys):
    newest = stopped / "checkpoint-10"
    os.truncate(newest / "optimizer.pt", 100)
    assert train(tiny_settings(*SETTINGS), corpus, stopped) is Outcome.TRAINED
    said = capsys.readouterr().err
    assert f"{newest / 'optimizer.pt'} has 100 bytes instead of the" in said
    assert f"going on from {stopped / 'checkpoint-5'}" in said
    assert_same_run(stopped, whole)


def test_a_changed_byte_in_a_checkpoint_is_damage(corpus, whole, stopped, capsys):
    damaged = stopped / "checkpoint-10" / "optimizer.pt"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    assert train(tiny_settings(*SETTINGS), corpus, stopped) is Outcome.TRAINED
    said = capsys.readouterr().err
    assert f"{damaged} is damaged: it is not what was written" in said
    assert f"going on from {stopped / 'checkpoint-5'}" in said
    assert_same_run(stopped, whole)


def test_a_damaged_checkpoint_of_a_later_step_does_not_crowd_out_a_new_one(corpus, tmp_path):
    run, settings = tmp_path / "run", tiny_settings(*SETTINGS, "checkpoints.keep=1")
    _until(13, lambda: train(settings, corpus, run))
    (run / "checkpoint-10" / SEAL).unlink()
    assert {path.name for path in run.glob("checkpoint-*")} >= {"checkpoint-4", "checkpoint-10"}
    _until(6, lambda: train(settings, corpus, run))
    assert "checkpoint-5" in {path.name for path in run.glob("checkpoint-*")}


def test_with_every_checkpoint_damaged_it_begins_anew_and_says_so(corpus, whole, stopped, capsys):
    for checkpoint in stopped.glob("checkpoint-*"):
        (checkpoint / SEAL).unlink()
    assert train(tiny_settings(*SETTINGS), corpus, stopped) is Outcome.TRAINED
    assert "going on from the beginning" in capsys.readouterr().err
    assert_same_run(stopped, whole)


def test_an_unfinished_run_is_not_gone_on_with_by_other_settings(corpus, stopped):
    with pytest.raises(UserError, match=r"other settings \(training\.beta1: 0\.9 there, 0\.8 asked for\)"):
        train(tiny_settings(*SETTINGS, "training.beta1=0.8"), corpus, stopped)


def test_an_unfinished_run_is_not_gone_on_with_on_other_data(corpus, stopped, tmp_path):
    changed = tmp_path / "data"
    shutil.copytree(corpus, changed)
    questions = changed / "mni_qa" / "questions" / "US" / "train.jsonl"
    questions.write_text(questions.read_text().replace('"question": "', '"question": "Now ', 1))
    with pytest.raises(UserError, match=r"other data \(the files of mni_qa have changed\)"):
        train(tiny_settings(*SETTINGS), changed, stopped)


def test_an_unfinished_run_is_no_run_to_evaluate(stopped):
    from unimed_model.loading import open_run

    with pytest.raises(UserError, match=r"not finished; go on .*checkpoint-10"):
        open_run(stopped)
    model, _ = open_run(stopped / "checkpoint-10")
    assert not model.training


def test_overwriting_goes_on_with_an_unfinished_run_of_the_same_settings(corpus, whole, stopped, capsys):
    assert train(tiny_settings(*SETTINGS), corpus, stopped, overwrite=True) is Outcome.TRAINED
    assert "going on from" in capsys.readouterr().err
    assert_same_run(stopped, whole)


def test_a_run_that_is_replaced_comes_back_if_the_new_one_fails_before_its_first_checkpoint(corpus, whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    new = tiny_settings(*SETTINGS, "training.beta1=0.8")
    _until(2, lambda: train(new, corpus, run, overwrite=True))
    assert_same_run(run, whole)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_run_is_replaced_for_good_when_the_new_one_is_finished(corpus, whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    new = tiny_settings(*SETTINGS, "training.beta1=0.8")
    _until(13, lambda: train(new, corpus, run, overwrite=True))
    assert (tmp_path / ".run.previous").is_dir()
    assert train(new, corpus, run) is Outcome.TRAINED
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert (run / "model.safetensors").read_bytes() != (whole / "model.safetensors").read_bytes()


def test_the_newest_the_best_and_that_of_the_warm_up_are_kept(whole):
    kept = {int(path.name.split("-")[1]) for path in whole.glob("checkpoint-*")}
    best = json.loads((whole / "checkpoint-24" / SEAL).read_text())["best"]
    assert best["by"] == "training loss"
    assert kept == {4, 20, 24, best["step"]}


def test_a_checkpoint_is_a_run_that_can_be_opened(whole):
    from unimed_model.loading import open_run

    last, _ = open_run(whole / "checkpoint-24")
    final, _ = open_run(whole)
    states = last.state_dict(), final.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])
    moments = [read_second_moments(folder).values for folder in (whole / "checkpoint-24", whole)]
    assert moments[0].keys() == moments[1].keys()
    assert all(torch.equal(moments[0][name], moments[1][name]) for name in moments[1])


def test_a_checkpoint_out_of_turn_does_not_change_which_one_is_the_best(corpus, whole, tmp_path, monkeypatch):
    """The loss of the few steps before a signal says little, and what was collected must not be lost by it."""
    run = tmp_path / "run"
    monkeypatch.setattr(UniMedTrainer, "asked_to_stop", lambda self: self.state.global_step == 7)
    assert train(tiny_settings(*SETTINGS), corpus, run) is Outcome.STOPPED
    monkeypatch.undo()
    assert train(tiny_settings(*SETTINGS), corpus, run) is Outcome.TRAINED
    mine, theirs = (json.loads((folder / "checkpoint-24" / SEAL).read_text())["best"] for folder in (run, whole))
    assert mine == theirs
