import numpy as np
import pytest

from tugofwar.errors import UserError
from tugofwar.recording import Block, Recording
from tugofwar.workspace import working, workspace_of


def finish_dataset(room, name="a-0123", size=3):
    room.factors.mkdir(exist_ok=True)
    (room.factors / f"{name}.0.bin").write_bytes(b"x" * size)
    (room.factors / f"{name}.0.json").write_text("{}")


def save_recording(folder):
    Recording((Block("b", {"b.w": 1}),), {"b": np.ones(1)}, ["a"], np.ones(1)).save(folder)


def cut_short(target, error, *names, resume=True, size=3):
    """Work that ends with ``error`` after datasets of those names; the notes on the error."""

    def work():
        with working(target, resume) as room:
            for name in names:
                finish_dataset(room, name, size)
            (room.output / "half").write_text("half")
            raise error

    with pytest.raises(type(error)) as raised:
        work()
    return getattr(raised.value, "__notes__", [])


def test_the_output_appears_whole_and_the_workspace_goes(tmp_path):
    target = tmp_path / "deep" / "out"
    with working(target) as room:
        assert room.folder == workspace_of(target) == target.with_name(".out.partial")
        finish_dataset(room)
        (room.output / "file").write_text("new")
        assert not target.exists()
    assert [path.name for path in target.parent.iterdir()] == ["out"]
    assert [path.name for path in target.iterdir()] == ["file"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), UserError("no"), RuntimeError("ours")])
def test_finished_datasets_are_kept_and_it_is_said(tmp_path, error):
    (note,) = cut_short(tmp_path / "out", error, "a-0123", "b-4567")
    assert note.startswith("2 finished datasets are kept in .out.partial beside the output")
    with working(tmp_path / "out") as room:
        assert (room.factors / "a-0123.0.json").exists()
        assert list(room.output.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(("names", "resume"), [((), True), (("a-0123",), False)])
def test_otherwise_nothing_is_left(tmp_path, names, resume):
    assert cut_short(tmp_path / "deep" / "out", KeyboardInterrupt(), *names, resume=resume) == []
    assert list(tmp_path.iterdir()) == []


def test_a_dataset_without_factors_is_not_worth_keeping(tmp_path):
    assert cut_short(tmp_path / "out", UserError("touches nothing"), "a-0123", size=0) == []
    assert list(tmp_path.iterdir()) == []


def test_without_resuming_what_was_left_is_cleared(tmp_path):
    cut_short(tmp_path / "out", KeyboardInterrupt(), "a-0123")
    with working(tmp_path / "out", resume=False) as room:
        assert not room.factors.exists()


def test_an_earlier_recording_stays_until_the_end(tmp_path):
    target = tmp_path / "out"
    save_recording(target)
    cut_short(target, KeyboardInterrupt(), "a-0123")
    assert (target / "manifest.json").exists()
    with working(target) as room:
        (room.output / "file").write_text("new")
    assert [path.name for path in target.iterdir()] == ["file"]


def test_a_swap_that_was_cut_short_is_undone(tmp_path):
    target = tmp_path / "out"
    save_recording(target)
    room = workspace_of(target)
    room.mkdir()
    target.rename(room / "previous")
    cut_short(target, UserError("no"))
    assert (target / "manifest.json").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_one_process_at_a_time(tmp_path):
    with working(tmp_path / "out") as room:
        finish_dataset(room)
        with pytest.raises(UserError, match="Another process is measuring into"), working(tmp_path / "out"):
            pass
        assert (room.factors / "a-0123.0.bin").exists()


def test_anything_else_is_not_replaced(tmp_path):
    (tmp_path / "model.safetensors").write_text("precious")
    with pytest.raises(UserError, match="is not replaced"), working(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_only_the_first_process_touches_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with working(tmp_path / "out") as room:
        assert room.folder == workspace_of(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_factors_are_linked_once_and_replace_those_of_another_run(tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    for name in ("a.0.bin", "a.0.json", "a.1.bin", "a.1.json"):
        (kept / name).write_text(name)
    with working(tmp_path / "out") as room:
        room.factors.mkdir()
        (room.factors / "a.0.bin").write_text("of a shorter run")
        room.seed_factors(kept)
        assert {path.name: path.read_text() for path in room.factors.iterdir()} == {
            path.name: path.name for path in kept.iterdir()
        }
        assert (room.factors / "a.0.bin").samefile(kept / "a.0.bin")
        (room.factors / "a.2.bin").write_text("of an interrupted extension")
        room.seed_factors(kept)
        assert (room.factors / "a.2.bin").exists()
