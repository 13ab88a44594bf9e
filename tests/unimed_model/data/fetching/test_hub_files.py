"""What is fetched from repositories of the dataset hub."""

import errno
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unimed_model import UserError
from unimed_model.data import load_dataset
from unimed_model.data.fetching import archives, fetch
from unimed_model.weights.download import KEPT
from unimed_model.weights.provenance import RECORD, sha256

FIXTURES = Path(__file__).parents[3] / "fixtures"
COMMIT = "c0ffee" * 6 + "c0ff"
LARGE = 2000
"""From this size on the hub keeps a file in LFS and states its SHA-256; below, as a git object with a SHA-1."""
Files = dict[str, bytes]
SLAKE = ("train.json", "validation.json", "test.json", "mask.txt", "imgs.zip")
Slake = Callable[[str], Files]
Medqa = Callable[..., Files]


def members_of(folder: Path, below: str = "") -> Files:
    return {below + name: (folder / name).read_bytes() for name in everything(folder)}


def everything(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("top", ["imgs/", "", "Slake1.0/imgs/"])
def test_slake_is_fetched_unpacked_and_read(server: Any, tmp_path: Path, top: str, slake_files: Slake) -> None:
    server.repositories["BoKelvin/SLAKE"] = slake_files(top)
    lines = fetch("slake_vqa", tmp_path / "data", quiet=True)
    folder = tmp_path / "data" / "slake"
    original = FIXTURES / "slake" / "Slake1.0"
    expected = [*members_of(original / "imgs", "imgs/"), "train.json", "validation.json", "test.json", "mask.txt"]
    assert everything(folder) == sorted([*expected, RECORD])
    assert members_of(folder / "imgs") == members_of(original / "imgs")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["slake"]
    assert str(folder) in lines[0]
    assert COMMIT in lines[0]
    assert "licence: CC BY 4.0" in lines
    for name in ("slake_vqa", "slake_rec", "slake_reg"):
        fetched = load_dataset(name, tmp_path / "data", "train")
        known = load_dataset(name, FIXTURES / "slake", "train")
        assert [(s.sample_id, s.instruction, s.answer) for s in fetched] == [
            (s.sample_id, s.instruction, s.answer) for s in known
        ]


@pytest.mark.parametrize("below", ["data_clean/", "data_clean/data_clean/", ""])
def test_of_medqa_only_the_english_questions_are_unpacked(
    server: Any, tmp_path: Path, below: str, medqa_files: Medqa
) -> None:
    server.repositories["bigbio/med_qa"] = medqa_files(below)
    fetch("medqa", tmp_path, quiet=True)
    questions = [f"data_clean/questions/US/{split}.jsonl" for split in ("dev", "test", "train")]
    assert everything(tmp_path / "medqa") == [RECORD, *questions]
    for split in ("train", "test"):
        known = load_dataset("medqa", FIXTURES / "medqa", split)
        assert [s.answer for s in load_dataset("medqa", tmp_path, split)] == [s.answer for s in known]


@pytest.mark.parametrize(
    ("name", "repository", "says"),
    [
        ("path_vqa", "flaviagiammarino/path-vqa", "19654, 6259 and 6719.*github.com/UCSD-AI4H/PathVQA"),
        ("vqa_rad", "flaviagiammarino/vqa-rad", "1,793 and 451"),
    ],
)
def test_parquet_forms_are_fetched_and_read(server: Any, tmp_path: Path, name: str, repository: str, says: str) -> None:
    shards = members_of(FIXTURES / name / "hub" / "data", "data/")
    others = {"README.md": b"card", "scripts/processing.py": b"", "data/old/train-0.parquet": b"deeper"}
    server.repositories[repository] = shards | others
    lines = fetch(name, tmp_path, quiet=True)
    assert everything(tmp_path / name) == sorted([RECORD, *shards])
    assert re.search(says, "\n".join(lines))
    for split in ("train", "test"):
        known = load_dataset(name, FIXTURES / name / "hub", split)
        assert [s.answer for s in load_dataset(name, tmp_path, split)] == [s.answer for s in known]


def test_the_record_names_source_revision_licence_and_every_file(
    server: Any, tmp_path: Path, slake_files: Slake
) -> None:
    server.repositories["BoKelvin/SLAKE"] = slake_files("imgs/")
    fetch("slake_reg", tmp_path, quiet=True)
    folder = tmp_path / "slake"
    record = json.loads((folder / RECORD).read_text())
    assert record["source"] == "https://huggingface.co/datasets/BoKelvin/SLAKE"
    assert record["revision"] == COMMIT
    assert record["licence"] == "CC BY 4.0"
    assert record["files"] == {name: sha256(folder / name) for name in everything(folder) if name != RECORD}


def test_the_pinned_commit_is_the_one_that_is_asked_for(server: Any, tmp_path: Path, medqa_files: Medqa) -> None:
    server.repositories["bigbio/med_qa"] = medqa_files()
    fetch("medqa", tmp_path, quiet=True)
    pinned = "ddef95d268cdad413693d634279a9a679d468469"
    assert server.listed[0] == f"/api/datasets/bigbio/med_qa/revision/{pinned}"


def test_what_is_there_is_verified_and_not_fetched_again(server: Any, tmp_path: Path, slake_files: Slake) -> None:
    server.repositories["BoKelvin/SLAKE"] = slake_files("imgs/")
    fetch("slake_vqa", tmp_path, quiet=True)
    server.listed.clear()
    server.fetched.clear()
    (tmp_path / "slake" / "train.txt").write_text("xmlab1")
    lines = fetch("slake_rec", tmp_path, quiet=True)
    assert "there already, verified" in lines[0]
    assert (server.listed, server.fetched) == ([], [])
    (tmp_path / "slake" / "test.json").write_bytes(b"[]")
    with pytest.raises(UserError, match=r"test\.json is not as it was written"):
        fetch("slake_rec", tmp_path, quiet=True)


def test_a_folder_of_the_users_own_is_left_alone(server: Any, tmp_path: Path) -> None:
    (tmp_path / "slake").mkdir()
    (tmp_path / "slake" / "test.json").write_text("mine")
    with pytest.raises(UserError, match="was not made by this command"):
        fetch("slake_vqa", tmp_path, quiet=True)
    assert everything(tmp_path) == ["slake/test.json"]


def test_an_empty_folder_is_no_obstacle(server: Any, tmp_path: Path, medqa_files: Medqa) -> None:
    (tmp_path / "medqa").mkdir()
    server.repositories["bigbio/med_qa"] = medqa_files()
    fetch("medqa", tmp_path, quiet=True)
    assert (tmp_path / "medqa" / RECORD).is_file()


@pytest.mark.parametrize("name", ["imgs.zip", "mask.txt"])
def test_a_file_that_is_not_the_announced_one_is_named_and_removed(
    server: Any, tmp_path: Path, name: str, slake_files: Slake
) -> None:
    """A large file is told by its SHA-256, a small one by git's SHA-1."""
    files = server.repositories["BoKelvin/SLAKE"] = slake_files("imgs/")
    assert (len(files[name]) >= LARGE) == (name == "imgs.zip")
    server.announced[name] = files[name][::-1]
    with pytest.raises(UserError, match=rf"{name} of BoKelvin/SLAKE is not the file that the hub announces"):
        fetch("slake_vqa", tmp_path, quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == ["slake.download"]
    assert not (tmp_path / "slake.download" / name).exists()
    server.announced.clear()
    server.fetched.clear()
    fetch("slake_vqa", tmp_path, quiet=True)
    assert server.fetched == [(name, 0)]


def test_an_interrupted_fetch_is_kept_and_goes_on(server: Any, tmp_path: Path, medqa_files: Medqa) -> None:
    files = server.repositories["bigbio/med_qa"] = medqa_files()
    server.stops = half = len(files["data_clean.zip"]) // 2
    with pytest.raises(UserError, match=r"stopped after \d+ of \d+ bytes; run this again to go on"):
        fetch("medqa", tmp_path, quiet=True)
    assert everything(tmp_path) == ["medqa.download/data_clean.zip.partial"]
    server.stops = None
    server.fetched.clear()
    fetch("medqa", tmp_path, quiet=True)
    assert server.fetched == [("data_clean.zip", half)]
    assert everything(tmp_path / "medqa")[0] == RECORD


def test_a_leftover_of_another_commit_is_noticed_and_fetched_anew(
    server: Any, tmp_path: Path, slake_files: Slake
) -> None:
    server.repositories["BoKelvin/SLAKE"] = slake_files("imgs/")
    leftover = tmp_path / "slake.download"
    leftover.mkdir()
    (leftover / "mask.txt").write_text("71:Liver")
    (leftover / "renamed.json").write_text("[]")
    with pytest.raises(UserError, match=r"mask\.txt of BoKelvin/SLAKE is not the file"):
        fetch("slake_vqa", tmp_path, quiet=True)
    fetch("slake_vqa", tmp_path, quiet=True)
    assert (tmp_path / "slake" / "mask.txt").read_bytes() == b"70:Liver"
    assert not (tmp_path / "slake" / "renamed.json").exists()


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_a_stop_while_unpacking_keeps_the_archive_and_leaves_nothing_half_unpacked(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: BaseException, slake_files: Slake
) -> None:
    server.repositories["BoKelvin/SLAKE"] = files = slake_files("imgs/")
    write, written = archives._write, []

    def stopping(*arguments: Any) -> str:
        written.append(arguments[2])
        if len(written) == 3:
            raise stop
        return write(*arguments)

    monkeypatch.setattr(archives, "_write", stopping)
    with pytest.raises(type(stop)) as caught:
        fetch("slake_vqa", tmp_path, quiet=True)
    assert caught.value.__notes__ == [KEPT]
    assert members_of(tmp_path / "slake.download") == {name: files[name] for name in SLAKE}
    server.fetched.clear()
    fetch("slake_vqa", tmp_path, quiet=True)
    assert server.fetched == []
    assert [path.name for path in tmp_path.iterdir()] == ["slake"]


@pytest.mark.parametrize("status", [401, 404, 500])
def test_a_hub_that_refuses_is_one_sentence(server: Any, tmp_path: Path, status: int) -> None:
    server.status = status
    with pytest.raises(UserError, match="bigbio/med_qa cannot be fetched from the dataset hub") as caught:
        fetch("medqa", tmp_path / "data", quiet=True)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("answer", [b"<html>", b"{}"])
def test_a_server_that_is_no_hub_is_one_sentence(server: Any, tmp_path: Path, answer: bytes) -> None:
    server.answers = answer
    with pytest.raises(UserError, match="cannot be fetched from the dataset hub"):
        fetch("medqa", tmp_path / "data", quiet=True)


def test_a_repository_without_a_known_file_is_refused(server: Any, tmp_path: Path, slake_files: Slake) -> None:
    server.repositories["BoKelvin/SLAKE"] = slake_files("imgs/")
    del server.repositories["BoKelvin/SLAKE"]["validation.json"]
    with pytest.raises(UserError, match=r"SLAKE does not hold validation\.json"):
        fetch("slake_vqa", tmp_path, quiet=True)
    assert server.fetched == []
