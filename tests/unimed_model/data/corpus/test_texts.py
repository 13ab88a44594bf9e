"""Questions in words, read as plain JSON and answered anew from what they say."""

import json
import re
from collections import Counter

import numpy as np
import pytest

from unimed_model.data.corpus import texts

PLANE_OF = {"x": "sagittal", "y": "coronal", "z": "axial"}
WORDS = {"x": ("to the left of", "to the right of"), "y": ("behind", "in front of"), "z": ("below", "above")}
POINT = re.compile(r"\((-?\d+), (-?\d+), (-?\d+)\)")
AT = re.compile(r"([xyz]) = (-?\d+)")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Both layouts at about the size of the corpus."""
    root = tmp_path_factory.mktemp("texts")
    for name, write in (("mni_qa", texts.write_medqa), ("mni_yesno", texts.write_pubmedqa)):
        assert write(root / name, [], {"train": 1050, "test": 210}, np.random.default_rng(0)) == []
    return root


def questions(folders, split):
    path = folders / "mni_qa" / "questions" / "US" / f"{split}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def statements(folders):
    records = json.loads((folders / "mni_yesno" / "ori_pqal.json").read_text())
    return records, json.loads((folders / "mni_yesno" / "test_ground_truth.json").read_text())


def points(text):
    return [tuple(map(int, match)) for match in POINT.findall(text)]


def side(axis, value):
    return WORDS[axis][value > 0]


def answer(record):
    """The answer to a question of MedQA's layout, from its text alone."""
    text, topic = record["question"], record["meta_info"]
    named = [(axis, int(value)) for axis, value in AT.findall(text)]
    if topic == "place of a point":
        ((x, y, z),) = points(text)
        return f"to the {'left' if x < 0 else 'right'}, {'behind' if y < 0 else 'in front'} and {side('z', z)}"
    if topic == "planes":
        return PLANE_OF[named[0][0]]
    if topic == "order of slices":
        low = re.search("to the left:|to the back:|down:", text)
        return "{} = {}".format(*(min if low else max)(named, key=lambda pair: pair[1]))
    if topic == "place of a slice":
        ((axis, value),) = named
        return f"{abs(value)} mm {side(axis, value)} the origin"
    if topic == "symmetry":
        ((x, y, z),) = points(text)
        return f"({-x}, {y}, {z})"
    if topic == "distance":
        return f"{abs(named[0][1] - named[1][1])} mm"
    assert topic == "pictures"
    ((x, y, z),) = points(text)
    plane = re.search("sagittal|coronal|axial", text)[0]
    shown = {"sagittal": (y, z), "coronal": (x, z), "axial": (x, y)}[plane]
    return f"to the {'left' if shown[0] < 0 else 'right'} and {'down' if shown[1] < 0 else 'up'}"


def possible(text):
    """Every answer that a question of PubMedQA's layout can have in a world where what it says is true."""
    said, asked = re.fullmatch(r"(?:(.+)\. )?(.+\?)", text).groups()
    if asked.startswith("Does the point"):
        ((x, y, z),) = points(asked)
        axis, words = next((a, w) for a in WORDS for w in WORDS[a] if f" {w} " in asked)
        return {side(axis, {"x": x, "y": y, "z": z}[axis]) == words}
    if "pass through" in asked:
        ((axis, value),) = AT.findall(asked)
        return {points(asked)[0]["xyz".index(axis)] == int(value)}
    if asked.startswith("Do the points"):
        (x, *rest), second = points(asked)
        return {(-x, *rest) == second}
    axis = next(axis for axis, plane in PLANE_OF.items() if f" {plane} slice" in said)
    distances = [int(number) for number in re.findall(r"(\d+) mm", said)]
    signs = {-1: WORDS[axis][0], 1: WORDS[axis][1]}
    allowed = [sign for sign, words in signs.items() if f" {words} the origin" in said] or [-1, 1]
    if asked.startswith("Are they"):
        wanted = int(re.search(r"(\d+) mm", asked)[1])
        near, far = distances
        return {abs(a * near - b * far) == wanted for a in allowed for b in allowed if len(allowed) == 2 or a == b}
    reference = int(AT.search(asked)[2])
    if asked.startswith("Is it the slice at"):
        return {sign * distances[0] == reference for sign in allowed}
    above = next(words for words in signs.values() if f" {words} the " in asked) == signs[1]
    return {(sign * distances[0] > reference) == above for sign in allowed}


def test_every_option_marked_right_is_right_and_no_other_is(folders):
    for split in ("train", "test"):
        for record in questions(folders, split):
            expected = answer(record)
            assert record["answer"] == record["options"][record["answer_idx"]] == expected, record
            assert list(record["options"]) == list("ABCDE")
            assert len(set(record["options"].values())) == 5


def test_every_decision_is_what_can_be_concluded(folders):
    records, _ = statements(folders)
    decided = {frozenset({True}): "yes", frozenset({False}): "no", frozenset({True, False}): "maybe"}
    for record in records.values():
        assert record["final_decision"] == decided[frozenset(possible(record["QUESTION"]))], record["QUESTION"]


def test_test_questions_are_not_training_questions(folders):
    train, test = ({record["question"] for record in questions(folders, split)} for split in ("train", "test"))
    assert (len(train), len(test), train & test) == (1050, 210, set())
    records, truth = statements(folders)
    assert len({record["QUESTION"] for record in records.values()}) == len(records) == 1260
    assert len(truth) == 210


def test_no_single_answer_goes_far(folders):
    train, test = questions(folders, "train"), questions(folders, "test")
    assert len({record["meta_info"] for record in test}) == 7
    commonest = Counter(record["answer"] for record in train).most_common(1)[0][0]
    assert sum(record["answer"] == commonest for record in test) < 0.1 * len(test)
    letters = Counter(record["answer_idx"] for record in train)
    assert max(letters.values()) < 0.3 * len(train)
    _, truth = statements(folders)
    assert Counter(truth.values()) == {"yes": 84, "no": 84, "maybe": 42}


def test_how_a_question_is_worded_does_not_tell_its_decision(folders):
    """With numbers and sides taken out, each wording is asked with at least two decisions, about as often."""
    records, _ = statements(folders)
    decisions = {}
    for record in records.values():
        bare = re.sub(r"-?\d+", "N", record["QUESTION"])
        for words in (*WORDS["x"], *WORDS["y"], *WORDS["z"], "from the origin", "x", "y", "z", *PLANE_OF.values()):
            bare = re.sub(rf"\b{words}\b", "S", bare)
        decisions.setdefault(re.sub(r"\bAn? S slice", "A S slice", bare), Counter())[record["final_decision"]] += 1
    assert len(decisions) >= 6
    for wording, given in decisions.items():
        assert len(given) >= 2, wording
        assert max(given.values()) <= 0.75 * given.total(), (wording, given)


def test_records_have_the_layout_of_pubmedqa(folders):
    records, truth = statements(folders)
    for key, record in records.items():
        assert key.isdigit()
        assert len(key) > 8, "no article of PubMed has so long an id"
        assert record["QUESTION"].endswith("?")
        assert len(record["CONTEXTS"]) == len(record["LABELS"]) == 1
        assert key not in truth or truth[key] == record["final_decision"]
