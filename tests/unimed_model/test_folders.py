import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from unimed_model.folders import replacing


def test_a_new_folder_appears_at_the_end(tmp_path):
    with replacing(tmp_path / "deep" / "out") as folder:
        (folder / "a").write_text("1")
        assert not (tmp_path / "deep" / "out").exists()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]


def test_a_failure_leaves_neither_the_folder_nor_its_parents(tmp_path):
    def fail():
        with replacing(tmp_path / "deep" / "out") as folder:
            (folder / "a").write_text("1")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_the_old_content_stands_until_the_new_one_is_complete(tmp_path, monkeypatch):
    """At every rename and deletion, old or new content must be whole somewhere: a kill may come at any of them."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "a").write_text("old")
    seen = []
    rename = Path.rename

    def watched(self, target):
        whole = [p.read_text() for p in tmp_path.glob("*/a")]
        seen.append(sorted(whole))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", watched)
    with replacing(out) as folder:
        (folder / "a").write_text("new")
    assert seen == [["new", "old"], ["new", "old"]]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (out / "a").read_text() == "new"


def test_the_current_folder_can_be_named(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with replacing(Path()) as folder:
        (folder / "a").write_text("1")
    assert (tmp_path / "here" / "a").read_text() == "1"


@pytest.mark.skipif(sys.platform == "win32", reason="files have POSIX modes")
def test_weights_may_be_read_by_whoever_may_read_the_rest(tmp_path):
    with replacing(tmp_path / "run") as folder:
        (folder / "config.json").touch()
        save_file({"weight": np.zeros(2)}, folder / "model.safetensors")
    modes = {path.stat().st_mode for path in (tmp_path / "run").iterdir()}
    assert len(modes) == 1
