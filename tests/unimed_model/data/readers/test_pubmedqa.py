import json
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from unimed_model.data import Samples, load_dataset
from unimed_model.data.files import noting
from unimed_model.errors import AbsentError, UserError

FIXTURE = Path(__file__).parents[3] / "fixtures" / "pubmedqa"
REAL = Path(__file__).parents[4].parent / "shared" / "data" / "pubmedqa"
TRAIN, TEST = (list(map(str, numbers)) for numbers in (range(90000000, 90000006), range(90000006, 90000010)))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The repository's form, which may be damaged."""
    shutil.copytree(FIXTURE / "data", tmp_path / "pubmedqa" / "data")
    return tmp_path / "pubmedqa"


@pytest.fixture
def folds(tmp_path: Path) -> Path:
    """The split script's form: development records 4 and 5 in fold 0, 0 and 1 in fold 1."""
    shutil.copytree(FIXTURE / "folds", tmp_path / "pubmedqa")
    return tmp_path / "pubmedqa"


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    shutil.copytree(FIXTURE / "hub", tmp_path / "pubmedqa")
    return tmp_path / "pubmedqa"


def _ids(samples: Samples) -> list[str]:
    return [sample.sample_id for sample in samples]


def _both(root: Path) -> tuple[list[str], list[str]]:
    train, test = (load_dataset("pubmedqa", root, split=split) for split in ("train", "test"))
    return _ids(train), _ids(test)


@pytest.mark.parametrize("place", [".", "data", "folds", "folds/pqal_fold0", "hub", "hub/pqa_labeled"])
def test_every_form_gives_the_same_split(place: str) -> None:
    assert _both(FIXTURE / place) == (TRAIN, TEST)
    train, expected = load_dataset("pubmedqa", FIXTURE / place), load_dataset("pubmedqa", FIXTURE)
    assert list(train) == list(expected)


@pytest.mark.parametrize("form", ["data", "folds", "hub"])
def test_every_form_one_folder_deeper(tmp_path: Path, form: str) -> None:
    shutil.copytree(FIXTURE / form, tmp_path / "root" / "PubMedQA-master")
    assert _both(tmp_path / "root") == (TRAIN, TEST)


def test_a_sample() -> None:
    sample = load_dataset("pubmedqa", FIXTURE)[1]
    assert (sample.answer, sample.task, sample.image, sample.image_id) == ("no", "QA", None, None)
    assert sample.instruction.endswith('"yes", "no" or "maybe": Does chewing mint shorten 1 naps – or lengthen them?')
    assert sample.meta["subject"] == "Does chewing mint shorten 1 naps – or lengthen them?"


def test_the_split_does_not_depend_on_random_numbers(root: Path) -> None:
    state = random.getstate()
    random.seed(5)
    first = _both(root)
    random.seed(6)
    assert _both(root) == first
    random.setstate(state)


@pytest.mark.parametrize("fold", [0, 1])
def test_train_and_dev_of_any_fold_are_together_the_training_set(folds: Path, fold: int) -> None:
    train, test = _both(folds / f"pqal_fold{fold}")
    assert (sorted(train), test) == (TRAIN, TEST)


def test_a_fold_without_development_records_warns(folds: Path) -> None:
    (folds / "pqal_fold0" / "dev_set.json").unlink()
    with pytest.warns(UserWarning, match=r"no dev_set\.json: 4 training records instead of 500"):
        assert len(load_dataset("pubmedqa", folds)) == 4


def test_parts_are_read_and_what_is_absent_is_named(folds: Path) -> None:
    shutil.move(folds / "test_set.json", folds.parent / "test_set.json")
    assert _ids(load_dataset("pubmedqa", folds)) == TRAIN
    with pytest.raises(AbsentError, match=r"no test_set\.json, beside the folds, and no ori_pqal\.json"):
        load_dataset("pubmedqa", folds, split="test")
    for fold in (0, 1):
        shutil.rmtree(folds / f"pqal_fold{fold}")
    shutil.move(folds.parent / "test_set.json", folds / "test_set.json")
    assert _ids(load_dataset("pubmedqa", folds, split="test")) == TEST
    with pytest.raises(AbsentError, match=r"no train_set\.json \(in a folder pqal_fold0, say\), and no ori_pqal"):
        load_dataset("pubmedqa", folds)


def test_a_training_set_of_its_own(tmp_path: Path, folds: Path) -> None:
    root = tmp_path / "root" / "pubmedqa"
    root.mkdir(parents=True)
    shutil.copy(folds / "pqal_fold0" / "train_set.json", root)
    shutil.copy(folds / "pqal_fold0" / "dev_set.json", root)
    assert _ids(load_dataset("pubmedqa", root)) == TRAIN
    with pytest.raises(AbsentError, match=r"no test_set\.json"):
        load_dataset("pubmedqa", root, split="test")
    shutil.copy(folds / "test_set.json", root)
    assert _ids(load_dataset("pubmedqa", root, split="test")) == TEST


def test_one_file_of_the_repository_alone(root: Path) -> None:
    (root / "data" / "test_ground_truth.json").rename(root / "truth")
    for split in ("train", "test"):
        with pytest.raises(UserError, match=r"test_ground_truth\.json is missing: ori_pqal\.json does not say which"):
            load_dataset("pubmedqa", root, split=split)
    (root / "data" / "ori_pqal.json").unlink()
    (root / "truth").rename(root / "data" / "test_ground_truth.json")
    for split in ("train", "test"):
        with pytest.raises(UserError, match=r"ori_pqal\.json is missing: .* holds test_ground_truth\.json alone"):
            load_dataset("pubmedqa", root, split=split)


def test_the_hubs_file_needs_the_ground_truth(hub: Path) -> None:
    truth = hub / "test_ground_truth.json"
    truth.rename(hub / "pqa_labeled" / truth.name)
    assert _both(hub) == (TRAIN, TEST)
    (hub / "pqa_labeled" / truth.name).unlink()
    with pytest.raises(
        UserError, match=r"pqa_labeled/test_ground_truth\.json is missing: train-00000-of-00001\.parquet does not say"
    ):
        load_dataset("pubmedqa", hub)


def test_damage_to_the_hubs_file_is_named(hub: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = hub / "pqa_labeled" / "train-00000-of-00001.parquet"
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["final_decision"]), path)
    with pytest.raises(UserError, match=r"train-00000-of-00001\.parquet lacks the column 'final_decision'"):
        load_dataset("pubmedqa", hub)
    pq.write_table(pa.concat_tables([table, table]), path)
    with pytest.raises(UserError, match=r"row 10: the pubid 90000000 occurs twice"):
        load_dataset("pubmedqa", hub)
    pq.write_table(table.slice(0, 8), path)
    with pytest.raises(UserError, match=r"record 90000008, which test_ground_truth\.json names, is missing"):
        load_dataset("pubmedqa", hub)


def test_damage_is_named(root: Path) -> None:
    truth = root / "data" / "test_ground_truth.json"
    content = json.loads(truth.read_text())
    truth.write_text(json.dumps(content | {"90000009": "maybe"}))
    with pytest.raises(UserError, match="record 90000009 has another decision than test_ground_truth"):
        load_dataset("pubmedqa", root)
    truth.write_text(json.dumps(list(content)))
    with pytest.raises(UserError, match=r"test_ground_truth\.json must hold a JSON object"):
        load_dataset("pubmedqa", root)
    records = root / "data" / "ori_pqal.json"
    records.write_text(records.read_text()[:200])
    with pytest.raises(UserError, match=r"ori_pqal\.json is not complete, valid JSON"):
        load_dataset("pubmedqa", root)


def test_malformed_records_are_named(root: Path) -> None:
    records = root / "data" / "ori_pqal.json"
    for record, message in (
        ('{"QUESTION": "Why?", "final_decision": "perhaps"}', "record 1: final_decision must be yes, no or maybe"),
        ('{"final_decision": "yes"}', "record 1: the key 'QUESTION' is missing"),
        ("[]", r"ori_pqal\.json must hold a JSON object, id -> record"),
    ):
        records.write_text(f'{{"1": {record}}}')
        with pytest.raises(UserError, match=message):
            load_dataset("pubmedqa", root)


def test_empty_questions_are_counted(root: Path) -> None:
    path = root / "data" / "ori_pqal.json"
    records = json.loads(path.read_text())
    records["90000001"]["QUESTION"] = "  "
    path.write_text(json.dumps(records))
    samples = load_dataset("pubmedqa", root)
    assert (len(samples), samples.skipped) == (5, {"empty question": 1})
    assert samples.findings["empty question"].first == f"{path}, record 90000001"


def test_what_it_depends_on_is_noted(root: Path) -> None:
    with noting() as noted:
        load_dataset("pubmedqa", root)
    assert {root, root / "data" / "ori_pqal.json", root / "data" / "test_ground_truth.json"} <= noted


@pytest.mark.skipif(not REAL.is_dir(), reason="the published PubMedQA files are not beside the project")
def test_the_published_files() -> None:
    train, test = (load_dataset("pubmedqa", REAL.parent, split=split) for split in ("train", "test"))
    assert (len(train), len(test)) == (500, 500)
    assert Counter(sample.answer for sample in test) == {"yes": 276, "no": 169, "maybe": 55}
    assert not set(_ids(train)) & set(_ids(test))
