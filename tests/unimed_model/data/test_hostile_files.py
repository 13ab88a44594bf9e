"""What an adversary found: odd files end as one sentence, whatever reader meets them."""

import io
import json
import os
import shutil
import tokenize
import zipfile
from pathlib import Path

import numpy as np
import pytest

from unimed_model.data import discover, load_dataset, open_source
from unimed_model.data.files import read_json, read_json_lines, relative_name
from unimed_model.data.pickles import read_pickle
from unimed_model.data.readers.csv_tables import read_csv
from unimed_model.errors import AbsentError, UserError

FIXTURES = Path(__file__).parents[2] / "fixtures"
as_somebody = pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")


@pytest.mark.parametrize("content", ['["\\ud800"]', '{"a": {"\\uDFFF": 1}}'])
def test_half_a_character_is_refused_where_it_is_read(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(UserError, match=r"a\.json is not complete, valid JSON \(it escapes half of a character\)"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.jsonl").write_text('{"a": "fine"}\n{"b": ' + content + "}\n")
    with pytest.raises(UserError, match=r"a\.jsonl, line 2"):
        list(read_json_lines(tmp_path / "a.jsonl"))


def test_whole_characters_may_be_escaped(tmp_path):
    (tmp_path / "a.json").write_text('["\\ud83e\\udde0 \\u00e9"]')
    assert read_json(tmp_path / "a.json") == ["🧠 é"]


@pytest.mark.parametrize("name", ["x" * 300 + ".jpg", "folder/" + "é" * 200 + "/a.jpg"])
def test_a_name_that_no_file_can_have(name):
    with pytest.raises(UserError, match=r"row 3: the file name .* is longer than any file can have") as caught:
        relative_name(name, "row 3")
    assert len(str(caught.value)) < 200


@as_somebody
def test_a_file_without_permission_is_named(tmp_path):
    root = shutil.copytree(FIXTURES / "medqa" / "data_clean", tmp_path / "medqa")
    path = next(root.rglob("train.jsonl"))
    path.chmod(0)
    with pytest.raises(UserError, match=r"train\.jsonl cannot be read"):
        load_dataset("medqa", tmp_path)


def test_errors_of_the_file_system_are_sentences(tmp_path, monkeypatch):
    shutil.copytree(FIXTURES / "medqa", tmp_path / "medqa")
    (source,) = discover(tmp_path)

    def refused(*_, **__):
        raise PermissionError(13, "Permission denied", "somewhere/train.jsonl")

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(UserError, match="cannot be read"):
        open_source(source)
    monkeypatch.setattr(Path, "glob", refused)
    with pytest.raises(UserError, match=r"somewhere/train\.jsonl cannot be read"):
        discover(tmp_path)


def test_pickles_of_python_2_with_accents_are_read(tmp_path):
    (tmp_path / "old.pkl").write_bytes(b"(lp1\n(dp2\nS'sent'\nS'caf\\xc3\\xa9?'\nsa.")
    assert read_pickle(tmp_path / "old.pkl") == [{"sent": "café?"}]


def test_quotes_inside_a_cell_and_long_cells_are_pandas_to_judge(tmp_path):
    long = "word " * 50_000
    (tmp_path / "a.csv").write_text(f'name,context\na.jpg,"a"b\nb.jpg,{long}\n')
    table = read_csv(tmp_path / "a.csv", {"name": "str", "context": "str"})
    assert list(table["context"]) == ["ab", long]
    (tmp_path / "a.csv").write_text('name,context\na.jpg,"never closed')
    with pytest.raises(UserError, match=r"a\.csv is not a complete, valid CSV file"):
        read_csv(tmp_path / "a.csv", {"name": "str", "context": "str"})


def test_numbers_beyond_their_type_are_no_table(tmp_path):
    (tmp_path / "a.csv").write_text(f"study_id\n{10**20}\n")
    with pytest.raises(UserError, match=r"a\.csv is not a complete, valid CSV file"):
        read_csv(tmp_path / "a.csv", {"study_id": "int32"})


def archive(path, header=None, member="train_labels.npy"):
    """A MedMNIST archive whose labels have another header, or another name."""
    arrays = {
        f"{split}_{kind}": np.zeros((2, 28, 28) if kind == "images" else (2, 1), np.uint8)
        for split in ("train", "val", "test")
        for kind in ("images", "labels")
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            content = buffer.getvalue()
            if name == "train_labels" and header is not None:
                content = (
                    header if member == name else b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
                )
            archive.writestr(member if name == "train_labels" else f"{name}.npy", content)


@pytest.mark.parametrize(
    ("header", "member"),
    [
        (b"{'descr': '|u1', 'fortran_order': False, 'shape': (10000000000000, 1), }\n", "train_labels.npy"),
        (b"{'descr': '|u1', 'fortran_order': False, 'shape': (2, \n", "train_labels.npy"),
        (b"no array", "train_labels"),
    ],
)
def test_arrays_that_lie_about_themselves(tmp_path, header, member):
    assert issubclass(tokenize.TokenError, Exception)
    archive(tmp_path / "organsmnist.npz", header, member)
    with pytest.raises(UserError, match=r"organsmnist\.npz"):
        load_dataset("organsmnist", tmp_path)


def test_images_without_a_pixel_are_refused(tmp_path):
    arrays = {f"{split}_images": np.zeros((1, 0, 28), np.uint8) for split in ("train", "val", "test")}
    arrays |= {f"{split}_labels": np.zeros((1, 1), np.uint8) for split in ("train", "val", "test")}
    np.savez(tmp_path / "organsmnist.npz", allow_pickle=False, **arrays)
    with pytest.raises(UserError, match="train_images must be 1 images"):
        load_dataset("organsmnist", tmp_path)


def test_declarations_nested_too_deeply(tmp_path):
    (tmp_path / "datasets.yaml").write_text("[" * 2000)
    with pytest.raises(UserError, match=r"datasets\.yaml is not valid YAML"):
        discover(tmp_path)


def test_an_annotation_file_with_one_split_alone(tmp_path):
    shutil.copytree(FIXTURES / "mimic_cxr" / "r2gen", tmp_path / "mimic_cxr")
    path = tmp_path / "mimic_cxr" / "annotation.json"
    path.write_text(json.dumps({"train": json.loads(path.read_text())["train"]}))
    assert load_dataset("mimic_cxr", tmp_path, missing_images="skip")
    with pytest.raises(AbsentError, match=r"annotation\.json holds no list 'test'"):
        load_dataset("mimic_cxr", tmp_path, split="test")
    path.write_text("[]")
    with pytest.raises(UserError, match="must hold an object of lists of records"):
        load_dataset("mimic_cxr", tmp_path)


def test_dates_beyond_all_numbers_are_left_out(tmp_path):
    import gzip

    shutil.copytree(FIXTURES / "mimic_cxr" / "official", tmp_path / "mimic_cxr")
    path = tmp_path / "mimic_cxr" / "mimic-cxr-2.0.0-metadata.csv.gz"
    header, *rows = gzip.decompress(path.read_bytes()).decode().splitlines()
    place = header.split(",").index("StudyDate")
    broken = [",".join("inf" if i == place else cell for i, cell in enumerate(row.split(","))) for row in rows]
    path.write_bytes(gzip.compress("\n".join([header, *broken]).encode()))
    samples = load_dataset("mimic_cxr", tmp_path, missing_images="skip")
    assert samples
    assert all("StudyDate" not in sample.meta for sample in samples)


def test_a_hub_folder_below_the_ground_truth(tmp_path):
    shutil.copytree(FIXTURES / "pubmedqa" / "hub" / "pqa_labeled", tmp_path / "pubmedqa" / "PubMedQA" / "pqa_labeled")
    shutil.copy(FIXTURES / "pubmedqa" / "hub" / "test_ground_truth.json", tmp_path / "pubmedqa")
    assert load_dataset("pubmedqa", tmp_path, split="test")


def test_lists_may_begin_with_a_mark(slake_root):
    (slake_root / "train.txt").write_bytes(b"\xef\xbb\xbfxmlab1 xmlab2\n")
    assert load_dataset("slake_vqa", slake_root, images=False)
