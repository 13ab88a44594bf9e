import csv
import hashlib
import json
import math
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unimed_model.data import discover, open_source
from unimed_model.data.corpus import writing
from unimed_model.data.sample import TASKS
from unimed_model.errors import UserError


def digests(root):
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def table(root):
    """Path of a picture -> its row in the table; archives hold many pictures and are left out."""
    with (root / "pictures.csv").open() as stream:
        return {root / row["file"]: row for row in csv.DictReader(stream) if not row["file"].endswith(".npz")}


def test_the_real_readers_read_every_dataset_in_both_splits(corpus):
    sources = {source.name: source for source in discover(corpus)}
    assert Counter(source.task for source in sources.values()) == dict.fromkeys(TASKS, 2)
    for source in sources.values():
        for split in ("train", "test"):
            samples = open_source(source, split)
            assert samples
            assert set(samples.skipped) <= {"not a caption"}, source.name
            image = samples[0].image
            assert (image is None) == (source.task == "QA")
            assert image is None or image.size[0] == image.size[1]
            assert all(0 <= value <= 100 for sample in samples for box in sample.boxes for value in box)


def test_no_published_class_name_reaches_the_samples(corpus):
    from unimed_model.data.readers import medmnist

    published = {name for labels in medmnist.PUBLISHED.values() for name in labels.classes}
    for source in discover(corpus):
        for sample in open_source(source, "train"):
            assert not any(name in f"{sample.instruction} {sample.answer}" for name in published)


def test_classes_are_balanced(corpus):
    for name in ("mni_t1", "mni_gray"):
        with np.load(corpus / name / f"{name}_64.npz") as archive:
            for split in ("train", "test"):
                assert len(set(np.bincount(archive[f"{split}_labels"].ravel(), minlength=8))) == 1


def test_equal_seeds_give_equal_bytes_and_others_do_not(corpus, tmp_path, monkeypatch):
    counts = {"train": 8, "test": 8}
    monkeypatch.setattr(writing, "FOLDERS", tuple((name, write, counts) for name, write, _ in writing.FOLDERS))
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert writing.write_sample_corpus(tmp_path / folder, seed)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert digests(tmp_path / "a") != digests(tmp_path / "c")


def test_table_of_pictures_names_every_picture_once(corpus):
    with (corpus / "pictures.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    keys = [(row["file"], row["split"], row["index"]) for row in rows]
    assert len(set(keys)) == len(keys)
    assert {row["file"] for row in rows} == {
        path.relative_to(corpus).as_posix()
        for path in corpus.rglob("*")
        if path.suffix in (".jpg", ".npz", ".png") and path.parent.name != "masks"
    }
    manifest = json.loads((corpus / "sample_corpus.json").read_text())
    assert "nilearn" in manifest["made_from"]
    assert manifest["terms"]["images"]


def test_planes_of_pictures(corpus):
    planes = writing.picture_planes(corpus)
    sources = {source.name: source for source in discover(corpus)}
    for name in ("mni_rec", "mni_mask_rec"):
        for split in ("train", "test"):
            for sample in open_source(sources[name], split):
                assert planes[sample.image_id] == table(corpus)[sample.image_source.path]["plane"]
    assert writing.picture_planes(corpus / "mni_slake") == {}


def test_readers_split_pictures_as_the_table_says(corpus):
    pictures = table(corpus)
    read = set()
    for source in discover(corpus):
        for split in ("train", "test"):
            for sample in open_source(source, split):
                if source.task not in ("QA", "CLS"):
                    assert pictures[sample.image_source.path]["split"] == split
                    read.add(sample.image_source.path)
    assert read == set(pictures)


def test_no_test_picture_of_any_dataset_has_a_neighbour_in_training(corpus):
    with (corpus / "pictures.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    for plane in ("axial", "coronal", "sagittal"):
        places = {
            split: {int(row["position_mm"]) for row in rows if (row["plane"], row["split"]) == (plane, split)}
            for split in ("train", "test")
        }
        assert len(places["train"]) > 8
        assert len(places["test"]) > 4
        assert min(abs(a - b) for a in places["train"] for b in places["test"]) >= 3


def test_regions_read_from_masks_are_those_that_were_drawn(corpus):
    """The reader's names and boxes against the masks and their labels, read as plain files."""
    sources = {source.name: source for source in discover(corpus)}
    labels = json.loads((corpus / "mni_mask" / "SAMed2D_v1_class_mapping_id.json").read_text())["MNI152"]
    masks = json.loads((corpus / "mni_mask" / "SAMed2D_v1.json").read_text())
    words = {number: label.split("_") for label, number in labels.items()}
    for name in ("mni_mask_rec", "mni_mask_reg"):
        found = []
        for split in ("train", "test"):
            for sample in open_source(sources[name], split):
                text = sample.meta["subject"] if sample.task == "REC" else sample.answer
                found.append((sample.image_id, tuple(sorted(text.split())), sample.boxes[0]))
        expected = []
        for image, its_masks in masks.items():
            for mask in its_masks:
                with Image.open(corpus / "mni_mask" / mask) as opened:
                    x1, y1, x2, y2 = opened.getbbox()
                box = tuple(math.floor(100 * value / 96) for value in (x1, y1, x2, y2))
                expected.append((Path(image).stem, tuple(sorted(words[mask[:-4].rsplit("--", 1)[1][:4]])), box))
        assert sorted(found) == sorted(expected)


def test_what_stands_there_is_kept_or_refused(corpus, tmp_path):
    before = digests(corpus)
    assert writing.write_sample_corpus(corpus) is False
    assert digests(corpus) == before
    with pytest.raises(UserError, match="not empty"):
        writing.write_sample_corpus(corpus, seed=5)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        writing.write_sample_corpus(tmp_path)


def test_a_corpus_that_lost_files_or_its_manifest_says_so(corpus, tmp_path):
    copy = shutil.copytree(corpus, tmp_path / "data")
    (copy / "mni_slake" / "imgs" / "xmlab3" / "source.jpg").unlink()
    with pytest.raises(UserError, match=r"without 1 of its files, the first mni_slake/imgs/xmlab3/source\.jpg"):
        writing.write_sample_corpus(copy)
    (copy / "sample_corpus.json").write_text("{")
    with pytest.raises(UserError, match=r"sample_corpus\.json is not complete, valid JSON"):
        writing.write_sample_corpus(copy)


def test_nothing_half_written_stays_behind(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "x")

    monkeypatch.setattr(writing, "FOLDERS", (("mni_slake", full, {}),))
    with pytest.raises(OSError, match="No space"):
        writing.write_sample_corpus(tmp_path / "data")
    assert list(tmp_path.iterdir()) == []
