from pathlib import Path

import pytest

from unimed_model.data import load_dataset
from unimed_model.errors import UserError


def _rewrite(root: Path, text: str) -> None:
    (root / "MedPix_single_train.csv").write_text(text, encoding="utf-8")


def test_captions_are_kept_and_the_rest_is_counted(mpx_root: Path) -> None:
    samples = load_dataset("mpx_single", mpx_root)
    assert [sample.answer for sample in samples] == [
        'A grey square.\nIt has a "frame".',
        "A white square, no frame",
    ]
    # "None" is empty to pandas, and so it is to those who read this file with pandas.
    assert samples.skipped == {"empty cell": 2, "not a caption": 2}
    assert samples[0].instruction == "Describe this input image."
    assert samples[1].image_id == "synpic2.jpg"
    assert samples[1].image is not None


def test_dropping_rows_with_any_empty_cell(mpx_root: Path) -> None:
    assert len(load_dataset("mpx_single", mpx_root, split="test")) == 2
    assert len(load_dataset("mpx_single", mpx_root, split="test", dropna="all")) == 1


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
        ('name,context,type\na.jpg,"it breaks off', "is not a complete, valid CSV file"),
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
