import numpy as np
import pytest

from tugofwar.errors import UserError
from tugofwar.folders import replacing
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
