"""SA-Med2D in its three forms, on fixtures whose boxes are known in closed form."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from unimed_model.data import Samples, load_dataset
from unimed_model.data.files import noting
from unimed_model.errors import UserError

FIXTURES = Path(__file__).parents[3] / "fixtures"

DOTS = "ct_00--DEMOSET--pat.1.2.840--z_0007"
DASHES = "ct_00--DEMOSET--pat--two--z_0011"
PNG = "ct_00--DEMOSET--pat.3.png--x_0001"
FIRST_MR = "mr_t1--OTHERSET--scan_01--x_0003"
SECOND_MR = "mr_flair--OTHERSET--scan-02--y_0005"

BOXES = {
    f"{DOTS}--0000_000": ("liver", (10, 10, 50, 60)),
    f"{DOTS}--0002_000": ("left kidney", (55, 15, 65, 35)),
    f"{DOTS}--0002_001": ("left kidney", (75, 50, 100, 100)),
    f"{DASHES}--0000_000": ("liver", (10, 10, 40, 50)),
    f"{PNG}--0002_000": ("left kidney", (0, 0, 50, 50)),
    f"{PNG}--0004_000": ("Spleen", (25, 25, 29, 31)),  # one pixel of 24 x 16
    f"{FIRST_MR}--0001_000": ("liver", (25, 0, 50, 50)),
    f"{SECOND_MR}--0001_000": ("liver", (50, 50, 100, 100)),
}
"""Every usable mask of the fixture -> what it is called, and its box."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FIXTURES / "sa_med2d", tmp_path / "sa_med2d"))


def _both(name: str, root: Path, **options: Any) -> tuple[dict[str, Any], dict[str, int]]:
    """Samples of both splits by id, and what was found wrong in either."""
    samples: dict[str, Any] = {}
    found: dict[str, int] = {}
    for split in ("train", "test"):
        part = load_dataset(name, root, split=split, **options)
        samples |= {sample.sample_id: sample for sample in part}
        for kind, finding in part.findings.items():
            found[kind] = found.get(kind, 0) + finding.count
    return samples, found


def _edit(root: Path, change: Any) -> None:
    path = root / "SAMed2Dv1" / "SAMed2D_v1.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(change(content) or content))


def test_every_usable_mask_is_a_region_to_identify(root: Path) -> None:
    samples, found = _both("sa_med2d_reg", root)
    assert {key: (sample.answer, sample.boxes[0]) for key, sample in samples.items()} == BOXES
    assert found == {
        "unusable label": 3,  # compound, unknown to the mapping, generic
        "mask of another shape": 1,
        "empty mask": 1,
    }


def test_a_name_that_occurs_twice_in_an_image_is_ambiguous_to_refer_to_only(root: Path) -> None:
    samples, found = _both("sa_med2d_rec", root)
    assert set(BOXES) - set(samples) == {f"{DOTS}--0002_000", f"{DOTS}--0002_001"}
    assert found["several objects of one name"] == 2
    assert set(_both("sa_med2d_rec", root, instances="each")[0]) == set(BOXES)


@pytest.mark.parametrize("name", ["sa_med2d_rec", "sa_med2d_reg"])
def test_instances_merge_over_their_masks(root: Path, name: str) -> None:
    samples, found = _both(name, root, instances="merge")
    merged = samples[f"{DOTS}--0002_000"]
    assert (merged.boxes, merged.meta["box_pixels"]) == (((55, 15, 100, 100),), (22, 3, 18, 17))
    assert merged.meta["masks"] == tuple(f"masks/{DOTS}--0002_00{i}.png" for i in (0, 1))
    assert f"{DOTS}--0002_001" not in samples
    assert found["several objects of one name"] == 2


def test_what_a_sample_tells(root: Path) -> None:
    sample = _both("sa_med2d_rec", root)[0][f"{PNG}--0002_000"]
    assert (sample.instruction, sample.answer) == ("Give me the location of left kidney.", "<0><0><50><50>")
    assert (sample.image_id, sample.patient_id, sample.task) == (PNG, "DEMOSET--pat.3.png", "REC")
    assert sample.image.size == sample.meta["image_size"] == (24, 16)
    told = {key: sample.meta[key] for key in ("label", "mask", "modality", "source", "slice", "object")}
    assert told == {
        "label": "kidney_left",
        "mask": f"masks/{PNG}--0002_000.png",
        "modality": "ct_00",
        "source": "DEMOSET",
        "slice": "x_0001",
        "object": "left kidney",
    }


def test_options_of_boxes_and_labels(root: Path) -> None:
    exclusive = _both("sa_med2d_reg", root, inclusive=False)
    assert exclusive[0][f"{DOTS}--0000_000"].meta["box_pixels"] == (4, 2, 15, 9)
    assert exclusive[1]["empty box"] == 1  # one pixel
    nearest = _both("sa_med2d_reg", root, rounding="nearest")[0]
    assert nearest[f"{PNG}--0004_000"].boxes == ((25, 25, 29, 31),)
    everything, found = _both("sa_med2d_reg", root, labels="all")
    added = {sample.answer for key, sample in everything.items() if key not in BOXES}
    assert added == {"union liver kidney", "class2"}
    assert found["unusable label"] == 1


def test_without_images_regions_are_counted_by_name(root: Path) -> None:
    shutil.rmtree(root / "SAMed2Dv1" / "images")
    shutil.rmtree(root / "SAMed2Dv1" / "masks")
    samples, found = _both("sa_med2d_reg", root, images=False)
    unopened = {f"{FIRST_MR}--0000_000", f"{SECOND_MR}--0000_000"}
    assert set(samples) == set(BOXES) | unopened
    assert {(sample.boxes, sample.instruction) for sample in samples.values()} == {((), "")}
    assert found == {"unusable label": 3}


def test_forms_of_the_root(root: Path) -> None:
    expected = list(load_dataset("sa_med2d_rec", root))
    inner = root / "SAMed2Dv1"
    assert [sample.boxes for sample in load_dataset("sa_med2d_rec", inner)] == [sample.boxes for sample in expected]
    assert len(load_dataset("sa_med2d_rec", root.parent)) == len(expected)
    inner.rename(root / "another name")
    assert len(load_dataset("sa_med2d_rec", root)) == len(expected)


def test_missing_images_are_an_error_or_counted(root: Path) -> None:
    (root / "SAMed2Dv1" / "images" / f"{DOTS}.png").unlink()
    with pytest.raises(UserError, match=r"sa_med2d_reg: 1 image file is missing \(.*pat\.1\.2\.840"):
        _both("sa_med2d_reg", root)
    samples, found = _both("sa_med2d_reg", root, missing_images="skip")
    assert (len(samples), found["missing image"]) == (len(BOXES) - 3, 3)


def test_missing_and_unreadable_masks_are_counted(root: Path) -> None:
    masks = root / "SAMed2Dv1" / "masks"
    (masks / f"{DOTS}--0000_000.png").unlink()
    (masks / f"{DASHES}--0000_000.png").write_bytes(b"nothing")
    samples, found = _both("sa_med2d_rec", root)
    assert not {f"{DOTS}--0000_000", f"{DASHES}--0000_000"} & set(samples)
    assert (found["missing mask"], found["unreadable mask"]) == (1, 1)


@pytest.mark.parametrize("name", ["../{}", "/tmp/{}", "images/../../{}", "C:\\{}", "images\\..\\..\\{}"])
@pytest.mark.parametrize("which", ["image", "mask"])
def test_a_name_that_leaves_the_root_is_refused(root: Path, name: str, which: str) -> None:
    image = f"{DOTS}.png" if which == "mask" else name.format(f"{DOTS}.png")
    mask = f"{DOTS}--0000_000.png" if which == "image" else name.format(f"{DOTS}--0000_000.png")
    _edit(root, lambda _: {image: [mask]})
    with pytest.raises(UserError, match=r"leaves the data folder and is refused"):
        load_dataset("sa_med2d_rec", root, images=False)


def test_damaged_files_are_named(root: Path) -> None:
    path = root / "SAMed2Dv1" / "SAMed2D_v1.json"
    content = path.read_text()
    for damaged in (content[:-40], content[: len(content) // 2], content + "}", "", "[]", '{"a": '):
        path.write_text(damaged, encoding="utf-8")
        with pytest.raises(UserError, match=r"SAMed2D_v1\.json .*download it again") as caught:
            load_dataset("sa_med2d_rec", root, images=False)
        assert "\n" not in str(caught.value)
    # 4,301 digits end the process where the parser makes a number of them
    for hostile in ('{"a":' + "9" * 4301 + "}", '{"a":' * 50_000):
        path.write_text(hostile)
        with pytest.raises(UserError, match=r"a list of mask files|integer overflow"):
            load_dataset("sa_med2d_rec", root, images=False)
    path.write_bytes(content.encode().replace(b"scan_01", b"sc\xffn_01"))
    with pytest.raises(UserError, match=r"SAMed2D_v1\.json is not complete, valid JSON"):
        load_dataset("sa_med2d_rec", root, images=False)
    for wrong in ({"images/ct_00--A--b--x_1.png": "masks/a.png"}, {"images/ct_00--A--b--x_1.png": [1]}):
        path.write_text(json.dumps(wrong))
        with pytest.raises(UserError, match=r"'images/ct_00--A--b--x_1\.png' must be followed by a list"):
            load_dataset("sa_med2d_rec", root, images=False)
    (path.parent / "SAMed2D_v1_class_mapping_id.json").unlink()
    with pytest.raises(UserError, match=r"SAMed2D_v1_class_mapping_id\.json is missing"):
        load_dataset("sa_med2d_rec", root, images=False)


def test_names_of_another_form_and_repeated_masks_are_counted(root: Path) -> None:
    def change(content: dict[str, list[str]]) -> None:
        content["images/ct_00--DEMOSET.png"] = ["masks/a.png", "masks/b.png"]
        content[f"images/{DOTS}.png"] += [f"masks/{DASHES}--0000_000.png", f"masks/{DOTS}--0000_000.png"]

    _edit(root, change)
    samples, found = _both("sa_med2d_reg", root)
    assert set(samples) == set(BOXES)
    assert found["unusable name"] == 1 + 2 * 2  # names without a case are said of each split


def test_known_bad_sources_are_left_out(root: Path) -> None:
    bad = {
        "images/mr_t1--Brain_PTM--a--x_1.png": ["masks/mr_t1--Brain_PTM--a--x_1--0000_000.png"],
        "images/mr_cmr--ACDC--a--x_1.png": ["masks/mr_cmr--ACDC--a--x_1--0003_000.png"],
    }
    _edit(root, lambda content: content | bad)
    samples, found = _both("sa_med2d_reg", root, images=False, labels="all")
    assert not {sample.image_id for sample in samples.values()} & {"mr_t1--Brain_PTM--a--x_1", "mr_cmr--ACDC--a--x_1"}
    assert (found["unusable image"], found["unusable label"]) == (1, 2)


def test_the_files_that_a_reading_depends_on_are_noted(root: Path) -> None:
    with noting() as noted:
        load_dataset("sa_med2d_rec", root)
    folder = root / "SAMed2Dv1"
    masks = {path for path in noted if path.parent == folder / "masks"}
    assert noted - masks == {root, folder, folder / "SAMed2D_v1.json", folder / "SAMed2D_v1_class_mapping_id.json"}
    opened = {sample.meta["mask"] for sample in load_dataset("sa_med2d_rec", root)}
    assert opened <= {f"masks/{path.name}" for path in masks}


def test_other_splits_and_languages(root: Path) -> None:
    with pytest.raises(UserError, match="has no split 'val'; it has train, test"):
        load_dataset("sa_med2d_rec", root, split="val")
    with pytest.raises(UserError, match="in English only"):
        load_dataset("sa_med2d_rec", root, language="zh")


# --- as Uni-Med prepared it


def _described(samples: Samples) -> list[tuple[str, str, tuple[int, ...]]]:
    return [(sample.sample_id, sample.meta["object"], sample.boxes[0]) for sample in samples]


def test_unimeds_form_is_read_whole_and_sorted() -> None:
    root = FIXTURES / "sa_med2d_prepared"
    assert _described(load_dataset("sa_med2d_reg", root)) == [
        ("ct/0002-0", "spleen", (0, 0, 100, 100)),
        ("ct/0010-0", "liver", (10, 10, 50, 60)),
        ("ct/0010-1", "left kidney", (55, 15, 65, 35)),
        ("mr/0003-0", "liver", (25, 50, 37, 75)),
        ("mr/0003-1", "liver", (50, 0, 75, 50)),
    ]
    refer = load_dataset("sa_med2d_rec", root)
    assert (len(refer), refer.skipped) == (3, {"several objects of one name": 2})
    assert _described(load_dataset("sa_med2d_rec", root, split="test")) == [("mr/0002-0", "heart", (50, 25, 100, 100))]
    # The same number in both splits is another image.
    assert refer[0].image_id == "images_small_train/ct/0002"


def test_unimeds_form_with_published_names_knows_the_case(tmp_path: Path) -> None:
    for folder in ("images_small_test/ct", "regions_small_test/ct"):
        (tmp_path / folder).mkdir(parents=True)
    Image.new("L", (10, 10)).save(tmp_path / "images_small_test" / "ct" / f"{DOTS}.png")
    path = tmp_path / "regions_small_test" / "ct" / f"{DOTS}.json"
    path.write_text('[{"liver": [1, 2, 3, 4]}]')
    (sample,) = load_dataset("sa_med2d_rec", tmp_path, split="test")
    assert (sample.image_id, sample.patient_id) == (DOTS, "DEMOSET--pat.1.2.840")
    with pytest.raises(UserError, match=r"holds none of SAMed2D_v1\.json, regions_small_train/"):
        load_dataset("sa_med2d_rec", tmp_path)
    path.write_text('[{"liver": [1, 2, 30, 4]}]')
    with pytest.raises(UserError, match=r"1\.2\.840--z_0007\.json, object 'liver': .* leaves the image of 10 x 10"):
        load_dataset("sa_med2d_rec", tmp_path, split="test")


def test_labels_of_unimeds_form_are_spoken_and_judged_as_the_published_ones(tmp_path: Path) -> None:
    for folder in ("images_small_train/ct", "regions_small_train/ct"):
        (tmp_path / folder).mkdir(parents=True)
    Image.new("L", (10, 10)).save(tmp_path / "images_small_train" / "ct" / "7.png")
    labels = ["kidney_left", "union_liver_kidney", "liver", "class_3", "left", "_"]
    path = tmp_path / "regions_small_train" / "ct" / "7.json"
    path.write_text(json.dumps([{label: [0, 0, 5, 5]} for label in labels]))
    usable = load_dataset("sa_med2d_reg", tmp_path)
    assert [(s.sample_id, s.answer, s.meta["label"]) for s in usable] == [
        ("ct/7-0", "left kidney", "kidney_left"),
        ("ct/7-2", "liver", "liver"),
    ]
    assert usable.skipped == {"unusable label": 4}
    assert usable.findings["unusable label"].first == f"{path}, object 'union_liver_kidney'"
    refer = load_dataset("sa_med2d_rec", tmp_path)
    assert refer[0].instruction == "Give me the location of left kidney."
    everything = load_dataset("sa_med2d_reg", tmp_path, labels="all")
    assert [sample.answer for sample in everything] == ["left kidney", "union liver kidney", "liver", "class 3", "left"]
    assert everything.skipped == {"unusable label": 1}


# --- as SAM-Med2D's demonstration names it


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    folder = tmp_path / "sa_med2d"
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for stem in ("toy_0006_90", "toy_0004_75"):
        Image.new("L", (40, 20)).save(folder / "images" / f"{stem}.png")
    spots = {
        "toy_0006_90_rib_left_000": (4, 2, 20, 12),
        "toy_0006_90_left_000": (0, 0, 4, 4),
        "toy_0004_75_hip_right_000": (0, 0, 4, 4),
        "toy_0004_75_hip_right_001": (8, 8, 12, 12),
        "toy_0004_75_tail_000": (20, 10, 40, 20),
    }
    for stem, spot in spots.items():
        mask = Image.new("L", (40, 20))
        mask.paste(1, spot)
        mask.save(folder / "masks" / f"{stem}.png")
    train = [f"data_demo/masks/{stem}.png" for stem in spots if "0006" in stem]
    test = {f"data_demo/masks/{stem}.png": "data_demo/images/toy_0004_75.png" for stem in spots if "0004" in stem}
    (folder / "image2label_train.json").write_text(json.dumps({"data_demo/images/toy_0006_90.png": train}))
    (folder / "label2image_test.json").write_text(json.dumps(test))
    return folder


def test_the_demonstrations_naming(demo: Path) -> None:
    train = load_dataset("sa_med2d_rec", demo)
    assert _described(train) == [("toy_0006_90_rib_left_000", "left rib", (10, 10, 50, 60))]
    assert train.skipped == {"unusable label": 1}
    test = load_dataset("sa_med2d_rec", demo.parent, split="test")
    assert _described(test) == [("toy_0004_75_tail_000", "tail", (50, 50, 100, 100))]
    assert test.skipped == {"several objects of one name": 2}
    assert len(load_dataset("sa_med2d_reg", demo, split="test")) == 3
    shutil.rmtree(demo / "images")
    assert len(load_dataset("sa_med2d_reg", demo, split="test", images=False)) == 3
    with pytest.raises(UserError, match=r"1 image file is missing \(.*images/toy_0004_75\.png\)"):
        load_dataset("sa_med2d_reg", demo, split="test")


def test_a_demonstration_that_is_damaged_or_leaves_the_root(demo: Path) -> None:
    path = demo / "image2label_train.json"
    path.write_text('{"data_demo/images/a.png": ["../../masks/a_b_000.png"]}')
    with pytest.raises(UserError, match=r"image2label_train\.json, .* is refused"):
        load_dataset("sa_med2d_rec", demo, images=False)
    path.write_text('{"data_demo/images/a.png": 3}')
    with pytest.raises(UserError, match=r"must be followed by an image or a list of masks"):
        load_dataset("sa_med2d_rec", demo, images=False)


@pytest.mark.parametrize("which", ["image", "mask"])
def test_a_demonstration_with_a_name_that_no_file_can_have(demo: Path, which: str) -> None:
    long = f"data_demo/images/{'x' * 300}.png"
    mask = f"{long}_rib_000.png" if which == "image" else f"data_demo/masks/toy_0006_90_{'x' * 300}_000.png"
    image = long if which == "image" else "data_demo/images/toy_0006_90.png"
    (demo / "image2label_train.json").write_text(json.dumps({image: [mask]}))
    with pytest.raises(UserError, match=r"image2label_train\.json, .* is longer than any file can have"):
        load_dataset("sa_med2d_rec", demo)


def test_a_label_of_a_demonstration_that_is_no_word_names_nothing(demo: Path) -> None:
    content = {"data_demo/images/toy_0006_90.png": ["data_demo/masks/toy_0006_90____000.png"]}
    (demo / "image2label_train.json").write_text(json.dumps(content))
    samples = load_dataset("sa_med2d_reg", demo, labels="all")
    assert (len(samples), samples.skipped) == (0, {"unusable label": 1})
