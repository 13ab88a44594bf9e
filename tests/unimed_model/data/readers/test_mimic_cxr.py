import csv
import gzip
import json
import random
import shutil
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unimed_model.data import load_dataset
from unimed_model.data.readers.mimic_cxr.sections import sections
from unimed_model.data.sources import DatasetSource, open_source
from unimed_model.errors import AbsentError, UserError

FIXTURE = Path(__file__).parents[3] / "fixtures" / "mimic_cxr"
CANARY = "zebrafish"
SOURCES = ("r2gen", "radfm", "official")


@pytest.fixture
def root(tmp_path: Path) -> Callable[[str], Path]:
    def copy(source: str) -> Path:
        target = tmp_path / source
        shutil.copytree(FIXTURE / source, target)
        return target

    return copy


def _dicom(number: int) -> str:
    return "-".join(f"{number * 7 + group:08x}" for group in range(5))


def _ids(*args: Any, **options: Any) -> list[str]:
    return [sample.sample_id for sample in load_dataset("mimic_cxr", *args, **options)]


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_says_which_it_is_and_is_restricted(source: str) -> None:
    samples = load_dataset("mimic_cxr", FIXTURE / source)
    assert {sample.meta["source"] for sample in samples} == {source}
    assert all(sample.restricted and sample.task == "RG" for sample in samples)
    first = samples[0]
    assert (first.sample_id, first.image_id, first.patient_id) == (_dicom(1), _dicom(1), "19999991")
    assert first.meta["study_id"] == 99999911
    assert first.instruction == "Describe the given chest x-ray image in detail."
    assert first.image is not None
    assert (first.image.mode, first.image.size) == ("RGB", (21, 16))


def test_r2gen_keeps_the_text_and_makes_a_sample_of_each_view() -> None:
    samples = load_dataset("mimic_cxr", FIXTURE / "r2gen")
    text = "there is a zebrafish .\nthe frame is striped ."
    assert [sample.answer for sample in samples] == [text, text, "no zebrafish ."]
    assert samples.skipped == {"empty answer": 1}
    assert _ids(FIXTURE / "r2gen", split="test") == [_dicom(5)]
    assert _ids(FIXTURE / "r2gen", split="val", missing_images="skip") == [_dicom(4)]


def test_radfm_paths_lose_the_authors_folder_and_empty_cells_are_counted() -> None:
    samples = load_dataset("mimic_cxr", FIXTURE / "radfm")
    assert [sample.answer for sample in samples] == [
        "Findings: A zebrafish,\nstriped. Impression: No acute stripes.",
        "Impression: No acute zebrafish.",
        "Findings: Two zebrafish.",
    ]
    assert [sample.sample_id for sample in samples] == [_dicom(1), _dicom(2), _dicom(3)]
    assert samples.skipped == {"empty answer": 2, "empty cell": 1}
    assert samples.findings['cell such as "None" read as empty'].count == 1
    assert samples.findings["empty answer"].first.endswith("mimic_caption_train.csv, row 3")


def test_official_reports_are_parsed_and_unfit_studies_counted() -> None:
    samples = load_dataset("mimic_cxr", FIXTURE / "official")
    both = (
        "Findings: There is a small zebrafish in the left lower corner, unchanged since ___. The frame is striped at "
        "5:14 A.M., and the remaining square is clear. Impression: No acute stripes. 2. Known zebrafish as of ___."
    )
    assert [sample.answer for sample in samples] == [both, both]
    assert [sample.meta["ViewPosition"] for sample in samples] == ["PA", "LATERAL"]
    assert (samples[1].meta["Rows"], samples[1].meta["Columns"]) == (16, 22)
    assert samples.skipped == {"no findings section": 1, "findings over 800 characters": 1, "missing report": 1}
    longer = load_dataset("mimic_cxr", FIXTURE / "official", longest_findings=None)
    assert [sample.patient_id for sample in longer] == ["19999991", "19999991", "19999993"]
    (val,) = load_dataset("mimic_cxr", FIXTURE / "official", split="val", missing_images="skip")
    assert val.answer == "Findings: One zebrafish, two squares."


def _unpack_reports(root: Path) -> None:
    with zipfile.ZipFile(root / "mimic-cxr-reports.zip") as archive:
        archive.extractall(root)
    (root / "mimic-cxr-reports.zip").unlink()


def _section_table(root: Path) -> None:
    with zipfile.ZipFile(root / "mimic-cxr-reports.zip") as archive:
        texts = {Path(name).stem: sections(archive.read(name).decode()) for name in archive.namelist()}
    (root / "mimic-cxr-reports.zip").unlink()
    with (root / "mimic_cxr_sectioned.csv").open("w", newline="", encoding="utf-8") as file:
        rows = [[study, text.impression, text.findings, "", ""] for study, text in texts.items()]
        csv.writer(file).writerows([["study", "impression", "findings", "last_paragraph", "comparison"], *rows])


def _unzip_tables(root: Path) -> None:
    for path in list(root.glob("*.csv.gz")):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()


def _folder_around_the_reports(root: Path) -> None:
    path = root / "mimic-cxr-reports.zip"
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(f"mimic-cxr-reports/{name}", content)


@pytest.mark.parametrize(
    "change", [_unpack_reports, _section_table, _unzip_tables, _folder_around_the_reports], ids=lambda f: f.__name__
)
def test_official_files_may_be_unpacked_or_sectioned(
    root: Callable[[str], Path], change: Callable[[Path], None]
) -> None:
    folder = root("official")
    expected = {split: list(_answers(folder, split)) for split in ("train", "val", "test")}
    change(folder)
    assert {split: list(_answers(folder, split)) for split in expected} == expected


def _answers(folder: Path, split: str) -> list[tuple[str, str]]:
    samples = load_dataset("mimic_cxr", folder, split=split, missing_images="skip")
    return [(sample.sample_id, sample.answer) for sample in samples]


@pytest.mark.parametrize(
    "level",
    [
        "MIMIC-CXR-JPG/2.0.0",
        "MIMIC-CXR-JPG/2.1.0",
        "physionet.org/files/mimic-cxr-jpg/2.1.0",
        "mimic-cxr-jpg-chest-radiographs-with-structured-labels-2.1.0",
    ],
)
@pytest.mark.parametrize("source", ["r2gen", "official"])
def test_root_forms(tmp_path: Path, source: str, level: str) -> None:
    target = tmp_path / "mimic_cxr" / level
    shutil.copytree(FIXTURE / source, target)
    expected = _ids(FIXTURE / source)
    assert _ids(tmp_path) == _ids(tmp_path / "mimic_cxr") == _ids(target) == expected
    for path in target.iterdir():  # annotations stay where they are, and the images one level deeper
        if path.name != "files":
            path.rename(tmp_path / "mimic_cxr" / path.name)
    assert _ids(tmp_path) == expected


def test_reports_and_pictures_may_lie_in_two_downloads(tmp_path: Path) -> None:
    base = tmp_path / "physionet.org" / "files"
    shutil.copytree(FIXTURE / "official", base / "mimic-cxr-jpg" / "2.1.0")
    reports = base / "mimic-cxr" / "2.0.0"
    reports.mkdir(parents=True)
    with zipfile.ZipFile(base / "mimic-cxr-jpg" / "2.1.0" / "mimic-cxr-reports.zip") as archive:
        archive.extractall(reports)
    (base / "mimic-cxr-jpg" / "2.1.0" / "mimic-cxr-reports.zip").unlink()
    samples = load_dataset("mimic_cxr", tmp_path)
    assert [sample.sample_id for sample in samples] == _ids(FIXTURE / "official")
    assert samples[0].image is not None


@pytest.mark.parametrize("level", ["images", "."])
def test_r2gens_own_image_folders(root: Callable[[str], Path], level: str) -> None:
    folder = root("r2gen")
    (folder / "images").mkdir()
    for path in list((folder / "files").iterdir()):
        path.rename(folder / level / path.name)
    assert load_dataset("mimic_cxr", folder)[0].image is not None


def test_the_first_source_present_is_taken_and_any_can_be_asked_for(tmp_path: Path) -> None:
    for source in reversed(SOURCES):
        shutil.copytree(FIXTURE / source, tmp_path, dirs_exist_ok=True)
        assert load_dataset("mimic_cxr", tmp_path)[0].meta["source"] == source
    for source in SOURCES:
        assert load_dataset("mimic_cxr", tmp_path, source=source)[0].meta["source"] == source


def test_what_is_absent_is_named(root: Callable[[str], Path]) -> None:
    with pytest.raises(AbsentError, match="no split 'val'; they have train, test"):
        load_dataset("mimic_cxr", root("radfm"), split="val")
    folder = root("r2gen")
    content = json.loads((folder / "annotation.json").read_text())
    (folder / "annotation_small.json").write_text(json.dumps({"train": content["train"][:1]}))
    (folder / "annotation.json").unlink()
    assert _ids(folder) == [_dicom(1)]
    with pytest.raises(AbsentError, match=r"holds no annotation\.json, which the split 'test' needs"):
        load_dataset("mimic_cxr", folder, split="test")
    with pytest.raises(UserError, match="does not hold mimic_cxr"):
        load_dataset("mimic_cxr", folder / "files")
    pictures_alone = root("official")
    (pictures_alone / "mimic-cxr-reports.zip").unlink()
    with pytest.raises(UserError, match="does not hold mimic_cxr"):
        load_dataset("mimic_cxr", pictures_alone)


def test_annotations_alone_need_no_image(root: Callable[[str], Path]) -> None:
    for source in SOURCES:
        folder = root(source)
        for path in list(folder.rglob("*.jpg")):
            path.unlink()
        assert len(load_dataset("mimic_cxr", folder, images=False)) > 0
        with pytest.raises(UserError, match=r"image files are missing \(.*p19/p19999991/s99999911"):
            load_dataset("mimic_cxr", folder)


def _many(folder: Path, count: int, order: random.Random | None = None) -> Path:
    """An annotation with three times as many images in group p11 as in p10, of patients that do not exist."""
    records = [
        {
            "image_path": [f"p{10 + (i % 4 > 0)}/p{10 + (i % 4 > 0)}000001/s{90000000 + i}/{_dicom(i)}.jpg"],
            "report": f"report {i}",
        }
        for i in range(count)
    ]
    if order:
        order.shuffle(records)
    test = [{"image_path": [f"p10/p10000002/s80000000/{_dicom(10000 + i)}.jpg"], "report": "r"} for i in range(7)]
    folder.mkdir(exist_ok=True)
    (folder / "annotation.json").write_text(json.dumps({"train": records, "val": [], "test": test}))
    return folder


def test_the_training_selection_is_stratified_seeded_and_blind_to_file_order(tmp_path: Path) -> None:
    folder = _many(tmp_path / "one", 400)
    samples = load_dataset("mimic_cxr", folder, images=False, selection=100)
    groups = Counter(str(sample.image_source.path.relative_to(folder / "files").parts[0]) for sample in samples)  # type: ignore[union-attr]
    assert groups == {"p10": 25, "p11": 75}
    shuffled = _many(tmp_path / "two", 400, random.Random(1))
    drawn = {sample.sample_id for sample in samples}
    assert set(_ids(shuffled, images=False, selection=100)) == drawn
    other_seed = set(_ids(folder, images=False, selection=100, seed=1))
    assert len(other_seed) == 100
    assert other_seed != drawn
    assert len(_ids(folder, images=False)) == len(_ids(folder, images=False, selection=None)) == 400
    assert len(_ids(folder, images=False, selection=5, split="test")) == 7


def test_the_published_selection_is_taken_as_it_stands(root: Callable[[str], Path]) -> None:
    folder = root("r2gen")
    content = json.loads((folder / "annotation.json").read_text())
    small = [content["train"][3], content["train"][0]]
    (folder / "annotation_small.json").write_text(json.dumps({"train": small}))
    assert _ids(folder, selection=1) == [_dicom(7), _dicom(1)]
    assert _ids(folder, split="test") == [_dicom(5)]


@pytest.mark.parametrize("source", ["r2gen", "official"])
def test_lists_in_the_root_go_before_everything(root: Callable[[str], Path], source: str) -> None:
    folder = root(source)
    (folder / "train.txt").write_text(f"{_dicom(5)}\n{_dicom(99)}")
    (folder / "test.txt").write_text(_dicom(2))
    samples = load_dataset("mimic_cxr", folder, selection=1)
    assert [sample.sample_id for sample in samples] == [_dicom(5)]
    assert samples.findings["listed, but without record"].count == 1
    assert _dicom(99) in samples.findings["listed, but without record"].first
    assert samples.skipped == {}
    assert _ids(folder, split="test") == [_dicom(2)]
    assert _ids(folder, split="val", images=False, missing_images="skip")[:1] == [_dicom(4)]


def test_an_earlier_preparation_is_kept_to_unless_the_selection_is_published(tmp_path: Path) -> None:
    folder = _many(tmp_path / "one", 40)
    source = DatasetSource("mimic_cxr", "mimic_cxr", "RG", folder)
    lists = {"train": frozenset([_dicom(3), _dicom(8)]), "test": frozenset([_dicom(1)])}
    kept = open_source(source, images=False, lists=lists, selection=20)
    assert [sample.image_id for sample in kept] == [_dicom(3), _dicom(8)]
    content = json.loads((folder / "annotation.json").read_text())
    (folder / "annotation_small.json").write_text(json.dumps({"train": content["train"][:5]}))
    assert len(open_source(source, images=False, lists=lists)) == 5


def test_repeated_records_are_kept_and_noted(root: Callable[[str], Path]) -> None:
    folder = root("r2gen")
    content = json.loads((folder / "annotation.json").read_text())
    content["test"].append(content["test"][0])
    (folder / "annotation.json").write_text(json.dumps(content))
    samples = load_dataset("mimic_cxr", folder, split="test")
    assert [sample.sample_id for sample in samples] == [_dicom(5), f"{_dicom(5)}-2"]
    assert samples.findings["duplicate"].first.endswith("test, record 1")
    assert samples.skipped == {}


@pytest.mark.parametrize("name", ["/etc/passwd", "../../secret.jpg", "/x/files/../../secret.jpg", "C:\\secret.jpg"])
def test_paths_that_leave_the_root_are_refused(root: Callable[[str], Path], name: str) -> None:
    folder = root("radfm")
    path = folder / "data_csv" / "mimic_caption_train.csv"
    path.write_text(f'image_path,label\n"{name}",Findings: A {CANARY}.\n')
    with pytest.raises(UserError, match=r"mimic_caption_train\.csv, row 0: the file name .* leaves the data folder"):
        load_dataset("mimic_cxr", folder)


R2GEN_DAMAGE: list[tuple[Any, str]] = [
    (
        {"train": [{"image_path": ["p19/a.jpg"], "report": [CANARY]}]},
        "train, record 0: 'report' must be a text, not list",
    ),
    (
        {"train": [{"image_path": f"{CANARY}.jpg", "report": CANARY}]},
        "record 0: 'image_path' must be a list of one path",
    ),
    ({"train": [{"image_path": ["a.jpg"], "text": CANARY}]}, "record 0: the key 'report' is missing"),
    ({"train": [CANARY]}, "record 0: an object is needed, not str"),
    ({"train": CANARY}, "holds no list 'train'"),
    ([CANARY], "must hold an object of lists of records"),
]


@pytest.mark.parametrize(("content", "message"), R2GEN_DAMAGE, ids=[message for _, message in R2GEN_DAMAGE])
def test_damaged_annotations_are_named_without_their_text(
    root: Callable[[str], Path], content: Any, message: str
) -> None:
    folder = root("r2gen")
    (folder / "annotation.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=message) as caught:
        load_dataset("mimic_cxr", folder)
    assert CANARY not in str(caught.value)
    assert "annotation.json" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("train", f"image_path,report\na.jpg,{CANARY}\n", "lacks the column 'label'"),
        ("train", f"image_path,label\na.jpg,{CANARY},{CANARY}\n", "line 2: 3 cells where the header has 2"),
        ("train", f'image_path,label\na.jpg,"{CANARY}\n', "is not a complete, valid CSV file"),
        ("train", "", "is not a complete, valid CSV file"),
    ],
)
def test_damaged_tables_are_named_without_their_text(
    root: Callable[[str], Path], name: str, text: str, message: str
) -> None:
    folder = root("radfm")
    (folder / "data_csv" / f"mimic_caption_{name}.csv").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load_dataset("mimic_cxr", folder)
    assert CANARY not in str(caught.value)


def test_damaged_official_files_are_named(root: Callable[[str], Path]) -> None:
    for name in ("mimic-cxr-2.0.0-split.csv.gz", "mimic-cxr-2.0.0-metadata.csv.gz", "mimic-cxr-reports.zip"):
        folder = root("official")
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(UserError, match=rf"{name} is not a complete") as caught:
            load_dataset("mimic_cxr", folder)
        assert CANARY not in str(caught.value)
        shutil.rmtree(folder)
    folder = root("official")
    table = "dicom_id,study_id,subject_id,split\na,1,2,valid\n"
    (folder / "mimic-cxr-2.0.0-split.csv.gz").write_bytes(gzip.compress(table.encode()))
    with pytest.raises(UserError, match="one of the splits train, validate, test"):
        load_dataset("mimic_cxr", folder)
    (folder / "mimic-cxr-2.0.0-split.csv.gz").write_bytes(gzip.compress(table.replace("1", CANARY).encode()))
    with pytest.raises(UserError, match="a cell is not of its column's type") as caught:
        load_dataset("mimic_cxr", folder)
    assert CANARY not in str(caught.value)


def test_no_report_gets_into_findings_or_into_errors_of_missing_images(root: Callable[[str], Path]) -> None:
    for source in SOURCES:
        folder = root(source)
        for split in ("train", "test"):
            samples = load_dataset("mimic_cxr", folder, split=split, missing_images="skip")
            assert CANARY not in repr(dict(samples.findings)) + repr(samples)
        for path in list(folder.rglob("*.jpg")):
            path.unlink()
        with pytest.raises(UserError) as caught:
            load_dataset("mimic_cxr", folder)
        assert CANARY not in "".join(traceback.format_exception(caught.value))
