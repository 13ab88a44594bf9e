import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from unimed_model.data import Samples, discover, load_dataset
from unimed_model.data.boxes import boxes_in
from unimed_model.data.sources import DatasetSource, open_source
from unimed_model.errors import AbsentError, UserError

FIXTURE = Path(__file__).parents[3] / "fixtures" / "jsonl"
FRAMES = FIXTURE / "frames"
CANARY = "zebrafish"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    target = tmp_path / "jsonl"
    shutil.copytree(FIXTURE, target)
    return target


def _write(root: Path, *records: dict[str, Any], name: str = "frames/train.jsonl") -> Path:
    path = root / name
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def _open(root: Path, of: str = "VQA", **options: Any) -> Samples:
    return open_source(DatasetSource("own", "jsonl", of, root), **options)


def test_a_folder_of_files_offers_the_datasets_that_its_records_name() -> None:
    found = {source.name: (source.layout, source.task) for source in discover(FRAMES)}
    assert found == {f"own_{task.lower()}": ("jsonl", task) for task in ("VQA", "QA", "REC", "REG", "RG", "CLS")}
    assert all(len(open_source(source)) > 0 for source in discover(FRAMES))


def test_questions_and_prompts() -> None:
    samples = load_dataset("own_vqa", FRAMES)
    first, second, third = samples
    assert (
        first.instruction == "Based on the image, respond to this question with a short answer: Is the frame striped?"
    )
    assert (first.sample_id, first.image_id, first.patient_id) == ("q1", "images/a.png", "7")
    assert dict(first.meta) == {"templates": "vqa", "subject": "Is the frame striped?", "modality": "drawing"}
    assert (second.instruction, second.answer) == ("Name its colour. ", "grau, café")
    assert (second.sample_id, second.image_id) == ("train-2", "picture a")
    assert "templates" not in second.meta
    assert third.sample_id == "train-3"
    assert samples.skipped == {"empty answer": 1, "empty question": 1}
    assert samples.findings["duplicate"].first.endswith("train.jsonl, line 3")
    assert first.image is not None
    assert first.image.size == (200, 100)


def test_questions_without_image() -> None:
    (sample,) = load_dataset("own_qa", FRAMES)
    assert sample.instruction == "Please answer the following question briefly: Which clay is white?"
    assert (sample.image_source, sample.image_id, sample.meta["templates"]) == (None, None, "qa")


def test_boxes_asked_for_and_asked_about() -> None:
    rec = load_dataset("own_rec", FRAMES)
    assert [sample.instruction for sample in rec] == [
        "Give me the location of square.",
        "Give me the location of circle.",
    ]
    assert [sample.answer for sample in rec] == ["<10><20><30><40>", "{<0><0><100><100>}"]
    assert all(sample.boxes == boxes_in(sample.answer) for sample in rec)
    assert rec.skipped == {"box outside the image": 1}
    (reg,) = load_dataset("own_reg", FRAMES)
    assert (reg.instruction, reg.answer) == ("What object is in this location <5><6><7><8>?", "circle")
    assert reg.boxes == ((5, 6, 7, 8),)


def test_reports_and_classes() -> None:
    (report,) = load_dataset("own_rg", FRAMES)
    assert (report.instruction, report.meta["templates"]) == ("Describe this input image.", "mpx_single")
    (classified,) = load_dataset("own_cls", FRAMES)
    assert (classified.instruction, classified.answer) == ("Round or not?", "round")
    assert "templates" not in classified.meta


def test_one_file_is_a_root_and_its_records_say_their_split() -> None:
    path = FIXTURE / "one_file.jsonl"
    assert [(source.name, source.task) for source in discover(path)] == [("pixels", "REC"), ("shapes", "VQA")]
    assert len(load_dataset("shapes", path)) == len(load_dataset("shapes", path, split="val")) == 1
    with pytest.raises(AbsentError, match="no record of the split 'test'; those of shapes are of train, val"):
        load_dataset("shapes", path, split="test")
    with pytest.raises(UserError, match="nearest name is 'shapes'"):
        load_dataset("shapess", path)


@pytest.mark.parametrize(("box_format", "box"), [("pixels_xywh", (10, 10, 30, 30)), ("pixels_xyxy", (10, 10, 20, 20))])
def test_boxes_in_pixels(box_format: str, box: tuple[int, ...]) -> None:
    # [20, 10, 40, 20] of 200 x 100 pixels.
    path = FIXTURE / "one_file.jsonl"
    (sample,) = load_dataset("pixels", path, split="test", box_format=box_format)
    assert sample.boxes == (box,)
    with pytest.raises(UserError, match="line 1: boxes in pixels need the size of their image"):
        load_dataset("pixels", path, split="test", box_format=box_format, images=False)


def test_boxes_in_pixels_of_a_missing_image(root: Path) -> None:
    (root / "frames" / "images" / "a.png").unlink()
    path = root / "one_file.jsonl"
    with pytest.raises(UserError, match="1 image file is missing"):
        load_dataset("pixels", path, split="test", box_format="pixels_xywh")
    skipping = load_dataset("pixels", path, split="test", box_format="pixels_xywh", missing_images="skip")
    assert skipping.skipped == {"missing image": 1}


def test_missing_images() -> None:
    with pytest.raises(UserError, match=r"1 image file is missing \(.*images/lost\.png\)"):
        load_dataset("own_rg", FRAMES, split="test")
    assert load_dataset("own_rg", FRAMES, split="test", missing_images="skip").skipped == {"missing image": 1}
    assert len(load_dataset("own_rg", FRAMES, split="test", images=False)) == 1


def test_a_declaration_chooses_records_and_task(root: Path) -> None:
    _write(root, {"image": "images/a.png", "question": "Striped?", "answer": "Yes"})
    declared = """
- {name: mine, layout: jsonl, root: frames, options: {task: VQA}}
- {name: circles, layout: jsonl, root: frames/test.jsonl, options: {dataset: own_rg}}
"""
    (root / "datasets.yaml").write_text(declared)
    sources = {source.name: source for source in discover(root)}
    assert {name: source.task for name, source in sources.items()} == {
        "mine": "VQA",
        "circles": "RG",
        "pixels": "REC",  # of one_file.jsonl
        "shapes": "VQA",
    }
    assert len(load_dataset("mine", root)) == 1
    assert len(load_dataset("circles", root, split="test", images=False)) == 1


def test_declared_records_are_not_offered_a_second_time(root: Path) -> None:
    (root / "datasets.yaml").write_text(
        "- {name: mine, layout: jsonl, root: one_file.jsonl, options: {dataset: shapes}}"
    )
    assert [source.name for source in discover(root)] == ["mine", "pixels"]


def test_published_files_go_before_lines_of_the_same_name(tmp_path: Path) -> None:
    folder = tmp_path / "medqa" / "questions" / "US"
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_text('{"question": "Why?", "answer": "So"}\n')
    _write(tmp_path, {"question": "Who?", "answer": "Me", "task": "QA", "dataset": "medqa"}, name="own.jsonl")
    assert [source.layout for source in discover(tmp_path)] == ["medqa"]
    assert load_dataset("medqa", tmp_path)[0].answer == "So"
    shutil.rmtree(tmp_path / "medqa")
    assert load_dataset("medqa", tmp_path)[0].answer == "Me"


def test_lines_that_name_no_dataset_are_not_offered(tmp_path: Path) -> None:
    _write(tmp_path, {"step": 1, "loss": 0.5}, name="log.jsonl")
    with pytest.raises(UserError, match="holds no dataset"):
        discover(tmp_path)
    _write(tmp_path, {"dataset": "a", "task": "QA"}, {"task": "QA"}, name="log.jsonl")
    with pytest.raises(UserError, match=r"log\.jsonl, line 2: the key 'dataset' must name a dataset"):
        discover(tmp_path)
    _write(tmp_path, {"dataset": "../a", "task": "QA"}, name="log.jsonl")
    with pytest.raises(UserError, match=r"'\.\./a' is no name for a dataset"):
        discover(tmp_path)


def test_no_record_of_a_dataset_or_split_names_what_there_is(root: Path) -> None:
    with pytest.raises(UserError, match="no record of the dataset 'own'; it holds own_vqa, own_qa, own_rec"):
        _open(root / "frames")
    with pytest.raises(AbsentError, match="no record of the split 'val'"):
        load_dataset("own_vqa", root / "frames", split="val")
    with pytest.raises(UserError, match="has no split 'dev'; it has train, val, test"):
        load_dataset("own_vqa", root / "frames", split="dev")


IMAGE = {"image": "images/a.png"}
WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("VQA", {"question": CANARY, "answer": CANARY}, "the key 'image' is missing, which VQA needs"),
    ("VQA", {**IMAGE, "answer": CANARY}, "the key 'prompt' or 'question' is missing"),
    ("VQA", {**IMAGE, "question": CANARY}, "the key 'answer' is missing"),
    ("VQA", {**IMAGE, "question": CANARY, "answer": [CANARY]}, "'answer' must be a text, not list"),
    ("VQA", {"image": "../a.png", "question": CANARY, "answer": CANARY}, r"the file name '\.\./a\.png' leaves"),
    ("VQA", {"image": "/a.png", "question": CANARY, "answer": CANARY}, "the file name '/a.png' leaves"),
    ("VQA", {**IMAGE, "question": CANARY, "answer": CANARY, "split": CANARY}, "'split' must be one of train, val"),
    ("VQA", {**IMAGE, "question": CANARY, "answer": CANARY, "split": "test"}, "'split' says test, but this file is of"),
    ("VQA", {**IMAGE, "question": CANARY, "answer": CANARY, "task": "REC"}, "before are of the task VQA"),
    ("VQA", {**IMAGE, "question": CANARY, "answer": CANARY, "task": "vqa"}, "'task' must be one of QA, VQA"),
    ("VQA", {**IMAGE, "question": CANARY, "answer": CANARY, "id": ""}, "'id' must be a text or a whole number"),
    ("VQA", {**IMAGE, "question": CANARY, "answer": CANARY, "id": 1}, "the id of .*line 1 occurs again"),
    ("VQA", {**IMAGE, "question": CANARY, "answer": CANARY, "subject": CANARY}, "the key 'subject' has a meaning"),
    ("VQA", {**IMAGE, "question": CANARY, "answer": CANARY, "dataset": 1}, "'dataset' must be a text, not int"),
    ("VQA", {**IMAGE, "question": CANARY, "answer": CANARY, "boxes": [1, 2, 3, 4]}, "must be a list of boxes"),
    ("VQA", {**IMAGE, "question": CANARY, "answer": CANARY, "boxes": [[1, 2, 3, "4"]]}, "must be a list of boxes"),
    ("VQA", {**IMAGE, "question": CANARY, "answer": CANARY, "boxes": [[1, 2, 3, 4.5]]}, "in whole hundredths"),
    ("QA", {**IMAGE, "question": CANARY, "answer": CANARY}, "the task of questions about images is VQA"),
    ("CLS", {**IMAGE, "answer": CANARY}, "the key 'prompt' or 'question' is missing"),
    ("REC", {**IMAGE, "question": CANARY}, "without 'answer' REC needs one box in 'boxes', not 0"),
    ("REC", {**IMAGE, "question": CANARY, "answer": CANARY}, "must write its box"),
    ("REC", {**IMAGE, "question": CANARY, "answer": "<1><2><3><4>", "boxes": [[1, 2, 3, 5]]}, "must write its box"),
    ("REC", {**IMAGE, "question": CANARY, "answer": "<1><2><3><400>"}, "the box in the answer must lie in 0 to 100"),
    ("REG", {**IMAGE, "answer": CANARY}, "without 'prompt' REG needs one box in 'boxes', not 0"),
]  # fmt: skip
SOUND: dict[str, dict[str, Any]] = {
    "QA": {"question": "a", "answer": "b"},
    "VQA": {**IMAGE, "question": "a", "answer": "b"},
    "CLS": {**IMAGE, "question": "a or b?", "answer": "b"},
    "REC": {**IMAGE, "question": "a", "answer": "<1><2><3><4>"},
    "REG": {**IMAGE, "prompt": "What is in <1><2><3><4>?", "answer": "b"},
}


@pytest.mark.parametrize(("task", "record", "message"), WRONG, ids=[f"{task} {m}" for task, _, m in WRONG])
def test_a_malformed_record_names_its_line_and_quotes_nothing(
    root: Path, task: str, record: dict[str, Any], message: str
) -> None:
    path = _write(root, {**SOUND[task], "task": task, "id": "1"}, {"task": task, **record})
    with pytest.raises(UserError, match=message) as caught:
        _open(root / "frames", task, restricted=True)
    assert str(caught.value).startswith(f"{path}, line 2: ")
    assert CANARY not in str(caught.value)


def test_a_damaged_line_names_its_line(root: Path) -> None:
    path = root / "frames" / "train.jsonl"
    path.write_text('{"image": "images/a.png", "question": "a", "answer": "b", "task": "VQA"}\n{"image": "im')
    with pytest.raises(UserError, match=r"train\.jsonl, line 2: not complete, valid JSON"):
        _open(root / "frames")


@pytest.mark.parametrize("task", list(SOUND))
def test_sound_records_of_every_task(root: Path, task: str) -> None:
    _write(root, {**SOUND[task], "task": task})
    (sample,) = _open(root / "frames", task)
    assert (sample.task, sample.restricted) == (task, False)
    assert sample.meta["subject"]


def test_a_record_without_task_needs_the_option(root: Path) -> None:
    _write(root, SOUND["VQA"])
    with pytest.raises(UserError, match="line 1: the key 'task' is missing; it, or the option task, must say"):
        _open(root / "frames")
    assert len(_open(root / "frames", task="VQA")) == 1
