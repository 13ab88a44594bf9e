"""Questions on tissue maps, read as plain pickles and compared with the template itself."""

import csv
import pickle
from collections import Counter, defaultdict

import numpy as np
import pytest
from PIL import Image

from unimed_model.data.corpus import path_vqa, tissue_wording
from unimed_model.data.corpus.anatomy import load_volumes, slices

FOLDER = "mni_tissue_vqa"
PLACES = {
    "axial": (("in the lower part", -90, -30), ("in the middle", -14, 20), ("in the upper part", 36, 90)),
    "coronal": (("in the back part", -140, -58), ("in the middle", -38, 0), ("in the front part", 24, 100)),
    "sagittal": (("near the midline", 0, 19), ("far from the midline", 36, 100)),
}


def records(corpus, split):
    return pickle.loads((corpus / FOLDER / "qas" / f"{split}_vqa.pkl").read_bytes())


def pictures(corpus):
    with (corpus / "pictures.csv").open() as stream:
        return {row["file"]: row for row in csv.DictReader(stream)}


def truth(text, plane, position, kind, template):
    """The answer by the template, computed without the corpus's code."""
    gray, white = template.tissues(plane, position)
    brain = (gray | white).sum()
    if text == "which plane is this section in?":
        return plane
    if text == "is white matter brighter than gray matter in this picture?":
        shown = template.section(plane, position, kind)
        return "yes" if shown[white].mean() > shown[gray].mean() else "no"
    if text == "which tissue does this map show?":
        return f"{kind} matter"
    if text == "how much of the section does this tissue fill?":
        tenths = 10 * {"gray": gray, "white": white}[kind].sum() / brain
        return f"about {10 * round(tenths)} percent"
    if text == "where in the brain does this section lie?":
        return next(name for name, low, high in PLACES[plane] if low <= position <= high)
    if text == "is the brain wider than it is high in this picture?":
        across, up = (np.ptp(np.flatnonzero((gray | white).any(axis=axis))) for axis in (1, 0))
        return "yes" if across > up else "no"
    if text == "does gray matter fill more than 60 percent of the section?":
        return "yes" if gray.sum() > 0.6 * brain else "no"
    if text == "does this section pass within 20 mm of the anterior commissure?":
        return "yes" if abs(position) < 20 else "no"
    if text == "how many halves of the brain does this section cut?":
        return "one" if plane == "sagittal" else "two"
    raise AssertionError(text)


def test_every_answer_is_true_of_the_template(corpus, template):
    table = pictures(corpus)
    for split in ("train", "test"):
        for record in records(corpus, split):
            row = table[f"{FOLDER}/images/{split}/{record['img_id']}.jpg"]
            ((answer, score),) = record["label"].items()
            expected = truth(record["sent"], row["plane"], int(row["position_mm"]), row["picture"], template)
            assert (answer, score) == (expected, 1), record


def test_every_answer_that_can_be_given_is_true_of_the_template(template):
    for slice_ in list(slices(load_volumes()))[::5]:
        for kind in ("t1", *tissue_wording.maps(slice_)):
            for question in tissue_wording.questions(slice_, kind):
                expected = truth(question.text, slice_.plane.name, slice_.position, kind, template)
                assert question.answer == expected, (slice_.key, kind, question.text)


def test_records_have_the_layout_of_the_published_pickles(corpus):
    for split, digit in (("train", 1), ("test", 3)):
        read = records(corpus, split)
        assert [r["question_id"] // 10**8 for r in read] == [digit] * len(read)
        assert len({r["question_id"] for r in read}) == len(read)
        for record in read:
            assert set(record) == {"answer_type", "img_id", "label", "question_id", "question_type", "sent"}
            assert (record["answer_type"] == "yes/no") == (record["question_type"] == "yes/no")
            assert (record["answer_type"] == "yes/no") == (next(iter(record["label"])) in ("yes", "no"))
            assert record["question_id"] // 1000 % 10**5 == int(record["img_id"].removeprefix(f"{split}_"))
            with Image.open(corpus / FOLDER / "images" / split / f"{record['img_id']}.jpg") as image:
                assert (image.format, image.size) == ("JPEG", (96, 96))
    assert records(corpus, "val") == []


def test_both_kinds_of_question_are_asked_of_t1_pictures_and_of_maps(corpus):
    table = pictures(corpus)
    asked = {
        (table[f"{FOLDER}/images/train/{record['img_id']}.jpg"]["picture"] == "t1", record["answer_type"])
        for record in records(corpus, "train")
    }
    assert asked == {(True, "yes/no"), (True, "other"), (False, "yes/no"), (False, "other")}


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Questions on 300 pictures, enough for their balance to show."""
    folder = tmp_path_factory.mktemp("many") / FOLDER
    every = list(slices(load_volumes()))
    path_vqa.write_path_vqa(folder, every, {"train": 300}, np.random.default_rng(0))
    return pickle.loads((folder / "qas" / "train_vqa.pkl").read_bytes())


def test_the_commonest_answer_to_a_question_is_seldom_right(many):
    answers = defaultdict(Counter)
    for record in many:
        answers[record["sent"]].update(record["label"])
    assert len(answers) == 9
    for text, given in answers.items():
        assert given.most_common(1)[0][1] <= 0.55 * given.total(), (text, given)
    assert sum(given.most_common(1)[0][1] for given in answers.values()) < 0.4 * len(many)
