from pathlib import Path

import numpy as np
import pytest

from tugofwar.errors import UserError
from tugofwar.folders import check_replaceable, replacing
from tugofwar.recording import Block, Recording


def save_recording(folder):
    Recording((Block("b", {"b.w": 1}),), {"b": np.ones(1)}, ["a"], np.ones(1)).save(folder)


def test_the_folder_appears_complete(tmp_path):
    target = tmp_path / "deep" / "out"
    with replacing(target) as folder:
        (folder / "file").write_text("new")
        assert not target.exists()
    assert (target / "file").read_text() == "new"
    assert [path.name for path in target.parent.iterdir()] == ["out"]


def test_a_failure_leaves_nothing(tmp_path):
    def write_half():
        with replacing(tmp_path / "deep" / "out") as folder:
            (folder / "file").write_text("half")
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        write_half()
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_recording_is_replaced_and_kept_on_failure(tmp_path):
    target = tmp_path / "out"
    save_recording(target)
    with pytest.raises(RuntimeError, match="halfway"), replacing(target):
        raise RuntimeError("halfway")
    assert (target / "manifest.json").exists()
    with replacing(target) as folder:
        (folder / "file").write_text("new")
    assert [path.name for path in target.iterdir()] == ["file"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_anything_else_is_not_replaced(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.safetensors").write_text("precious")
    with pytest.raises(UserError, match="is not replaced"), replacing(tmp_path / "run"):
        pass
    with pytest.raises(UserError, match="is a file"), replacing(tmp_path / "run" / "model.safetensors"):
        pass
    assert (tmp_path / "run" / "model.safetensors").read_text() == "precious"


@pytest.mark.parametrize("own", ["notes.txt", "difference/mlp/gd_task.csv", ".git/HEAD"])
def test_what_the_user_put_into_an_earlier_output_is_not_deleted(tmp_path, own):
    save_recording(tmp_path / "out")
    (tmp_path / "out" / own).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "out" / own).write_text("mine")
    with (
        pytest.raises(UserError, match=rf"holds {own.split('/')[0]} besides an earlier recording"),
        replacing(tmp_path / "out"),
    ):
        pass
    assert (tmp_path / "out" / own).read_text() == "mine"


def test_what_a_file_manager_leaves_does_not_matter(tmp_path):
    save_recording(tmp_path / "out")
    (tmp_path / "out" / ".DS_Store").write_text("")
    with replacing(tmp_path / "out") as folder:
        (folder / "file").write_text("new")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["file"]


def test_an_output_that_cannot_be_made_is_said_before_any_work(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be made, because .*file is a file"):
        check_replaceable(tmp_path / "file" / "deep" / "out")
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(UserError, match="is read-only"):
        check_replaceable(tmp_path / "deep" / "out")


def test_an_interrupt_between_the_two_renames_keeps_the_earlier_output(tmp_path, monkeypatch):
    target = tmp_path / "out"
    save_recording(target)
    rename = Path.rename

    def interrupted(path, other):
        if other == target.resolve() and not path.name.endswith(".previous"):
            raise KeyboardInterrupt
        return rename(path, other)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), replacing(target) as folder:
        (folder / "file").write_text("new")
    assert (target / "manifest.json").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
