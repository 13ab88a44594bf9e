"""Files of predictions: ours come back as they were, and whatever is wrong with anyone's is one sentence."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unimed_model.data import load_dataset
from unimed_model.errors import UserError
from unimed_model.predictions import answer_of, line_of, parsed_line, read_predictions, record_of

GOOD = {"id": "a", "task": "CLS", "prediction": "liver", "reference": "lung"}
BOX = {"id": "a", "task": "REC", "prediction": "<1><2><3><4>", "reference": "<1><2><3><4>"}


def write(path, *lines):
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def test_what_is_not_required_may_be_left_out(tmp_path):
    file = write(tmp_path / "p.jsonl", GOOD, "", {**GOOD, "id": 2, "image_id": 7, "their_own_key": [1], "prompt": None})
    first, second = read_predictions(file)
    assert (first.dataset, first.image_id, first.answer_type, first.box_pixels) == ("CLS", None, None, None)
    assert (second.id, second.image_id) == ("2", "7")


def test_a_byte_order_mark_is_no_mistake(tmp_path):
    (tmp_path / "p.jsonl").write_text(json.dumps(GOOD), encoding="utf-8-sig")
    assert read_predictions(tmp_path / "p.jsonl")[0].reference == "lung"


def test_one_id_may_stand_in_two_datasets(tmp_path):
    file = write(tmp_path / "p.jsonl", {**GOOD, "dataset": "x"}, {**GOOD, "dataset": "y"})
    assert [answer.dataset for answer in read_predictions(file)] == ["x", "y"]


@pytest.mark.parametrize("name", ["mni_vqa", "mni_rec", "mni_caption", "mni_qa"])
def test_our_own_lines_come_back_as_what_was_scored(corpus, tmp_path, name):
    samples = load_dataset(name, corpus, "test")
    answers = [answer_of(sample, f"answer\u2028 {i}\r\n") for i, sample in enumerate(samples)]
    lines = [line_of(record_of(sample, f"answer\u2028 {i}\r\n")) for i, sample in enumerate(samples)]
    (tmp_path / "p.jsonl").write_text("".join(lines), encoding="utf-8", newline="")
    assert read_predictions(tmp_path / "p.jsonl") == answers
    if name == "mni_rec":
        assert all(answer.box_pixels and answer.image_size for answer in answers)
    if name == "mni_vqa":
        assert {answer.answer_type for answer in answers} == {"OPEN", "CLOSED"}


def test_restricted_text_is_written_only_when_allowed(corpus):
    sample = replace(load_dataset("mni_caption", corpus, "test")[0], restricted=True)
    hidden, shown = record_of(sample, "seen"), record_of(sample, "seen", allowed=True)
    assert [hidden[key] for key in ("prompt", "prediction", "reference")] == [None] * 3
    assert [shown[key] for key in ("prediction", "reference")] == ["seen", sample.answer]
    assert hidden["restricted"] is shown["restricted"] is True


@pytest.mark.parametrize(
    ("second", "says"),
    [
        ('{"id": "b"', "line 2: not valid JSON"),
        ('{"id": "b", "task": "CLS", "prediction": NaN, "reference": "x"}', "line 2: not valid JSON (NaN is no JSON"),
        ('{"id": "\\ud800", "task": "CLS", "prediction": "x", "reference": "x"}', "half of a character"),
        ("[1, 2]", "line 2: a JSON object is needed, not a list"),
        ("null", "line 2: a JSON object is needed, not null"),
        ("[" * 100_000, "line 2: not valid JSON"),
        ({"task": "CLS", "prediction": "x", "reference": "x"}, "line 2: the key 'id' is missing"),
        ({"id": "b", "task": "CLS", "reference": "x"}, "line 2: the key 'prediction' is missing"),
        ({**GOOD, "id": "b", "prediction": 3}, "line 2: 'prediction' must be a text, not a number"),
        ({**GOOD, "id": "b", "reference": None}, "line 2: 'reference' must be a text, not null"),
        ({**GOOD, "id": True}, "line 2: 'id' must be a text or a whole number, not true or false"),
        ({**GOOD, "id": "b", "image_id": ["x"]}, "line 2: 'image_id' must be a text or a whole number, not a list"),
        ({**GOOD, "id": "b", "dataset": ""}, "line 2: 'dataset' must be a name"),
        ({**GOOD, "id": "b", "answer_type": "open"}, "line 2: 'answer_type' must be OPEN or CLOSED"),
        ({**GOOD, "id": "b", "task": "CLAS"}, "line 2: there is no task 'CLAS'; the nearest is 'CLS'"),
        ({**GOOD, "id": "b", "task": 4}, "line 2: 'task' must be one of QA, VQA"),
        (GOOD, "line 2: the id 'a' of CLS stands in line 1 already"),
        ({**GOOD, "id": "b", "dataset": "CLS", "task": "QA"}, "line 2: CLS has the task CLS in lines above and QA"),
        ({**BOX, "reference": "left"}, "line 2: the reference of a REC sample must be a box"),
        ({**BOX, "box_pixels": [1, 2, 3]}, "line 2: 'box_pixels' must be four numbers"),
        ({**BOX, "box_pixels": [1, 2, 3, 10**400]}, "line 2: 'box_pixels' must be four numbers"),
        (
            '{"id": "b", "task": "REC", "prediction": "", "reference": "<1><2><3><4>", "box_pixels": [1e999, 0, 1, 1]}',
            "four",
        ),
        ({**BOX, "image_size": [0, 5]}, "line 2: 'image_size' must be two whole numbers"),
        (
            {**GOOD, "id": "b", "prediction": None, "reference": None, "restricted": True},
            "line 2: the text is withheld",
        ),
    ],
)
def test_mistakes_name_the_file_and_the_line(tmp_path, second, says):
    file = write(tmp_path / "theirs.jsonl", GOOD, second)
    with pytest.raises(UserError) as raised:
        read_predictions(file)
    sentence = str(raised.value)
    assert sentence.startswith(f"{file}, line 2")
    assert says in sentence
    assert "\n" not in sentence


def test_a_sentence_never_quotes_an_answer(tmp_path):
    secret = "marmalade barometers"
    for line in ({**GOOD, "prediction": [secret]}, {**GOOD, "reference": {secret: 1}}, f'{{"reference": "{secret}'):
        with pytest.raises(UserError) as raised:
            read_predictions(write(tmp_path / "p.jsonl", line))
        assert "marmalade" not in str(raised.value)


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_a_file_without_predictions_is_refused(tmp_path, content):
    (tmp_path / "p.jsonl").write_text(content)
    with pytest.raises(UserError, match="holds no predictions"):
        read_predictions(tmp_path / "p.jsonl")


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="There is no prediction file"):
        read_predictions(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match="is a folder"):
        read_predictions(tmp_path)
    (tmp_path / "latin.jsonl").write_bytes(b'{"id": "\xe9"}\n')
    with pytest.raises(UserError, match=r"line 1: not valid JSON \(byte 9 is not UTF-8"):
        read_predictions(tmp_path / "latin.jsonl")


@given(st.text())
def test_every_text_survives_a_line(text):
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    line = line_of({"prediction": text})
    assert line.count("\n") == 1
    assert parsed_line(line.encode(), "here") == {"prediction": text}
