from pathlib import Path

import pytest

from unimed_model.data import load_dataset
from unimed_model.errors import UserError

FOLDER = Path("data_clean/data_clean/questions/US")


def test_questions_and_answers(medqa_root: Path) -> None:
    samples = load_dataset("medqa", medqa_root)
    assert [sample.meta["subject"] for sample in samples[:4]] == [
        "A potter has a temperature of 38.2°C. Which step is next?",
        "What is the best glaze?",
        'He says "more clay". What is meant?',
        "First line.\nSecond line?",
    ]
    assert {sample.answer for sample in samples} == {"Measure zinc"}
    assert samples[0].instruction == (
        "If you are a doctor, please answer the following question briefly: " + samples[0].meta["subject"]
    )
    assert "option" not in samples[0].instruction.removesuffix(samples[0].meta["subject"])
    assert samples[0].meta["answer_idx"] == "B"


def test_long_questions_are_not_cut(medqa_root: Path) -> None:
    assert load_dataset("medqa", medqa_root)[4].meta["subject"].count("word") == 60


def test_splits(medqa_root: Path) -> None:
    options = [load_dataset("medqa", medqa_root, split=s)[0].meta["options"]["A"] for s in ("train", "dev", "test")]
    assert options == ["train option A", "dev option A", "test option A"]


@pytest.mark.parametrize("level", ["data_clean", "data_clean/data_clean"])
def test_every_level_serves_as_root(medqa_root: Path, level: str) -> None:
    assert list(load_dataset("medqa", medqa_root / level)) == list(load_dataset("medqa", medqa_root))


def test_damage_is_named_with_its_line(medqa_root: Path) -> None:
    path = medqa_root / FOLDER / "train.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    with pytest.raises(UserError, match=r"train\.jsonl, line 5: not complete, valid JSON"):
        load_dataset("medqa", medqa_root)
    path.write_text('{"question": "Why?", "answer": "x", "options": {"A": "y"}, "answer_idx": "A"}\n')
    with pytest.raises(UserError, match=r"line 1: the answer 'x' is not the text of option 'A'"):
        load_dataset("medqa", medqa_root)
    path.unlink()
    with pytest.raises(UserError, match=r"train\.jsonl is missing"):
        load_dataset("medqa", medqa_root)


def test_empty_answers_are_counted(medqa_root: Path) -> None:
    (medqa_root / FOLDER / "dev.jsonl").write_text('{"question": "Why?", "answer": " "}\n')
    samples = load_dataset("medqa", medqa_root, split="dev")
    assert len(samples) == 0
    assert samples.skipped == {"empty answer": 1}
