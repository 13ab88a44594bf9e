import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unimed_model.data import Samples, load_dataset
from unimed_model.data.cells import ImageCell
from unimed_model.data.files import noting
from unimed_model.data.images import ImageFile
from unimed_model.errors import AbsentError, UserError

FIXTURE = Path(__file__).parents[3] / "fixtures" / "path_vqa"
SPLITS = ("train", "val", "test")
COUNTS = {"train": 6, "val": 2, "test": 3}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The archive alone, which may be damaged."""
    shutil.copytree(FIXTURE / "pvqa", tmp_path / "path_vqa" / "pvqa")
    return tmp_path / "path_vqa"


@pytest.fixture
def plain(root: Path) -> Path:
    """The archive with the second kind of pickles alone."""
    for split in SPLITS:
        (root / "pvqa" / "qas" / f"{split}_vqa.pkl").unlink()
    return root


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    shutil.copytree(FIXTURE / "hub", tmp_path / "path_vqa")
    return tmp_path / "path_vqa"


def _rewrite(root: Path, change: Callable[[list[dict[str, Any]]], object], split: str = "train") -> None:
    path = root / "pvqa" / "qas" / f"{split}_vqa.pkl"
    records = pickle.loads(path.read_bytes())
    change(records)
    path.write_bytes(pickle.dumps(records))


def _triples(samples: Samples) -> list[tuple[str | None, str, str]]:
    return [(sample.image_id, sample.meta["subject"], sample.answer) for sample in samples]


def test_questions_in_file_order() -> None:
    samples = load_dataset("path_vqa", FIXTURE)
    assert _triples(samples) == [
        ("train_0000", "Where is this section taken from?", "Liver"),
        ("train_0000", "Is the square bright?", "yes"),
        ("train_0001", "How many squares are there?", "2"),
        ("train_0001", "Is the square bright?", "no"),
        ("train_0001", "Is the square bright?", "no"),
        ("train_0002", "Is it said to be bright?", "yes"),
    ]
    first = samples[0]
    assert first.instruction.endswith("short answer: Where is this section taken from?")
    assert (first.task, first.split, first.sample_id, first.patient_id) == ("VQA", "train", "10000000", None)
    assert first.meta == {
        "templates": "vqa",
        "subject": "Where is this section taken from?",
        "answer_type": "OPEN",
        "question_type": "where",
        "form": "vqa.pkl",
    }


def test_the_answer_type_tells_what_is_closed() -> None:
    samples = load_dataset("path_vqa", FIXTURE)
    # The last answer is yes to a question of another type.
    assert [s.meta["answer_type"] for s in samples] == ["OPEN", "CLOSED", "OPEN", "CLOSED", "CLOSED", "OPEN"]
    assert [s.meta["question_type"] for s in samples][2] == "how many/how much"


def test_duplicates_are_kept_and_noted() -> None:
    findings = load_dataset("path_vqa", FIXTURE).findings
    assert (findings["duplicate"].count, findings["duplicate"].left_out) == (1, False)
    assert findings["duplicate"].first == f"{FIXTURE / 'pvqa/qas/train_vqa.pkl'}, record 4"
    assert (findings["empty answer"].count, findings["empty answer"].left_out) == (1, True)
    assert findings["empty answer"].first.endswith("record 6")


@pytest.mark.parametrize("split", SPLITS)
def test_every_split_opens_its_images_in_rgb(split: str) -> None:
    samples = load_dataset("path_vqa", FIXTURE, split=split)
    assert len(samples) == COUNTS[split]
    for sample in samples:
        assert sample.image is not None
        assert sample.image.mode == "RGB"
        assert isinstance(sample.image_source, ImageFile)
        assert sample.image_source.path.stem == sample.image_id
        assert sample.image_source.path.parent.name == split


def test_images_of_another_kind_are_found() -> None:
    source = load_dataset("path_vqa", FIXTURE, split="val")[0].image_source
    assert source is not None
    assert source.path.name == "val_0000.png"
    # Half of it is transparent, which is laid on black.
    assert source.open().getpixel((0, 0)) == (20, 45, 5)


@pytest.mark.parametrize("place", [".", "pvqa", "split", "PathVQA-archive", "pvqa/pvqa"])
def test_the_archive_at_any_level(tmp_path: Path, place: str) -> None:
    shutil.copytree(FIXTURE / "pvqa", tmp_path / "root" / place, dirs_exist_ok=True)
    found = load_dataset("path_vqa", tmp_path / "root")
    assert _triples(found) == _triples(load_dataset("path_vqa", FIXTURE))
    assert all(sample.image for sample in found)


def test_the_second_kind_of_pickles(plain: Path) -> None:
    for split in SPLITS:
        first, second = load_dataset("path_vqa", FIXTURE, split=split), load_dataset("path_vqa", plain, split=split)
        assert _triples(first) == _triples(second)
        assert [s.image_source.path.name for s in first if s.image_source] == [
            s.image_source.path.name for s in second if s.image_source
        ]
    train = load_dataset("path_vqa", plain)
    assert [sample.sample_id for sample in train] == [f"train-{number}" for number in range(6)]
    # Nothing tells the kind of answer here but the answer.
    assert [s.meta["answer_type"] for s in train] == ["OPEN", "CLOSED", "OPEN", "CLOSED", "CLOSED", "CLOSED"]
    assert {sample.meta["form"] for sample in train} == {"qa.pkl"}
    assert "question_type" not in train[0].meta
    assert train.findings["duplicate"].count == 1


def test_the_hubs_form(hub: Path) -> None:
    train = load_dataset("path_vqa", hub)
    assert [sample.answer for sample in train] == ["liver", "yes", "No", "2", "2", "a square"]
    assert [s.meta["answer_type"] for s in train] == ["OPEN", "CLOSED", "CLOSED", "OPEN", "OPEN", "OPEN"]
    assert [sample.sample_id for sample in train] == [f"train-{number}" for number in range(6)]
    # One image has one id, whatever shard and split it stands in.
    images = [sample.image_id for sample in train]
    assert images[0] == images[1] != images[2] == images[3] == images[4] != images[5]
    assert load_dataset("path_vqa", hub, split="test")[0].image_id == images[2]
    assert load_dataset("path_vqa", hub, split="val")[0].image_id == images[5]
    assert train.findings["duplicate"].count == 1
    assert {sample.meta["form"] for sample in train} == {"parquet"}
    assert [sample.image.size for sample in train if sample.image] == [(24, 16)] * 2 + [(25, 16)] * 3 + [(26, 16)]
    assert isinstance(train[5].image_source, ImageCell)
    assert train[5].image_source.place == ("image", 1)


def test_a_missing_shard_is_named(hub: Path) -> None:
    next(hub.glob("data/train-00001-*")).unlink()
    with pytest.raises(UserError, match=r"of 3 shards, train-00001-of-00003 is missing"):
        load_dataset("path_vqa", hub)
    assert len(load_dataset("path_vqa", hub, split="test")) == 1


def test_cells_without_image(hub: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = next(hub.glob("data/validation-*"))
    table = pa.table(
        {
            "image": pa.array(
                [{"bytes": None, "path": "x.jpg"}, None], pa.struct({"bytes": pa.binary(), "path": pa.string()})
            ),
            "question": ["what is seen?", None],
            "answer": ["clay", "clay"],
        }
    )
    pq.write_table(table, path)
    with pytest.raises(UserError, match=r"path_vqa: 1 cell holds no image \(.*row 0\)"):
        load_dataset("path_vqa", hub, split="val")
    skipped = load_dataset("path_vqa", hub, split="val", missing_images="skip")
    assert skipped.skipped == {"empty question": 1, "missing image": 1}
    assert len(skipped) == 0
    assert [s.answer for s in load_dataset("path_vqa", hub, split="val", images=False)] == ["clay"]


def test_what_is_absent_is_named(root: Path) -> None:
    shutil.rmtree(root / "pvqa" / "qas" / "val")
    (root / "pvqa" / "qas" / "val_vqa.pkl").unlink()
    with pytest.raises(AbsentError, match=r"no qas/val_vqa\.pkl, qas/val/val_qa\.pkl or data/validation-\*\.parquet"):
        load_dataset("path_vqa", root, split="val")
    assert len(load_dataset("path_vqa", root, split="test")) == 3
    with pytest.raises(UserError, match="has no split 'validation'; it has train, val, test"):
        load_dataset("path_vqa", root, split="validation")


def test_annotations_alone_need_no_image(root: Path) -> None:
    with_images = load_dataset("path_vqa", root)
    shutil.rmtree(root / "pvqa" / "images")
    without = load_dataset("path_vqa", root, images=False)
    assert [(s.sample_id, s.image_id) for s in without] == [(s.sample_id, s.image_id) for s in with_images]
    with pytest.raises(UserError, match=r"3 image files are missing \(.*images/train/train_0000\.jpg"):
        load_dataset("path_vqa", root)


def test_missing_images_can_be_left_out(root: Path) -> None:
    (root / "pvqa" / "images" / "train" / "train_0001.jpg").unlink()
    samples = load_dataset("path_vqa", root, missing_images="skip")
    assert [sample.image_id for sample in samples] == ["train_0000", "train_0000", "train_0002"]
    assert samples.skipped == {"empty answer": 1, "missing image": 3}


@pytest.mark.parametrize("name", ["../../../secret", "/etc/passwd", "a/../../b", "C:\\x", ""])
def test_names_that_leave_the_root_are_refused(root: Path, name: str) -> None:
    _rewrite(root, lambda records: records[1].update(img_id=name))
    for images in (True, False):
        with pytest.raises(UserError, match=r"train_vqa\.pkl, record 1: the file name .* is refused"):
            load_dataset("path_vqa", root, images=images)


def test_a_question_id_that_repeats_is_not_taken(root: Path) -> None:
    _rewrite(root, lambda records: records[1].update(question_id=records[0]["question_id"]))
    ids = [sample.sample_id for sample in load_dataset("path_vqa", root)]
    assert ids[:3] == ["train-0", "train-1", "10001002"]
    assert len(set(ids)) == len(ids)


def test_a_pickle_that_asks_for_code_is_refused(root: Path, tmp_path: Path) -> None:
    class Touch:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "called",)

    _rewrite(root, lambda records: records.append({"label": Touch()}))
    with pytest.raises(UserError, match=r"train_vqa\.pkl is refused: it asks for code to be run"):
        load_dataset("path_vqa", root)
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda records: records[2].pop("label"), "record 2: the key 'label' must be a dictionary"),
        (lambda records: records[2].update(label=["liver"]), "record 2: the key 'label' must be a dictionary"),
        (lambda records: records[2].update(label={None: 1}), ""),
        (
            lambda records: records[2].update(label={b"liver": 1}),
            "record 2: 'label' must be a text or a number, not of",
        ),
        (lambda records: records[2].pop("sent"), "record 2: the key 'sent' is missing"),
        (
            lambda records: records[2].update(sent=["a"]),
            "record 2: 'sent' must be a text or a number, not of type list",
        ),
        (lambda records: records[2].pop("img_id"), "record 2: the key 'img_id' is missing"),
        (lambda records: records.append("record"), "must hold a list of dictionaries"),
    ],
)
def test_malformed_records_are_named(root: Path, change: Callable[[Any], object], message: str) -> None:
    _rewrite(root, change)
    if message:
        with pytest.raises(UserError, match=message):
            load_dataset("path_vqa", root)
    else:
        assert load_dataset("path_vqa", root).skipped == {"empty answer": 2}


def test_empty_labels_are_counted(root: Path) -> None:
    _rewrite(root, lambda records: records[0].update(label={}))
    assert load_dataset("path_vqa", root).skipped == {"empty answer": 2}


def test_the_first_of_several_answers_is_taken(root: Path) -> None:
    _rewrite(root, lambda records: records[0].update(label={"spleen ": 0.3, "liver": 1}))
    assert load_dataset("path_vqa", root)[0].answer == "spleen"


def test_what_it_depends_on_is_noted(root: Path) -> None:
    qas = root / "pvqa" / "qas"
    with noting() as noted:
        load_dataset("path_vqa", root)
    assert noted == {root, qas, qas / "train_vqa.pkl"}
