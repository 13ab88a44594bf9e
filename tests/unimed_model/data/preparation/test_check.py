"""`unimed-data check`, `show` and `prepare` as a user runs them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

BIN = Path(sys.executable).parent
REAL = Path(__file__).parents[4].parent / "shared" / "data"


def unimed_data(*arguments):
    return subprocess.run(
        [BIN / "unimed-data", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=120
    )


def checked(*arguments):
    done = unimed_data("check", *arguments, "--json", "--quiet")
    assert done.returncode in (0, 1), done.stderr
    return {(row["dataset"], row["split"]): row for row in json.loads(done.stdout)}, done.returncode


def test_a_whole_root(root):
    rows, status = checked(root)
    assert status == 0
    row = rows["slake_vqa", "train"]
    assert (row["task"], row["samples"], row["images"], row["paper"]) == ("VQA", 3, 2, 6018)
    assert row["problems"] == {"empty answer": {"count": 1, "first": f"{root}/slake/train.json, record 3"}}
    assert rows["dermamnist", "val"]["samples"] == 2
    assert {"dataset", "task", "split", "samples", "images", "problems"} <= row.keys()


def test_the_table_shows_counts_beside_the_papers_and_terms(root):
    done = unimed_data("check", root)
    assert done.returncode == 0
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["slake_vqa", "VQA", "train", "3", "6018", "2", "1"] in lines
    assert "dermamnist: licence CC BY-NC 4.0; access free; https://medmnist.com" in done.stdout
    assert "HAM10000" in done.stdout
    assert "not in this root: medqa, pubmedqa" in done.stdout
    assert done.stderr == ""


def test_missing_and_damaged_images_are_counted_with_the_first_of_them(root):
    (root / "slake" / "imgs" / "xmlab1" / "source.jpg").unlink()
    picture = root / "slake" / "imgs" / "xmlab4" / "source.jpg"
    picture.write_bytes(picture.read_bytes()[:-300])
    rows, status = checked(root)
    assert status == 1
    train, test = rows["slake_vqa", "train"], rows["slake_vqa", "test"]
    assert train["problems"]["missing image"] == {"count": 2, "first": f"{root}/slake/imgs/xmlab1/source.jpg"}
    assert (train["samples"], train["images"]) == (3, 1)
    assert test["problems"]["unreadable image"]["count"] == 1
    assert "xmlab4/source.jpg cannot be" in test["problems"]["unreadable image"]["first"]
    assert rows["mpx_single", "train"]["usable"]
    rows, status = checked(root, "--skip-missing")
    assert status == 0
    assert rows["slake_vqa", "train"]["problems"]["missing image"]["count"] == 2
    assert checked(root, "--datasets", "mpx_single,dermamnist")[1] == 0


def test_annotations_alone_need_no_image(root):
    for path in root.rglob("source.jpg"):
        path.unlink()
    rows, status = checked(root, "--no-images", "--datasets", "slake_vqa,slake_rec")
    assert status == 0
    assert rows["slake_rec", "train"]["samples"] == 3


def test_boxes_outside_and_repeated_records(root):
    (root / "slake" / "imgs" / "xmlab1" / "detection.json").write_text(
        json.dumps([{"Liver": [150, 10, 100, 50]}, {"Spleen": [0, 0, 9, 9]}])
    )
    records = json.loads((root / "slake" / "test.json").read_text(encoding="utf-8"))
    (root / "slake" / "test.json").write_text(json.dumps([*records, {**records[1], "qid": 99}]))
    rows, status = checked(root)
    assert status == 1
    assert rows["slake_reg", "train"]["problems"]["box outside the image"]["count"] == 1
    assert "'Liver'" in rows["slake_reg", "train"]["problems"]["box outside the image"]["first"]
    assert rows["slake_vqa", "test"]["problems"]["duplicate"]["count"] == 1
    assert rows["slake_vqa", "test"]["usable"]


def test_a_damaged_annotation_file_spoils_its_own_dataset(root):
    (root / "mpx" / "MedPix_single_train.csv").write_text('name,context,type\n"a.jpg,broken off')
    rows, status = checked(root)
    assert status == 1
    assert "MedPix_single_train.csv" in rows["mpx_single", "train"]["problems"]["unreadable file"]["first"]
    assert rows["slake_vqa", "train"]["usable"]


def test_what_is_asked_for_and_not_there(root):
    rows, status = checked(root, "--datasets", "medqa,dermamnist")
    assert status == 1
    assert "medqa" in rows["medqa", None]["problems"]["absent"]["first"]
    done = unimed_data("check", root, "--datasets", "dermamist")
    assert done.returncode == 2
    assert "the nearest is 'dermamnist'" in done.stderr
    assert unimed_data("check", root / "none").returncode == 2


def test_a_prepared_folder_is_checked_like_a_root(root, tmp_path):
    assert unimed_data("prepare", root, tmp_path / "out", "--quiet").returncode == 0
    raw, indexed = checked(root)[0], checked(tmp_path / "out")[0]
    assert indexed.keys() == raw.keys()
    assert {k: (v["samples"], v["images"]) for k, v in indexed.items()} == {
        k: (v["samples"], v["images"]) for k, v in raw.items()
    }


def test_prepare_says_what_it_did_and_refuses_what_it_must(root, tmp_path):
    done = unimed_data("prepare", root, tmp_path / "out", "--quiet")
    assert "slake_vqa: train 3, test 2 (indexed)\n  train: 1 left out: empty answer" in done.stdout
    again = json.loads(unimed_data("prepare", root, tmp_path / "out", "--quiet", "--json").stdout)
    assert {entry["status"] for entry in again} == {"unchanged"}
    (root / "slake" / "imgs" / "xmlab2" / "source.jpg").unlink()
    refused = unimed_data("prepare", root, tmp_path / "out", "--quiet")
    assert refused.returncode == 2
    assert "Error: 3 of 6 datasets are not prepared. slake_vqa: 1 image file is missing" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_show_draws_a_sheet(root, tmp_path):
    out = tmp_path / "sheet.png"
    done = unimed_data("show", "slake_rec", "--data", root, "-n", 3, "--out", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{out}: 3 of 3 samples of slake_rec train\n"
    with Image.open(out) as picture:
        assert picture.width > 900
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20)}
    assert (213, 94, 0) in colours  # the box
    assert unimed_data("show", "slake_rec", "--data", root, "--out", tmp_path / "sheet.doc").returncode == 2
    assert unimed_data("show", "slake_rcc", "--data", root, "--out", out).returncode == 2


@pytest.mark.skipif(not REAL.is_dir(), reason="the published raw files are not beside the project")
def test_the_published_files():
    rows, status = checked(REAL, "--no-images")
    assert status == 0
    assert [rows["pubmedqa", split]["samples"] for split in ("train", "test")] == [500, 500]
    assert sum(rows["slake_vqa", split]["samples"] for split in ("train", "test")) == 1061
    assert checked(REAL)[1] == 1


def test_images_that_went_after_preparing_are_found(root, tmp_path):
    out = tmp_path / "out"
    assert unimed_data("prepare", root, out, "--quiet").returncode == 0
    (root / "slake" / "imgs" / "xmlab2" / "source.jpg").unlink()
    rows, status = checked(out, "--datasets", "slake_vqa")
    assert status == 1
    assert rows["slake_vqa", "train"]["problems"]["missing image"]["count"] == 1
    assert rows["slake_vqa", "train"]["images"] == 1
    assert checked(out, "--datasets", "slake_vqa", "--skip-missing")[1] == 0


def test_what_was_left_out_on_purpose_makes_nothing_unusable(root, tmp_path):
    (root / "slake" / "imgs" / "xmlab2" / "source.jpg").unlink()
    assert unimed_data("prepare", root, tmp_path / "out", "--skip-missing", "--quiet").returncode == 0
    rows, status = checked(tmp_path / "out")
    assert status == 0
    assert rows["slake_vqa", "train"]["problems"]["missing image"]["count"] == 1


def test_a_dataset_without_any_image_is_unusable_whatever_is_skipped(root):
    shutil.rmtree(root / "mpx" / "images")
    assert checked(root, "--datasets", "mpx_single", "--skip-missing")[1] == 1
    assert checked(root, "--datasets", "mpx_single", "--no-images")[1] == 0
    assert unimed_data("check", root, "--datasets", " , ").returncode == 2
