"""The root forms in which Slake comes, on its fixture."""

import json
import shutil
from pathlib import Path

import pytest

from unimed_model.data import load_dataset
from unimed_model.errors import AbsentError, UserError

FIXTURE = Path(__file__).parents[3] / "fixtures" / "slake"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FIXTURE, tmp_path / "slake"))


def _counts(root: Path) -> list[int]:
    names = ("slake_vqa", "slake_rec", "slake_reg")
    return [len(load_dataset(name, root, split=split)) for name in names for split in ("train", "test")]


EXPECTED = [3, 3, 2, 2, 4, 2]


def test_as_the_archive_unpacks(root: Path) -> None:
    assert _counts(root) == EXPECTED
    questions = load_dataset("slake_vqa", root)
    assert questions.skipped == {"empty answer": 1}
    assert load_dataset("slake_rec", root).skipped == {"several objects of one name": 2}
    closed = {sample.answer: sample.meta["answer_type"] for sample in questions}
    assert closed == {"Lower right": "OPEN", "Long": "CLOSED", "None": "OPEN"}
    assert [sample.answer for sample in load_dataset("slake_vqa", root, language="zh")] == ["右下", "没有"]


def test_a_box_touches_the_border(root: Path) -> None:
    boxes = {(s.image_id, s.answer): s.boxes[0] for s in load_dataset("slake_reg", root)}
    assert boxes["xmlab5", "Stripe"] == (50, 25, 100, 100)
    assert boxes["xmlab2", "Frame"] == (0, 0, 100, 100)


def test_every_form_of_the_root(root: Path) -> None:
    nested = root / "Slake1.0" / "Slake1.0"
    (root / "Slake1.0").rename(root / "inner")
    nested.parent.mkdir()
    (root / "inner").rename(nested)
    assert _counts(root) == EXPECTED  # unpacked into a folder of its own
    assert _counts(nested.parent) == EXPECTED
    assert _counts(nested) == EXPECTED
    (nested / "validate.json").rename(nested / "validation.json")
    (nested / "imgs").rename(nested / "again")
    (nested / "imgs").mkdir()
    (nested / "again").rename(nested / "imgs" / "imgs")
    assert _counts(nested) == EXPECTED  # the hub's, its archive unpacked into a folder of its name
    for folder in (nested / "imgs" / "imgs").iterdir():
        folder.rename(nested / folder.name)
    assert _counts(root) == EXPECTED


def test_questions_and_images_may_lie_in_different_folders(root: Path) -> None:
    for path in (root / "Slake1.0").glob("*.json"):
        path.rename(root / path.name)
    assert _counts(root) == EXPECTED


@pytest.mark.parametrize("place", [".", "Slake1.0"])
def test_lists_lie_in_the_root_or_beside_the_files(root: Path, place: str) -> None:
    (root / place / "train.txt").write_text("xmlab1 xmlab7 xmlab3")
    (root / place / "test.txt").write_text("xmlab2\nxmlab5\n")
    assert {sample.image_id for sample in load_dataset("slake_reg", root)} == {"xmlab1"}
    assert len(load_dataset("slake_reg", root, split="test")) == 4


def test_each_images_own_questions_lack_two_keys(root: Path) -> None:
    together = load_dataset("slake_vqa", root, language="all")
    for path in (root / "Slake1.0").glob("*.json"):
        path.unlink()
    alone = load_dataset("slake_vqa", root, language="all")
    assert sorted(sample.answer for sample in alone) == sorted(sample.answer for sample in together)
    assert all("content_type" not in sample.meta for sample in alone)
    assert len({sample.sample_id for sample in alone}) == len(alone)
    record = json.loads((root / "Slake1.0" / "imgs" / "xmlab1" / "question.json").read_text(encoding="utf-8"))[0]
    assert not {"qid", "content_type"} & set(record)


def test_an_archive_that_is_not_unpacked_is_said(root: Path) -> None:
    shutil.rmtree(root / "Slake1.0" / "imgs")
    with pytest.raises(UserError, match=r"image files are missing") as without:
        load_dataset("slake_vqa", root)
    assert "not unpacked" not in str(without.value)
    (root / "Slake1.0" / "imgs.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"images=False\); .*imgs\.zip is there, but not unpacked\.$"):
        load_dataset("slake_vqa", root)
    assert len(load_dataset("slake_vqa", root, images=False)) == 3


def test_an_unpacked_archive_is_not_blamed(root: Path) -> None:
    (root / "Slake1.0" / "imgs.zip").write_bytes(b"PK")
    (root / "Slake1.0" / "imgs" / "xmlab2" / "source.jpg").unlink()
    with pytest.raises(UserError, match="1 image file is missing") as caught:
        load_dataset("slake_rec", root)
    assert "not unpacked" not in str(caught.value)


def test_boxes_in_an_archive_that_is_not_unpacked(root: Path) -> None:
    shutil.rmtree(root / "Slake1.0" / "imgs")
    (root / "imgs.zip").write_bytes(b"PK")
    (root.parent / "datasets.yaml").write_text("- {name: boxes, layout: slake_rec, root: slake}")
    with pytest.raises(AbsentError, match=r"holds no imgs/xmlabN/detection\.json; .*imgs\.zip is there, but not unp"):
        load_dataset("boxes", root.parent)
