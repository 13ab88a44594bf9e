import shutil
from pathlib import Path

import pandas as pd
import pytest

from unimed_model.data import load_dataset
from unimed_model.errors import UserError

FIXTURE = Path(__file__).parents[3] / "fixtures" / "mpx"
UNUSED = "empty cell in an unused column"
WORDS = 'cell such as "None" read as empty'


def _rewrite(root: Path, text: str) -> None:
    (root / "MedPix_single_train.csv").write_text(text, encoding="utf-8")


def test_captions_are_kept_and_the_rest_is_counted(mpx_root: Path) -> None:
    samples = load_dataset("mpx_single", mpx_root)
    assert [sample.answer for sample in samples] == [
        'A grey square.\nIt has a "frame".',
        "A white square, no frame",
    ]
    # "None" is empty to pandas, and so it is to those who read this file with pandas.
    assert samples.skipped == {"empty cell": 2}
    assert samples[0].instruction == "Describe this input image."
    assert samples[1].image_id == "synpic2.jpg"
    assert samples[1].image is not None


def test_dropping_rows_with_any_empty_cell(mpx_root: Path) -> None:
    assert len(load_dataset("mpx_single", mpx_root, split="test")) == 2
    assert len(load_dataset("mpx_single", mpx_root, split="test", dropna="all")) == 1


def test_the_fixture_as_the_archives_unpack() -> None:
    samples = load_dataset("mpx_single", FIXTURE)
    frame = 'A grey square.\nIt has a "frame".'
    assert [sample.answer for sample in samples] == [frame, "A white square, no frame", frame]
    assert samples.skipped == {"empty cell": 2}
    assert samples.findings[WORDS].count == 1
    assert samples.findings[WORDS].first.endswith("MedPix_single_train.csv, row 4")
    assert samples.findings["duplicate"].first.endswith("MedPix_single_train.csv, row 6")
    assert UNUSED not in samples.findings
    assert samples[0].image is not None


@pytest.mark.parametrize("dropna", ["used", "all"])
@pytest.mark.parametrize("keep_default_na", [True, False])
def test_both_choices_about_empty_cells_are_counted_as_pandas_counts(dropna: str, keep_default_na: bool) -> None:
    path = FIXTURE / "data_csv" / "MedPix_single_test.csv"
    # With the words kept as text, an empty cell is still empty.
    table = pd.read_csv(path, keep_default_na=keep_default_na, na_values=[""])
    captions = table[table["type"].str.strip().str.lower() == "caption"]
    used, every = captions.dropna(subset=["name", "context", "type"]), captions.dropna()
    options = {"dropna": dropna, "keep_default_na": keep_default_na}
    samples = load_dataset("mpx_single", FIXTURE, split="test", images=False, **options)
    assert len(samples) == len(used if dropna == "used" else every)
    assert samples.findings[UNUSED].count == len(used) - len(every)
    assert samples.findings[UNUSED].left_out == (dropna == "all")
    assert (WORDS in samples.findings) == keep_default_na


@pytest.mark.parametrize("level", [".", "data_csv", "RadFM_data_csv"])
@pytest.mark.parametrize(
    "images",
    ["images", "MedPix-Images", "images/images", "images/MedPix", "{tables}", "{tables}/images", "unpacked", "."],
)
def test_root_forms(tmp_path: Path, level: str, images: str) -> None:
    pictures = tmp_path / images.format(tables=level)
    for name in ("synpic1.jpg", "synpic2.jpg"):
        pictures.mkdir(parents=True, exist_ok=True)
        shutil.copy(FIXTURE / "MedPix-Images" / "MedPix-Images" / name, pictures)
    (tmp_path / level).mkdir(exist_ok=True)
    shutil.copy(FIXTURE / "data_csv" / "MedPix_single_train.csv", tmp_path / level)
    samples = load_dataset("mpx_single", tmp_path)
    assert [sample.image is not None for sample in samples] == [True] * 3


@pytest.mark.parametrize("folder", ["MedPix-Images", "."])
def test_image_folders(mpx_root: Path, folder: str) -> None:
    target = mpx_root / folder
    target.mkdir(exist_ok=True)
    for path in list((mpx_root / "images").iterdir()):
        path.rename(target / path.name)
    assert load_dataset("mpx_single", mpx_root)[0].image is not None


def test_missing_images(mpx_root: Path) -> None:
    (mpx_root / "images" / "synpic2.jpg").unlink()
    with pytest.raises(UserError, match=r"1 image file is missing \(.*synpic2\.jpg\)"):
        load_dataset("mpx_single", mpx_root)
    assert len(load_dataset("mpx_single", mpx_root, images=False)) == 2
    assert load_dataset("mpx_single", mpx_root, missing_images="skip").skipped["missing image"] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,text,type\na.jpg,b,caption\n", "lacks the column 'context'"),
        ("", "is not a complete, valid CSV file"),
        ('name,context,type\na.jpg,"it breaks off', "line 2: 2 cells where the header has 3"),
        ('name,context,type\na.jpg,b,"it breaks off', "is not a complete, valid CSV file"),
        ("name,context,type\na.jpg,b,caption\nb.jpg,it bre", "line 3: 2 cells where the header has 3"),
        ("name,context,type\n../a.jpg,b,caption\n", "row 0: the file name '../a.jpg' leaves the data folder"),
    ],
)
def test_damaged_files(mpx_root: Path, text: str, message: str) -> None:
    _rewrite(mpx_root, text)
    with pytest.raises(UserError, match=message) as caught:
        load_dataset("mpx_single", mpx_root)
    assert "MedPix_single_train.csv" in str(caught.value)


def test_a_file_that_is_not_text(mpx_root: Path) -> None:
    (mpx_root / "MedPix_single_train.csv").write_bytes(b"name,context,type\na.jpg,\xff\xfe,caption\n")
    with pytest.raises(UserError, match="is not a complete, valid CSV file"):
        load_dataset("mpx_single", mpx_root)


def test_an_absent_split_is_named(mpx_root: Path) -> None:
    (mpx_root / "MedPix_single_test.csv").unlink()
    with pytest.raises(UserError, match=r"MedPix_single_test\.csv is missing"):
        load_dataset("mpx_single", mpx_root, split="test")
    assert len(load_dataset("mpx_single", mpx_root)) == 2


def test_captions_declared_under_another_name_are_not_the_published_ones(tmp_path: Path) -> None:
    shutil.copytree(FIXTURE / "data_csv", tmp_path / "own")
    assert len(load_dataset("mpx_single", tmp_path, images=False)) == 3
    (tmp_path / "datasets.yaml").write_text("- {name: own_captions, layout: mpx_single, root: own}\n")
    assert len(load_dataset("own_captions", tmp_path, images=False)) == 3
    with pytest.raises(UserError, match="does not hold mpx_single"):
        load_dataset("mpx_single", tmp_path, images=False)
