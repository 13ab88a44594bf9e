"""Single files whose digests are known."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from unimed_model import UserError
from unimed_model.data import load_dataset
from unimed_model.data.fetching import fetch, obtaining
from unimed_model.data.fetching.recipes import RECIPES, Recipe, WebFile, WebFiles
from unimed_model.weights.provenance import RECORD

ROOT = Path(__file__).parents[4]
FIXTURES = ROOT / "tests" / "fixtures"
Files = dict[str, bytes]


@pytest.fixture
def pubmedqa(server: Any, monkeypatch: pytest.MonkeyPatch) -> Files:
    """PubMedQA's files as the fixture has them, with their own digests, on the server."""
    server.files = members_of(FIXTURES / "pubmedqa" / "data")
    published = RECIPES["pubmedqa"]
    assert isinstance(published, WebFiles)
    files = [
        dataclasses.replace(file, url=f"{server.address}/{file.name}", digest=digest_of(server.files[file.name]))
        for file in published.files
    ]
    replace_recipe(monkeypatch, "pubmedqa", dataclasses.replace(published, files=tuple(files)))
    return server.files


def digest_of(content: bytes, algorithm: str = "sha256") -> str:
    return hashlib.new(algorithm, content).hexdigest()


def replace_recipe(monkeypatch: pytest.MonkeyPatch, name: str, recipe: Recipe) -> None:
    monkeypatch.setattr(obtaining, "RECIPES", {**obtaining.RECIPES, name: recipe})


def members_of(folder: Path, below: str = "") -> Files:
    return {below + name: (folder / name).read_bytes() for name in everything(folder)}


def everything(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_pubmedqa_is_fetched_and_read(pubmedqa: Files, tmp_path: Path) -> None:
    lines = fetch("pubmedqa", tmp_path, quiet=True)
    assert members_of(tmp_path / "pubmedqa").keys() == {*pubmedqa, RECORD}
    assert [digest_of(pubmedqa[name]) in line for name, line in zip(sorted(pubmedqa), lines, strict=False)] == [
        True
    ] * 2
    assert "licence: MIT" in lines
    for split in ("train", "test"):
        known = load_dataset("pubmedqa", FIXTURES / "pubmedqa", split)
        assert [s.answer for s in load_dataset("pubmedqa", tmp_path, split)] == [s.answer for s in known]


def test_verified_files_are_not_fetched_again(server: Any, pubmedqa: Files, tmp_path: Path) -> None:
    folder = tmp_path / "pubmedqa"
    folder.mkdir()
    (folder / "ori_pqal.json").write_bytes(pubmedqa["ori_pqal.json"])
    lines = fetch("pubmedqa", tmp_path, quiet=True)
    assert server.fetched == [("test_ground_truth.json", 0)]
    assert lines[0] == f"{folder / 'ori_pqal.json'}: there already, verified"
    server.fetched.clear()
    lines = fetch("pubmedqa", tmp_path, quiet=True)
    assert server.fetched == []
    assert [line.endswith("there already, verified") for line in lines[:2]] == [True, True]


def test_a_users_own_file_is_never_replaced(server: Any, pubmedqa: Files, tmp_path: Path) -> None:
    folder = tmp_path / "pubmedqa"
    folder.mkdir()
    (folder / "ori_pqal.json").write_text("{}")
    with pytest.raises(UserError, match=r"ori_pqal\.json is there but is not the published file \(SHA-256 "):
        fetch("pubmedqa", tmp_path, quiet=True)
    assert members_of(folder) == {"ori_pqal.json": b"{}"}
    assert server.fetched == []


def test_a_file_with_another_digest_is_named_and_removed(server: Any, pubmedqa: Files, tmp_path: Path) -> None:
    pubmedqa["test_ground_truth.json"] = b'{"90000009": "yes"}'
    with pytest.raises(UserError, match=r"test_ground_truth\.json is not the known file \(its SHA-256 is"):
        fetch("pubmedqa", tmp_path, quiet=True)
    assert everything(tmp_path) == ["pubmedqa/ori_pqal.json"]


def test_an_interrupted_file_goes_on(server: Any, pubmedqa: Files, tmp_path: Path) -> None:
    server.stops = 100
    with pytest.raises(UserError, match="stopped after 100 of"):
        fetch("pubmedqa", tmp_path, quiet=True)
    server.stops = None
    server.fetched.clear()
    fetch("pubmedqa", tmp_path, quiet=True)
    assert server.fetched == [("ori_pqal.json", 100), ("test_ground_truth.json", 0)]
    assert (tmp_path / "pubmedqa" / "ori_pqal.json").read_bytes() == pubmedqa["ori_pqal.json"]


def test_a_server_that_refuses_leaves_nothing(server: Any, pubmedqa: Files, tmp_path: Path) -> None:
    server.status = 503
    with pytest.raises(UserError, match=r"ori_pqal\.json cannot be fetched \(.*503"):
        fetch("pubmedqa", tmp_path / "data", quiet=True)
    assert list(tmp_path.iterdir()) == []


def test_two_archives_of_medmnist_share_a_folder_and_its_record(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for flag in ("dermamnist", "organsmnist"):
        published = RECIPES[flag]
        assert isinstance(published, WebFiles)
        name = published.files[0].name
        server.files[name] = (FIXTURES / "medmnist" / f"{flag}.npz").read_bytes()
        file = WebFile(name, f"{server.address}/{name}?download=1", "md5", digest_of(server.files[name], "md5"))
        replace_recipe(monkeypatch, flag, dataclasses.replace(published, files=(file,)))
        fetch(flag, tmp_path, quiet=True)
        known = load_dataset(flag, FIXTURES / "medmnist", "test", size=28)
        assert [s.answer for s in load_dataset(flag, tmp_path, "test")] == [s.answer for s in known]
    record = json.loads((tmp_path / "medmnist" / RECORD).read_text())
    assert record["files"] == {name: digest_of(content) for name, content in sorted(server.files.items())}
    assert record["licence"] == "dermamnist: CC BY-NC 4.0; organsmnist: CC BY 4.0"


def test_a_record_of_another_source_is_not_written_over(pubmedqa: Files, tmp_path: Path) -> None:
    (tmp_path / "pubmedqa").mkdir()
    (tmp_path / "pubmedqa" / RECORD).write_text('{"source": "elsewhere", "files": {}}')
    with pytest.raises(UserError, match=r"does not speak of https://github\.com/pubmedqa/pubmedqa"):
        fetch("pubmedqa", tmp_path, quiet=True)


def test_the_real_files_have_the_digests_of_the_recipe() -> None:
    folder = ROOT.parent / "shared" / "data" / "pubmedqa"
    if not folder.is_dir():
        pytest.skip("the real PubMedQA files are not at hand")
    lines = fetch("pubmedqa", folder.parent, quiet=True)
    assert [line.endswith("there already, verified") for line in lines[:2]] == [True, True]
