import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from unimed_model.data import load_dataset
from unimed_model.errors import AbsentError, UserError

FIXTURE = Path(__file__).parents[3] / "fixtures" / "medqa"
ARCHIVE = FIXTURE / "data_clean"
US = Path("data_clean/questions/US")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The archive alone, which may be damaged."""
    shutil.copytree(ARCHIVE, tmp_path / "medqa" / "data_clean")
    return tmp_path / "medqa"


def _write(path: Path, **record: Any) -> None:
    path.write_text(json.dumps({"question": "Why?", "answer": "x", **record}) + "\n")


def test_questions_lose_a_stray_quote_at_their_end_only() -> None:
    samples = load_dataset("medqa", FIXTURE)
    assert [sample.meta["subject"] for sample in samples[:4]] == [
        "A 40-year-old potter has a temperature of 38.2°C (100.8°F). Which of the following is the next step?",
        "Which of the following glazes is best?",
        'He says "more clay". Which of the following is meant?',
        "A kiln is opened – too early.\nWhich of the following is seen first? (train)",
    ]
    assert samples[0].instruction == (
        "If you are a doctor, please answer the following question briefly: " + samples[0].meta["subject"]
    )


def test_answers_are_the_texts_of_their_options() -> None:
    samples = load_dataset("medqa", FIXTURE)
    assert [sample.answer for sample in samples] == [
        "Measure the zinc",
        "Ash glaze",
        "A larger “lump” of it",
        "Pinholes",
        "Drying",
        '"Let us talk about what makes it hard to centre the clay."',
    ]
    for sample in samples:
        assert sample.answer == sample.meta["options"][sample.meta["answer_idx"]]


def test_options_are_kept_but_not_shown() -> None:
    samples = load_dataset("medqa", FIXTURE)
    assert samples[1].meta["options"] == {
        "A": "Celadon",
        "B": "Ash glaze",
        "C": "Tenmoku",
        "D": "Shino",
        "E": "Raku",
    }
    # Three quotation marks on either side are a pair each.
    assert samples[5].meta["options"]["B"] == '"""You should know that dry clay cracks."""'
    for sample in samples[:5]:
        assert not any(option in sample.instruction for option in sample.meta["options"].values())
    assert [sample.meta["meta_info"] for sample in samples] == ["step2&3", "step1"] * 3


def test_long_questions_are_not_cut() -> None:
    question = load_dataset("medqa", FIXTURE)[4].meta["subject"]
    assert len(question.split()) > 60
    assert question.endswith("What next?")


def test_splits_and_ids() -> None:
    for split in ("train", "dev", "test"):
        samples = load_dataset("medqa", FIXTURE, split=split)
        assert samples[3].meta["subject"].endswith(f"({split})")
        assert [sample.sample_id for sample in samples] == [f"{split}-{line}" for line in range(1, 7)]
        assert {(sample.task, sample.image_id, sample.image) for sample in samples} == {("QA", None, None)}
    with pytest.raises(UserError, match="has no split 'val'; it has train, dev, test"):
        load_dataset("medqa", FIXTURE, split="val")


@pytest.mark.parametrize("level", ["data_clean", "data_clean/questions", "data_clean/questions/US"])
def test_every_level_serves_as_root(level: str) -> None:
    assert list(load_dataset("medqa", FIXTURE / level)) == list(load_dataset("medqa", FIXTURE))


def test_an_archive_that_is_unpacked_twice(tmp_path: Path) -> None:
    shutil.copytree(ARCHIVE, tmp_path / "data_clean" / "data_clean")
    assert list(load_dataset("medqa", tmp_path)) == list(load_dataset("medqa", FIXTURE))


def test_four_options_where_asked_for_or_alone(root: Path) -> None:
    four = load_dataset("medqa", root, options=4)
    assert [list(sample.meta["options"]) for sample in four] == [["A", "B", "C", "D"]] * 6
    # The option E is marked in the other form.
    assert four[4].answer == "Rest"
    assert [len(s.meta["options"]) for s in load_dataset("medqa", root, options=5)] == [5] * 6
    (root / US / "train.jsonl").unlink()
    assert list(load_dataset("medqa", root)) == list(four)
    with pytest.raises(AbsentError, match=r"holds no train\.jsonl, which train needs"):
        load_dataset("medqa", root, options=5)
    assert list(load_dataset("medqa", root / US / "4_options")) == list(four)


def test_the_hubs_four_option_files() -> None:
    samples = load_dataset("medqa", FIXTURE / "hub")
    assert list(samples) == list(load_dataset("medqa", FIXTURE, options=4))
    assert len(load_dataset("medqa", FIXTURE / "hub", split="test")) == 6
    with pytest.raises(AbsentError, match=r"holds no dev\.jsonl or .*phrases_no_exclude_dev\.jsonl, which dev needs"):
        load_dataset("medqa", FIXTURE / "hub", split="dev")


def test_options_as_a_list() -> None:
    assert list(load_dataset("medqa", FIXTURE / "bigbio")) == list(load_dataset("medqa", FIXTURE))


def test_damage_is_named_with_its_line(root: Path) -> None:
    path = root / US / "train.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    with pytest.raises(UserError, match=r"train\.jsonl, line 6: not complete, valid JSON"):
        load_dataset("medqa", root)
    _write(path, options={"A": "y"}, answer_idx="A")
    with pytest.raises(UserError, match=r"line 1: the answer is not the text of the option that answer_idx marks"):
        load_dataset("medqa", root)
    _write(path, options={"A": "x"}, answer_idx="B")
    with pytest.raises(UserError, match=r"line 1: the answer is not the text of the option that answer_idx marks"):
        load_dataset("medqa", root)


@pytest.mark.parametrize("options", ["A", 5, ["A", "B"], [{"key": "A"}], [{"key": [], "value": "x"}], {"A": None}])
def test_malformed_options_are_named(root: Path, options: object) -> None:
    _write(root / US / "train.jsonl", options=options)
    with pytest.raises(UserError, match=r"train\.jsonl, line 1: options must be texts by letter, or a list of objects"):
        load_dataset("medqa", root)


def test_a_record_without_options_is_read(root: Path) -> None:
    _write(root / US / "train.jsonl")
    assert "options" not in load_dataset("medqa", root)[0].meta


def test_empty_texts_are_left_out_and_duplicates_noted(root: Path) -> None:
    lines = [
        {"question": "Why?", "answer": " "},
        {"question": '"', "answer": "x"},
        {"question": "Why?", "answer": "x"},
        {"question": "Why? ", "answer": "x"},
    ]
    path = root / US / "dev.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    samples = load_dataset("medqa", root, split="dev")
    assert [sample.sample_id for sample in samples] == ["dev-3", "dev-4"]
    assert samples.skipped == {"empty answer": 1, "empty question": 1}
    assert samples.findings["duplicate"].first == f"{path}, line 4"


def test_no_record_is_quoted_in_an_error(root: Path) -> None:
    _write(root / US / "train.jsonl", question="a private text", answer="another", options={"A": "y"}, answer_idx="A")
    with pytest.raises(UserError) as caught:
        load_dataset("medqa", root, restricted=True)
    assert "private" not in str(caught.value)
    assert "another" not in str(caught.value)
