"""What stands in a run folder, and who may have it."""

import signal
import subprocess
import sys

import pytest

from unimed_model.errors import UserError
from unimed_model.standing import differences, forget_previous, standing_run, training_folder

from .conftest import tiny_settings

HOLDING = """
import sys
from pathlib import Path
from unimed_model.standing import training_folder

with training_folder(Path(sys.argv[1]), anew=False):
    print("inside", flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there")
@pytest.mark.parametrize("anew", [False, True])
def test_two_processes_do_not_train_into_one_folder(tmp_path, anew):
    run = tmp_path / "run"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", HOLDING, str(run)], text=True, **pipes) as other:
        assert other.stdout.readline() == "inside\n"
        with pytest.raises(UserError, match=r"Another process trains into .*run; wait for it"), _folder(run, anew):
            pytest.fail("it let us in")
        assert [path.name for path in run.iterdir()] == [".lock"]
        other.send_signal(signal.SIGKILL)
    with _folder(run, anew):
        (run / "run.json").write_text("{}")
    assert [path.name for path in run.iterdir()] == ["run.json"]


def _folder(run, anew):
    return training_folder(run, anew=anew)


def test_a_folder_with_hidden_files_of_others_is_no_empty_one(tmp_path):
    (tmp_path / ".git").mkdir()
    with pytest.raises(UserError, match="exists and is not a run"):
        standing_run(tmp_path)


@pytest.mark.parametrize("left", [".checkpoint.partial", ".final.partial", ".run.json.partial", ".lock"])
def test_a_folder_with_what_a_killed_process_left_is_as_good_as_empty(tmp_path, left):
    (tmp_path / left).touch()
    assert standing_run(tmp_path) is None


def test_a_folder_that_a_user_named_previous_stays(tmp_path):
    mine = tmp_path / "run.previous"
    mine.mkdir()
    (mine / "model.safetensors").write_text("mine")
    for anew in (False, True):
        with training_folder(tmp_path / "run", anew=anew):
            pass
        forget_previous(tmp_path / "run")
    with pytest.raises(KeyError), training_folder(tmp_path / "other", anew=False):
        raise KeyError
    assert (mine / "model.safetensors").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run.previous"]


def test_changed_files_of_a_dataset_are_told_by_its_name():
    settings, sizes = tiny_settings(), {"raw": 3, "prepared": 3}
    before = {"raw": {"sha256": "a", "files": 1}, "prepared": {"prepared_sha256": "p", "splits_sha256": "s"}}
    run = {"settings": settings.model_dump(mode="json"), "datasets": sizes, "data": before}
    assert differences(run, settings, sizes, before) == {}
    prepared_again = before | {"prepared": {"prepared_sha256": "later", "splits_sha256": "s"}}
    assert differences(run, settings, sizes, prepared_again) == {}
    changed = {"raw": {"sha256": "b", "files": 1}, "prepared": {"prepared_sha256": "p", "splits_sha256": "t"}}
    assert differences(run, settings, sizes, changed) == {
        "data": ["the files of raw have changed", "the files of prepared have changed"]
    }
