import json

import pytest

from unimed_model import UserError
from unimed_model.weights.provenance import RECORD, seal, sha256, stands

ORIGIN = {"package": "p", "version": "1"}


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "made"
    (made / "deep").mkdir(parents=True)
    (made / "a.bin").write_bytes(b"abc")
    (made / "deep" / "b").write_bytes(b"")
    seal(made, ORIGIN, quiet=True)
    return made


def test_the_record_holds_known_digests(folder):
    record = json.loads((folder / RECORD).read_text())
    assert record == {
        **ORIGIN,
        "files": {
            "a.bin": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "deep/b": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        },
    }
    assert sha256(folder / "a.bin") == record["files"]["a.bin"]


def test_a_finished_folder_stands(folder, tmp_path):
    assert stands(folder, ORIGIN, quiet=True)
    assert stands(folder, {"package": "p"}, quiet=True)
    assert not stands(tmp_path / "nothing", ORIGIN, quiet=True)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda f: (f / "a.bin").write_bytes(b"abd"), "a.bin is not as it was written"),
        (lambda f: (f / "a.bin").write_bytes(b"ab"), "a.bin is not as it was written"),
        (lambda f: (f / "deep" / "b").unlink(), "has lost its file deep/b"),
        (lambda f: (f / RECORD).unlink(), "was not made by this command"),
        (lambda f: (f / RECORD).write_text("{"), "was not made by this command"),
        (lambda f: (f / RECORD).write_text("[]"), "lists no files"),
        (lambda f: (f / RECORD).write_text(json.dumps({**ORIGIN, "version": "2", "files": {}})), "'2', not '1'"),
    ],
)
def test_what_is_not_as_it_was_made_is_never_replaced(folder, spoil, says):
    spoil(folder)
    before = sorted(folder.rglob("*"))
    with pytest.raises(UserError, match=says):
        stands(folder, ORIGIN, quiet=True)
    assert sorted(folder.rglob("*")) == before


def test_a_file_in_the_folders_place_is_not_taken_for_one(tmp_path):
    (tmp_path / "made").write_text("mine")
    with pytest.raises(UserError, match="was not made by this command"):
        stands(tmp_path / "made", ORIGIN, quiet=True)
