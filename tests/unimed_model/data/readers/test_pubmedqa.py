import json
from collections import Counter
from pathlib import Path

import pytest

from unimed_model.data import Samples, load_dataset
from unimed_model.errors import UserError

REAL = Path(__file__).parents[4].parent / "shared" / "data" / "pubmedqa"


def _ids(samples: Samples) -> list[str]:
    return [sample.sample_id for sample in samples]


def test_the_ground_truth_ids_are_the_test_set(pubmedqa_root: Path) -> None:
    assert _ids(load_dataset("pubmedqa", pubmedqa_root)) == [str(90000000 + i) for i in range(6)]
    assert _ids(load_dataset("pubmedqa", pubmedqa_root, split="test")) == [str(90000006 + i) for i in range(4)]


def test_a_sample(pubmedqa_root: Path) -> None:
    sample = load_dataset("pubmedqa", pubmedqa_root)[1]
    assert (sample.answer, sample.task, sample.image, sample.image_id) == ("no", "QA", None, None)
    assert sample.instruction.endswith('"yes", "no" or "maybe": Does chewing mint shorten 1 naps?')
    assert sample.meta["subject"] == "Does chewing mint shorten 1 naps?"


@pytest.mark.parametrize("folder", [".", "pqal_fold0"])
def test_the_split_scripts_folders(pubmedqa_folds: Path, folder: str) -> None:
    root = pubmedqa_folds / folder
    assert _ids(load_dataset("pubmedqa", root)) == [str(90000000 + i) for i in range(6)]
    assert _ids(load_dataset("pubmedqa", root, split="test")) == [str(90000006 + i) for i in range(4)]


def test_a_fold_without_development_records_warns(pubmedqa_folds: Path) -> None:
    (pubmedqa_folds / "pqal_fold0" / "dev_set.json").unlink()
    with pytest.warns(UserWarning, match=r"no dev_set\.json: 4 training records instead of 500"):
        assert len(load_dataset("pubmedqa", pubmedqa_folds)) == 4


def test_a_fold_without_test_set(pubmedqa_folds: Path) -> None:
    (pubmedqa_folds / "test_set.json").unlink()
    with pytest.raises(UserError, match=r"hold no test_set\.json"):
        load_dataset("pubmedqa", pubmedqa_folds, split="test")


def test_damage_is_named(pubmedqa_root: Path) -> None:
    truth = pubmedqa_root / "test_ground_truth.json"
    content = json.loads(truth.read_text())
    truth.write_text(json.dumps(content | {"90000009": "no" if content["90000009"] == "yes" else "yes"}))
    with pytest.raises(UserError, match="record 90000009 has the decision"):
        load_dataset("pubmedqa", pubmedqa_root)
    truth.unlink()
    with pytest.raises(UserError, match=r"test_ground_truth\.json is missing"):
        load_dataset("pubmedqa", pubmedqa_root)
    records = pubmedqa_root / "ori_pqal.json"
    records.write_text(records.read_text()[:200])
    with pytest.raises(UserError, match=r"ori_pqal\.json is not complete, valid JSON"):
        load_dataset("pubmedqa", pubmedqa_root)


def test_an_unknown_decision(pubmedqa_root: Path) -> None:
    (pubmedqa_root / "ori_pqal.json").write_text('{"1": {"QUESTION": "Why?", "final_decision": "perhaps"}}')
    with pytest.raises(UserError, match="record 1: final_decision must be yes, no or maybe, not 'perhaps'"):
        load_dataset("pubmedqa", pubmedqa_root)


@pytest.mark.skipif(not REAL.is_dir(), reason="the published PubMedQA files are not beside the project")
def test_the_published_files() -> None:
    train, test = (load_dataset("pubmedqa", REAL.parent, split=split) for split in ("train", "test"))
    assert (len(train), len(test)) == (500, 500)
    assert Counter(sample.answer for sample in test) == {"yes": 276, "no": 169, "maybe": 55}
    assert not set(_ids(train)) & set(_ids(test))
