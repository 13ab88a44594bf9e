import json
import os
import random
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unimed_model.data import Samples, load_dataset
from unimed_model.data.readers.slake import IMAGES, seeded_split
from unimed_model.errors import UserError

REAL = Path(__file__).parents[4].parent / "shared" / "data" / "slake"


def _ids(samples: Samples) -> list[str]:
    return [sample.sample_id for sample in samples]


def test_questions_by_image_split_over_all_files(slake_root: Path) -> None:
    train = load_dataset("slake_vqa", slake_root)
    # Question 5 stands in the official test file, but its image belongs to training.
    assert _ids(train) == ["0", "2", "5"]
    assert train.skipped == {"empty answer": 1}
    assert _ids(load_dataset("slake_vqa", slake_root, split="test")) == ["4", "6"]


def test_a_question_sample(slake_root: Path) -> None:
    sample = load_dataset("slake_vqa", slake_root)[0]
    assert sample.instruction == (
        "Based on the image, respond to this question with a short answer: Which organ is striped?"
    )
    assert (sample.answer, sample.image_id, sample.task) == ("Spleen", "xmlab1", "VQA")
    assert sample.meta["subject"] == "Which organ is striped?"
    assert sample.meta["content_type"] == "Organ"
    assert sample.image is not None
    assert (sample.image.mode, sample.image.size) == ("RGB", (200, 100))


def test_languages(slake_root: Path) -> None:
    assert _ids(load_dataset("slake_vqa", slake_root, language="zh")) == ["1"]
    everything = load_dataset("slake_vqa", slake_root, split="official:test", language="all")
    assert _ids(everything) == ["5", "6", "7"]
    assert everything[2].answer == "左上"
    with pytest.raises(UserError, match="no language 'fr'"):
        load_dataset("slake_vqa", slake_root, language="fr")


def test_official_splits_and_both_names_of_the_validation_file(slake_root: Path) -> None:
    assert _ids(load_dataset("slake_vqa", slake_root, split="official:validate")) == ["4"]
    (slake_root / "validation.json").rename(slake_root / "validate.json")
    assert _ids(load_dataset("slake_vqa", slake_root, split="official:validate")) == ["4"]
    (slake_root / "validate.json").unlink()
    with pytest.raises(UserError, match=r"holds no validate\.json or validation\.json"):
        load_dataset("slake_vqa", slake_root, split="official:validate")


def test_questions_of_each_image_serve_where_no_file_holds_all(slake_root: Path) -> None:
    records = json.loads((slake_root / "test.json").read_text(encoding="utf-8"))
    for name in ("train", "validation", "test"):
        (slake_root / f"{name}.json").unlink()
    for record in records[1:]:
        record.pop("qid")
        record.pop("content_type")
    path = slake_root / "imgs" / "xmlab4" / "question.json"
    path.write_text(json.dumps(records[1:], ensure_ascii=False), encoding="utf-8")
    samples = load_dataset("slake_vqa", slake_root, split="test", language="all")
    assert [sample.answer for sample in samples] == ["Upper left", "左上"]
    assert len(set(_ids(samples))) == 2


def _write_questions(path: Path, image: int, qids: list[object]) -> None:
    record = {"img_name": f"xmlab{image}/source.jpg", "q_lang": "en", "answer": "A"}
    records = [{**record, "question": f"{path.stem} {i}?", "qid": qid} for i, qid in enumerate(qids)]
    path.write_text(json.dumps(records))


def test_a_qid_that_is_no_number_of_its_own_gives_way_to_the_place(slake_root: Path) -> None:
    _write_questions(slake_root / "train.json", 1, [None, 5, "5", 5, [6], True, 1, 1.0, 8])
    _write_questions(slake_root / "test.json", 2, [8, 9])
    (slake_root / "validation.json").unlink()
    expected = [f"xmlab1-train-{i}" for i in range(9)] + ["xmlab2-test-0", "9"]
    expected[6] = "1"
    assert _ids(load_dataset("slake_vqa", slake_root)) == expected
    assert _ids(load_dataset("slake_vqa", slake_root, split="official:test")) == ["8", "9"]


def test_qids_that_begin_anew_with_each_image(slake_root: Path) -> None:
    for name in ("train", "validation", "test"):
        (slake_root / f"{name}.json").unlink()
    for folder, image in ((1, 1), (2, 2), (700, 2)):  # one of them speaks of another's image
        _write_questions(slake_root / "imgs" / f"xmlab{folder}" / "question.json", image, [0, 1])
    assert _ids(load_dataset("slake_vqa", slake_root)) == [
        f"xmlab{folder}-question-{i}" for folder in (1, 2, 700) for i in (0, 1)
    ]


def test_images_beside_the_json_files(slake_root: Path) -> None:
    for folder in (slake_root / "imgs").iterdir():
        shutil.move(folder, slake_root / folder.name)
    (slake_root / "imgs").rmdir()
    assert load_dataset("slake_vqa", slake_root)[0].image is not None
    assert len(load_dataset("slake_reg", slake_root)) == 5


def test_missing_images_are_counted_and_listed(slake_root: Path) -> None:
    (slake_root / "imgs" / "xmlab2" / "source.jpg").unlink()
    with pytest.raises(UserError, match=r"1 image file is missing \(.*xmlab2/source\.jpg\)"):
        load_dataset("slake_vqa", slake_root)
    assert _ids(load_dataset("slake_vqa", slake_root, images=False)) == ["0", "2", "5"]
    skipping = load_dataset("slake_vqa", slake_root, missing_images="skip")
    assert _ids(skipping) == ["0", "5"]
    assert skipping.skipped == {"empty answer": 1, "missing image": 1}


def test_a_truncated_image_is_named_when_opened(slake_root: Path) -> None:
    path = slake_root / "imgs" / "xmlab1" / "source.jpg"
    path.write_bytes(path.read_bytes()[:-60])
    sample = load_dataset("slake_vqa", slake_root)[0]
    with pytest.raises(UserError, match=r"xmlab1/source\.jpg cannot be decoded"):
        sample.image  # noqa: B018


@pytest.mark.parametrize("name", ["../x/source.jpg", "/etc/passwd", "xmlab1/../../x.jpg", "C:\\x.jpg", ""])
def test_a_name_that_leaves_the_root_is_refused(slake_root: Path, name: str) -> None:
    records = json.loads((slake_root / "test.json").read_text(encoding="utf-8"))
    records[1]["img_name"] = name
    (slake_root / "test.json").write_text(json.dumps(records))
    with pytest.raises(UserError, match=r"test\.json, record 1: the file name .* is refused"):
        load_dataset("slake_vqa", slake_root, split="official:test", images=False)


def test_damaged_question_files_are_named(slake_root: Path) -> None:
    path = slake_root / "test.json"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"test\.json is not complete, valid JSON"):
        load_dataset("slake_vqa", slake_root, split="test")
    path.write_text('[{"img_name": "xmlab1/source.jpg", "question": "Why?", "q_lang": "en"}]')
    with pytest.raises(UserError, match=r"test\.json, record 0: the key 'answer' is missing"):
        load_dataset("slake_vqa", slake_root, split="official:test")


def test_boxes_are_normalised_by_width_and_height(slake_root: Path) -> None:
    samples = {(s.image_id, s.meta["object"]): s for s in load_dataset("slake_rec", slake_root)}
    liver = samples["xmlab1", "Liver"]
    assert liver.boxes == ((10, 10, 60, 60),)
    assert (liver.instruction, liver.answer) == ("Give me the location of Liver.", "<10><10><60><60>")
    assert samples["xmlab1", "Left Kidney"].boxes == ((75, 49, 100, 100),)
    assert samples["xmlab2", "Heart"].boxes == ((0, 0, 100, 100),)


def test_repeated_names_are_ambiguous_to_refer_to_only(slake_root: Path) -> None:
    refer = load_dataset("slake_rec", slake_root)
    assert len(refer) == 3
    assert refer.skipped == {"several objects of one name": 2}
    assert len(load_dataset("slake_rec", slake_root, instances="each")) == 5
    identify = load_dataset("slake_reg", slake_root)
    assert len(identify) == 5
    assert not identify.skipped


def test_a_region_to_identify(slake_root: Path) -> None:
    sample = load_dataset("slake_reg", slake_root, rounding="nearest")[1]
    assert sample.instruction == "What object is in this location <75><50><100><100>?"
    assert (sample.answer, sample.meta["subject"]) == ("Left Kidney", "<75><50><100><100>")


def test_empty_and_absent_detections_give_no_samples(slake_root: Path) -> None:
    assert len(load_dataset("slake_rec", slake_root, split="test")) == 0


def test_official_split_of_boxes_follows_the_images_asked_about(slake_root: Path) -> None:
    samples = load_dataset("slake_reg", slake_root, split="official:test")
    assert {sample.image_id for sample in samples} == {"xmlab1"}


def test_without_images_boxes_are_counted_and_nothing_is_looked_for(slake_root: Path) -> None:
    for path in (slake_root / "imgs").rglob("source.jpg"):
        path.write_bytes(b"not a picture")  # would be an error if it were opened
    identify = load_dataset("slake_reg", slake_root, images=False)
    assert [sample.answer for sample in identify] == ["Liver", "Left Kidney", "Lung Cancer", "Lung Cancer", "Heart"]
    for path in (slake_root / "imgs").rglob("source.jpg"):
        path.unlink()
    assert list(load_dataset("slake_reg", slake_root, images=False)) == list(identify)
    assert {(sample.boxes, sample.instruction, sample.meta["subject"]) for sample in identify} == {((), "", "")}
    refer = load_dataset("slake_rec", slake_root, images=False)
    assert [sample.instruction for sample in refer] == [
        f"Give me the location of {name}." for name in ("Liver", "Left Kidney", "Heart")
    ]
    assert refer[1].meta["box_pixels"] == (150.0, 49.5, 50.0, 50.5)
    assert (refer[1].answer, refer[1].boxes) == ("", ())
    assert "image_size" not in refer[1].meta


def test_annotations_alone_look_for_no_picture(slake_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    stat = os.stat

    def listen(path: object, *args: object, **options: object) -> os.stat_result:
        asked.append(str(path))
        return stat(path, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("os.stat", listen)
    assert len(load_dataset("slake_vqa", slake_root, images=False)) == 3
    assert asked
    assert not [path for path in asked if path.endswith(".jpg")]
    load_dataset("slake_vqa", slake_root)
    assert [path for path in asked if path.endswith(".jpg")]


@pytest.mark.parametrize("images", [True, False])
@pytest.mark.parametrize("name", ["x" * 300 + ".jpg", "é" * 130, "x/" * 3000])
def test_a_name_that_no_file_can_have_is_refused(slake_root: Path, name: str, images: bool) -> None:
    records = json.loads((slake_root / "test.json").read_text(encoding="utf-8"))
    records[1]["img_name"] = f"xmlab4/{name}"
    (slake_root / "test.json").write_text(json.dumps(records))
    with pytest.raises(UserError, match=r"test\.json, record 1: .* is longer than any file can have") as caught:
        load_dataset("slake_vqa", slake_root, split="test", images=images)
    assert len(str(caught.value)) < len(str(slake_root)) + 400


def test_boxes_of_a_missing_image(slake_root: Path) -> None:
    (slake_root / "imgs" / "xmlab2" / "source.jpg").unlink()
    with pytest.raises(UserError, match="1 image file is missing"):
        load_dataset("slake_rec", slake_root)
    assert load_dataset("slake_reg", slake_root, missing_images="skip").skipped == {"missing image": 3}


def _write_boxes(root: Path, boxes: object) -> None:
    (root / "imgs" / "xmlab1" / "detection.json").write_text(json.dumps(boxes))


def test_a_box_outside_the_image(slake_root: Path) -> None:
    _write_boxes(slake_root, [{"Liver": [150, 10, 100, 50]}, {"Ghost": [300, 10, 5, 5]}])
    with pytest.raises(UserError, match=r"xmlab1/detection\.json, object 'Liver'.*leaves the image of 200 x 100"):
        load_dataset("slake_reg", slake_root)
    clipped = load_dataset("slake_reg", slake_root, outside="clip")
    assert clipped[0].boxes == ((75, 10, 100, 60),)
    assert clipped.skipped == {"box outside the image": 1}
    skipping = load_dataset("slake_reg", slake_root, outside="skip")
    assert skipping.skipped == {"box outside the image": 2}
    assert "xmlab1/detection.json, object 'Liver'" in skipping.findings["box outside the image"].first


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([{"Liver": [1, 2, 3]}], "must be four numbers"),
        ([{"Liver": [1, 2, 3, "4"]}], "must be four numbers"),
        ([{"Liver": [1, 2, 3, 4], "Heart": [1, 2, 3, 4]}], "one object per entry"),
        ({"Liver": [1, 2, 3, 4]}, "must hold a JSON list of objects"),
        ([{"Liver": [1, 2, 0, 4]}], "is empty"),
        ([{"Liver": [1, 2, float("nan"), 4]}], "must be four numbers"),
        ([{"Liver": [1, 2, 10**400, 4]}], "must be four numbers"),
        ([{" ": [1, 2, 3, 4]}], "the object has no name"),
    ],
)
def test_malformed_detections(slake_root: Path, boxes: object, message: str) -> None:
    _write_boxes(slake_root, boxes)
    with pytest.raises(UserError, match=message) as caught:
        load_dataset("slake_rec", slake_root)
    assert "xmlab1/detection.json" in str(caught.value)


@pytest.mark.parametrize(
    "boxes", [[{"Liver": ["x" * 100_000, 0, 1, 1]}], [{"x" * 100_000: 3}], [{"Liver": list(range(10_000))}]]
)
def test_what_an_error_quotes_is_short(slake_root: Path, boxes: object) -> None:
    _write_boxes(slake_root, boxes)
    with pytest.raises(UserError, match="must be four numbers") as caught:
        load_dataset("slake_rec", slake_root)
    assert len(str(caught.value)) < len(str(slake_root)) + 500


def test_the_place_of_a_box_is_short(slake_root: Path) -> None:
    _write_boxes(slake_root, [{"x" * 100_000: [0, 0, 300, 1]}])
    with pytest.raises(UserError, match="leaves the image") as caught:
        load_dataset("slake_rec", slake_root)
    assert len(str(caught.value)) < len(str(slake_root)) + 500


def test_split_lists_must_be_complete_and_disjoint(slake_root: Path) -> None:
    (slake_root / "test.txt").write_text("xmlab1 xmlab3")
    with pytest.raises(UserError, match=r"xmlab1 stands in both train\.txt and test\.txt"):
        load_dataset("slake_vqa", slake_root)
    (slake_root / "test.txt").write_text("xmlab3 picture")
    with pytest.raises(UserError, match=r"test\.txt: 'picture' is not a folder name"):
        load_dataset("slake_vqa", slake_root)
    (slake_root / "test.txt").unlink()
    with pytest.raises(UserError, match=r"test\.txt is missing"):
        load_dataset("slake_vqa", slake_root)


@pytest.mark.parametrize(("train", "test"), [("xmlab0", "0"), ("xmlab0", "xmlab00"), ("7 00", "xmlab3 xmlab000")])
def test_split_lists_overlap_by_number_however_it_is_written(slake_root: Path, train: str, test: str) -> None:
    (slake_root / "train.txt").write_text(train)
    (slake_root / "test.txt").write_text(test)
    for split in ("train", "test"):
        with pytest.raises(UserError, match=r"xmlab0 stands in both train\.txt and test\.txt"):
            load_dataset("slake_rec", slake_root, split=split)


def test_a_number_too_long_for_an_image_is_refused(slake_root: Path) -> None:
    (slake_root / "test.txt").write_text("xmlab" + "1" * 5000)
    with pytest.raises(UserError, match=r"test\.txt: '.*' is not a folder name") as caught:
        load_dataset("slake_vqa", slake_root, split="test")
    assert len(str(caught.value)) < 400
    (slake_root / "imgs" / "xmlab1234567").mkdir()  # is no image of Slake's
    (slake_root / "test.txt").write_text("xmlab3")
    assert len(load_dataset("slake_rec", slake_root)) == 3


@settings(deadline=None)
@given(st.integers(0, 2**32))
def test_seeded_split_has_the_papers_sizes(seed: int) -> None:
    test, train = seeded_split(seed)
    assert (len(train), len(test)) == (550, 92)
    assert train | test == frozenset(range(IMAGES))


def test_seeds_give_different_splits() -> None:
    assert seeded_split(0) != seeded_split(1)


def test_seeded_split_does_not_depend_on_files_or_their_order(slake_without_lists: Path) -> None:
    root = slake_without_lists
    shutil.rmtree(root / "imgs" / "xmlab700")
    records = [
        {"img_name": f"xmlab{i}/source.jpg", "question": "Q?", "answer": "A", "q_lang": "en", "qid": i}
        for i in range(IMAGES)
    ]
    random.Random(1).shuffle(records)
    (root / "train.json").write_text(json.dumps(records))
    for name in ("validation.json", "test.json"):
        (root / name).unlink()
    every = load_dataset("slake_vqa", root, split="test", images=False, seed=5)
    assert {int(sample.sample_id) for sample in every} == seeded_split(5)[0]
    (root / "train.json").write_text(json.dumps(sorted(records[:300], key=lambda record: record["qid"])))
    some = load_dataset("slake_vqa", root, split="test", images=False, seed=5)
    assert {sample.sample_id for sample in some} < {sample.sample_id for sample in every}


def test_images_beyond_slakes_need_lists(slake_without_lists: Path) -> None:
    (slake_without_lists / "imgs" / "xmlab700" / "detection.json").write_text("[]")
    with pytest.raises(UserError, match=r"xmlab700.*train\.txt and test\.txt"):
        load_dataset("slake_rec", slake_without_lists)


@pytest.mark.skipif(
    not (REAL / "test.json").is_file(), reason="the published Slake test.json is not beside the project"
)
def test_the_published_test_file() -> None:
    everything = load_dataset("slake_vqa", REAL.parent, split="official:test", language="all", images=False)
    assert (len(everything), everything.skipped) == (2094, {})
    assert len(load_dataset("slake_vqa", REAL, split="official:test", images=False)) == 1061
    parts = [load_dataset("slake_vqa", REAL, split=s, language="all", images=False) for s in ("train", "test")]
    assert sum(map(len, parts)) == 2094
    assert not {s.image_id for s in parts[0]} & {s.image_id for s in parts[1]}
    with pytest.raises(UserError, match="image files are missing"):
        load_dataset("slake_vqa", REAL, split="official:test")
