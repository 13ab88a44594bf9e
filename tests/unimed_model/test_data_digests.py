import hashlib
import shutil

from unimed_model import data_digests as module
from unimed_model.data import discover, open_source
from unimed_model.data.files import noting
from unimed_model.data.preparation.preparing import Settings, prepare
from unimed_model.data_digests import data_digests


def noted(root):
    files = {}
    for source in discover(root):
        with noting() as seen:
            open_source(source, "train")
        files[source.name] = seen
    return files


def test_a_raw_root_is_told_by_the_content_of_its_annotations(corpus, tmp_path):
    shutil.copytree(corpus, tmp_path / "copy")
    before = data_digests(corpus, noted(corpus))
    assert data_digests(tmp_path / "copy", noted(tmp_path / "copy")) == before
    assert all(found["files"] > 0 and found["bytes"] > 0 and not found["by_size"] for found in before.values())
    lines = tmp_path / "copy" / "mni_qa" / "questions" / "US" / "train.jsonl"
    lines.write_text(lines.read_text() + "\n")
    after = data_digests(tmp_path / "copy", noted(tmp_path / "copy"))
    assert {name for name in before if before[name] != after[name]} == {"mni_qa"}


def test_the_digest_is_over_names_and_contents_in_order(tmp_path):
    for name, content in (("b.json", b"{}"), ("a.json", b"[]")):
        (tmp_path / name).write_bytes(content)
    contents = {"a.json": b"[]", "b.json": b"{}"}
    whole = "".join(f"{name}\0{hashlib.sha256(content).hexdigest()}\n" for name, content in contents.items())
    files = {tmp_path / "b.json", tmp_path / "a.json", tmp_path}  # a folder that was listed counts for nothing
    assert data_digests(tmp_path, {"mine": files})["mine"] == {
        "sha256": hashlib.sha256(whole.encode()).hexdigest(),
        "files": 2,
        "bytes": 4,
        "by_size": [],
    }
    (tmp_path / "a.json").rename(tmp_path / "c.json")
    renamed = data_digests(tmp_path, {"mine": {tmp_path / "b.json", tmp_path / "c.json"}})["mine"]["sha256"]
    assert renamed != hashlib.sha256(whole.encode()).hexdigest()


def test_a_file_too_large_to_read_counts_by_name_and_size(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LARGEST", 3)
    path = tmp_path / "large.npz"
    path.write_bytes(b"four")
    first = data_digests(tmp_path, {"mine": {path}})["mine"]
    assert first["by_size"] == ["large.npz"]
    path.write_bytes(b"five")
    assert data_digests(tmp_path, {"mine": {path}})["mine"] == first
    path.write_bytes(b"seven")
    assert data_digests(tmp_path, {"mine": {path}})["mine"] != first


def test_files_outside_the_root_count_by_name_alone(tmp_path):
    found = []
    for place in ("one", "two/deeper"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "shared.csv").write_text("a,b\n")
        found.append(data_digests(tmp_path / "root.yaml", {"mine": {tmp_path / place / "shared.csv"}}))
        found.append(data_digests(tmp_path / "elsewhere" / "root.yaml", {"mine": {tmp_path / place / "shared.csv"}}))
    inside_one, outside_one, inside_two, outside_two = found
    assert outside_one == outside_two
    assert inside_one != inside_two


def test_a_prepared_folder_is_told_by_its_manifests(corpus, tmp_path):
    sources = [source for source in discover(corpus) if source.name in ("mni_qa", "mni_rec")]
    list(prepare(corpus, tmp_path / "prepared", sources, Settings(), quiet=True))
    found = data_digests(tmp_path / "prepared", noted(tmp_path / "prepared"))
    assert found == {
        name: {
            "prepared_sha256": sha256(tmp_path / "prepared" / "datasets" / f"{name}.json"),
            "splits_sha256": sha256(tmp_path / "prepared" / "splits" / f"{name}.json"),
        }
        for name in ("mni_qa", "mni_rec")
    }


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()
