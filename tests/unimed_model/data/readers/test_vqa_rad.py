import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unimed_model.data import load_dataset
from unimed_model.data.cells import ImageCell
from unimed_model.data.files import noting
from unimed_model.errors import AbsentError, UserError

FIXTURE = Path(__file__).parents[3] / "fixtures" / "vqa_rad"
PUBLIC = "VQA_RAD Dataset Public.json"
FOLDER = "VQA_RAD Image Folder"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The public download alone."""
    root = tmp_path / "vqa_rad"
    shutil.copytree(FIXTURE / FOLDER, root / FOLDER)
    shutil.copy(FIXTURE / PUBLIC, root)
    return root


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    shutil.copytree(FIXTURE / "sets", tmp_path / "vqa_rad")
    return tmp_path / "vqa_rad"


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    shutil.copytree(FIXTURE / "hub", tmp_path / "vqa_rad")
    return tmp_path / "vqa_rad"


def _rewrite(path: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    records = json.loads(path.read_text())
    change(records)
    path.write_text(json.dumps(records))


def test_the_phrase_type_tells_the_split() -> None:
    train, test = (load_dataset("vqa_rad", FIXTURE, split=split) for split in ("train", "test"))
    assert [sample.sample_id for sample in train] == ["0", "1", "2", "5", "6"]
    assert [sample.sample_id for sample in test] == ["3", "4", "7"]
    assert [sample.meta["phrase_type"] for sample in test] == ["test_freeform", "test_para", "test_freeform"]


def test_texts_lose_the_blanks_at_their_ends_and_numbers_become_texts() -> None:
    train, test = (load_dataset("vqa_rad", FIXTURE, split=split) for split in ("train", "test"))
    assert [sample.answer for sample in train] == ["Yes", "Yes", "4", "No", "No"]
    assert [sample.answer for sample in test] == ["Left", "Left", "A \tframe"]
    assert train[0].meta["subject"] == "Is there a square?"
    assert train[0].instruction.endswith("short answer: Is there a square?")


def test_the_answer_type_is_the_stated_one() -> None:
    train, test = (load_dataset("vqa_rad", FIXTURE, split=split) for split in ("train", "test"))
    # One is written with a blank behind it; a closed answer need not be yes or no.
    assert [sample.meta["answer_type"] for sample in train] == ["CLOSED", "CLOSED", "OPEN", "CLOSED", "CLOSED"]
    assert [sample.meta["answer_type"] for sample in test] == ["CLOSED", "CLOSED", "OPEN"]
    assert train[1].meta == {
        "templates": "vqa",
        "subject": "Can a square be seen?",
        "answer_type": "CLOSED",
        "question_type": "PRES, ATTRIB",
        "phrase_type": "para",
        "image_organ": "HEAD",
        "form": "public.json",
    }


def test_images_open_and_duplicates_are_noted() -> None:
    train = load_dataset("vqa_rad", FIXTURE)
    assert [sample.image_id for sample in train] == [f"synpic9000{number}.jpg" for number in (0, 0, 1, 2, 2)]
    assert [sample.image.size for sample in train if sample.image] == [(20, 14), (20, 14), (21, 14), (22, 14), (22, 14)]
    found = train.findings["duplicate"]
    assert (found.count, found.left_out, found.first) == (1, False, f"{FIXTURE / PUBLIC}, record 6")


@pytest.mark.parametrize("place", [".", "VQA_RAD", "osfstorage-archive", "any folder"])
def test_the_download_at_any_level(tmp_path: Path, root: Path, place: str) -> None:
    shutil.copytree(root, tmp_path / "above" / place, dirs_exist_ok=True)
    samples = load_dataset("vqa_rad", tmp_path / "above")
    assert len([sample.image for sample in samples]) == 5


def test_names_with_underscores(root: Path) -> None:
    (root / PUBLIC).rename(root / PUBLIC.replace(" ", "_"))
    (root / FOLDER).rename(root / "images")
    assert len(load_dataset("vqa_rad", root, split="test")) == 3


def test_the_two_sets(sets: Path) -> None:
    train, test = (load_dataset("vqa_rad", sets, split=split) for split in ("train", "test"))
    public = load_dataset("vqa_rad", FIXTURE)
    # The training set repeats the questions in the words of `question_frame`.
    assert [s.meta["phrase_type"] for s in train] == ["freeform", "para", "freeform", "freeform", "freeform", "frame"]
    assert [(s.image_id, s.answer) for s in train[:5]] == [(s.image_id, s.answer) for s in public]
    assert train[5].meta["subject"] == "Is there a square? (framed)"
    assert [sample.sample_id for sample in test] == ["4", "5", "8"]
    assert [sample.image.mode for sample in (*train, *test) if sample.image] == ["RGB"] * 9
    assert {sample.meta["form"] for sample in train} == {"set.json"}


def test_one_set_alone(sets: Path) -> None:
    (sets / "trainset.json").unlink()
    assert len(load_dataset("vqa_rad", sets, split="test")) == 3
    with pytest.raises(AbsentError, match=r"holds no 'VQA_RAD Dataset Public\.json', trainset\.json or data/train"):
        load_dataset("vqa_rad", sets)
    with pytest.raises(UserError, match="has no split 'val'; it has train, test"):
        load_dataset("vqa_rad", sets, split="val")


def test_sets_that_do_not_tell_the_kind_of_answer(sets: Path) -> None:
    def bare(records: list[dict[str, Any]]) -> None:
        for record in records:
            for key in ("answer_type", "question_type", "phrase_type", "qid"):
                del record[key]

    _rewrite(sets / "testset.json", bare)
    samples = load_dataset("vqa_rad", sets, split="test")
    assert [sample.meta["answer_type"] for sample in samples] == ["OPEN"] * 3
    assert [sample.sample_id for sample in samples] == ["test-0", "test-1", "test-2"]


def test_the_hubs_form(hub: Path) -> None:
    train, test = (load_dataset("vqa_rad", hub, split=split) for split in ("train", "test"))
    assert [(s.answer, s.meta["answer_type"]) for s in train] == [("yes", "CLOSED"), ("4", "OPEN")]
    assert [(s.answer, s.meta["answer_type"]) for s in test] == [("no", "CLOSED")]
    assert isinstance(train[0].image_source, ImageCell)
    assert [sample.image.size for sample in train if sample.image] == [(20, 14), (21, 14)]
    # The image of the test question is that of the second training question.
    assert test[0].image_id == train[1].image_id != train[0].image_id


def test_annotations_alone_need_no_image(root: Path) -> None:
    shutil.rmtree(root / FOLDER)
    assert len(load_dataset("vqa_rad", root, images=False)) == 5
    with pytest.raises(UserError, match=r"3 image files are missing \(.*VQA_RAD Image Folder/synpic90000\.jpg"):
        load_dataset("vqa_rad", root)
    assert load_dataset("vqa_rad", root, missing_images="skip").skipped == {"missing image": 5}


@pytest.mark.parametrize("name", ["../../secret.jpg", "/etc/passwd", "a\\..\\..\\b.jpg"])
def test_names_that_leave_the_root_are_refused(root: Path, name: str) -> None:
    _rewrite(root / PUBLIC, lambda records: records[2].update(image_name=name))
    with pytest.raises(UserError, match=r"Public\.json, record 2: the file name .* is refused"):
        load_dataset("vqa_rad", root, images=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"phrase_type": "Test freeform"},
            "record 2: phrase_type must be one of freeform, para, frame, or of these after",
        ),
        ({"answer_type": "maybe"}, "record 2: answer_type must be OPEN or CLOSED"),
        ({"answer": ["Yes"]}, "record 2: 'answer' must be a text or a number, not of type list"),
        ({"answer": True}, "record 2: 'answer' must be a text or a number, not of type bool"),
    ],
)
def test_malformed_records_are_named(root: Path, change: dict[str, Any], message: str) -> None:
    _rewrite(root / PUBLIC, lambda records: records[2].update(change))
    with pytest.raises(UserError, match=message):
        load_dataset("vqa_rad", root)


@pytest.mark.parametrize("key", ["phrase_type", "image_name", "question", "answer"])
def test_missing_keys_are_named(root: Path, key: str) -> None:
    _rewrite(root / PUBLIC, lambda records: records[0].pop(key))
    with pytest.raises(UserError, match=f"record 0: the key '{key}' is missing"):
        load_dataset("vqa_rad", root)


def test_empty_texts_are_counted(root: Path) -> None:
    def empty(records: list[dict[str, Any]]) -> None:
        records[0]["answer"] = None
        records[1]["question"] = " "
        records[2]["answer"] = 2.0
        records[5]["answer"] = float("nan")

    _rewrite(root / PUBLIC, empty)
    samples = load_dataset("vqa_rad", root)
    assert [sample.answer for sample in samples] == ["2", "No"]
    assert samples.skipped == {"empty answer": 2, "empty question": 1}


def test_what_it_depends_on_is_noted(root: Path) -> None:
    with noting() as noted:
        load_dataset("vqa_rad", root)
    assert noted == {root, root / PUBLIC}
