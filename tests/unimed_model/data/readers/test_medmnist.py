import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unimed_model.data import load_dataset
from unimed_model.data.sources import DatasetSource, open_source
from unimed_model.errors import UserError

FIXTURE = Path(__file__).parents[3] / "fixtures" / "medmnist"
STRIPES = {"flag": "stripes", "classes": ["thin", "wide", "none"], "prompt": "Which stripes are these"}


def _stripes(root: Path, **options: object) -> DatasetSource:
    return DatasetSource("stripes", "medmnist", "CLS", root, {**STRIPES, **options})


def test_the_fixture_with_every_class() -> None:
    organs = load_dataset("organsmnist", FIXTURE)
    assert [sample.answer for sample in organs] == [
        *("bladder", "left femur", "right femur", "heart", "left kidney", "right kidney", "liver", "left lung"),
        *("right lung", "pancreas", "spleen"),
    ]  # fmt: skip
    assert [np.asarray(sample.image).max() for sample in organs] == [20 * label + 10 for label in range(11)]
    derma = load_dataset("dermamnist", FIXTURE, split="test")
    assert len(derma) == 4
    assert derma[1].image is not None
    assert derma[1].image.size == (224, 224)
    assert derma[1].image.getpixel((0, 0)) == (30, 30, 255)
    with pytest.raises(UserError, match=r"bad\.npz lacks val_labels"):
        open_source(DatasetSource("bad", "medmnist", "CLS", FIXTURE, {**STRIPES, "flag": "bad"}))


def test_the_folder_of_the_medmnist_package(tmp_path: Path) -> None:
    (tmp_path / ".medmnist").mkdir()
    shutil.copy(FIXTURE / "dermamnist.npz", tmp_path / ".medmnist")
    for root in (tmp_path, tmp_path / ".medmnist"):
        assert len(load_dataset("dermamnist", root, split="val")) == 2
    shutil.copy(FIXTURE / "dermamnist_224.npz", tmp_path)
    image = load_dataset("dermamnist", tmp_path)[0].image
    assert image is not None
    assert image.size == (224, 224)


class _Canary:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("canary"),)


@pytest.mark.parametrize("key", ["train_labels", "train_images"])
def test_pickled_objects_are_never_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, medmnist_arrays: Callable[..., dict[str, Any]], key: str
) -> None:
    monkeypatch.chdir(tmp_path)
    arrays = medmnist_arrays()
    arrays[key] = np.array([_Canary()] * 8, dtype=object)
    np.savez_compressed(tmp_path / "stripes.npz", **arrays)
    with pytest.raises(UserError, match=r"stripes\.npz"):
        open_source(_stripes(tmp_path))
    assert not Path("canary").exists()


def test_published_prompts(medmnist_root: Path) -> None:
    assert load_dataset("organsmnist", medmnist_root)[0].instruction == (
        "Which category does this CT image belong to: bladder, left femur, right femur, heart, left kidney, "
        "right kidney, liver, left lung, right lung, pancreas, or spleen?"
    )
    assert load_dataset("dermamnist", medmnist_root)[0].instruction == (
        "Which category does this multi-source dermatoscopic image of common pigmented skin lesions belong "
        "to: actinic keratoses and intraepithelial carcinoma, basal cell carcinoma, benign keratosis-like "
        "lesions, dermatofibroma, melanoma, melanocytic nevi, or vascular lesions?"
    )


def test_splits_and_answers(medmnist_root: Path) -> None:
    counts = [len(load_dataset("organsmnist", medmnist_root, split=s)) for s in ("train", "val", "test")]
    assert counts == [8, 2, 4]
    answers = [sample.answer for sample in load_dataset("organsmnist", medmnist_root)]
    assert answers[:3] == ["bladder", "left femur", "right femur"]


def test_the_largest_size_is_the_default(medmnist_root: Path) -> None:
    image = load_dataset("dermamnist", medmnist_root)[0].image
    assert image is not None
    assert image.size == (64, 64)
    small = load_dataset("dermamnist", medmnist_root, size=28)[0].image
    assert small is not None
    assert small.size == (28, 28)
    with pytest.raises(UserError, match="no archive of size 224; it holds 28, 64"):
        load_dataset("dermamnist", medmnist_root, size=224)


def test_pixels_are_those_of_the_split(medmnist_root: Path) -> None:
    stored = np.load(medmnist_root / "organsmnist.npz")["test_images"]
    sample = load_dataset("organsmnist", medmnist_root, split="test")[3]
    assert np.array_equal(np.asarray(sample.image)[..., 2], stored[3])


def test_a_declared_dataset_speaks_its_own_classes(medmnist_root: Path) -> None:
    sample = open_source(_stripes(medmnist_root))[2]
    assert (sample.answer, sample.dataset) == ("none", "stripes")
    assert sample.instruction == "Which stripes are these: thin, wide, or none?"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": None}, "must state its classes"),
        ({"prompt": None}, "must state its prompt"),
        ({"classes": ["thin", "wide"]}, r"train_labels\[2\] is 2, but there are 2 classes"),
        ({"classes": ["thin", "thin", "none"]}, "a class name occurs twice"),
        ({"flag": "../stripes"}, "'flag'"),
        ({"flag": "dots"}, r"holds no dots\.npz"),
        ({"size": 30}, "'size'"),
    ],
)
def test_wrong_options(medmnist_root: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_source(_stripes(medmnist_root, **options))


def _rewrite(path: Path, arrays: dict[str, Any]) -> None:
    np.savez_compressed(path, **arrays)


def test_a_missing_array_is_named(medmnist_root: Path, medmnist_arrays: Callable[..., dict]) -> None:
    arrays = medmnist_arrays()
    del arrays["val_labels"]
    _rewrite(medmnist_root / "stripes.npz", arrays)
    with pytest.raises(UserError, match=r"stripes\.npz lacks val_labels"):
        open_source(_stripes(medmnist_root))


def test_images_of_another_kind_are_refused(medmnist_root: Path, medmnist_arrays: Callable[..., dict]) -> None:
    wrong_type = medmnist_arrays()
    wrong_type["train_images"] = wrong_type["train_images"].astype(np.float32)
    fewer = medmnist_arrays()
    fewer["train_images"] = fewer["train_images"][1:]
    several_labels = medmnist_arrays()
    several_labels["train_labels"] = np.zeros((8, 5), np.uint8)
    for arrays in (wrong_type, fewer, several_labels):
        _rewrite(medmnist_root / "stripes.npz", arrays)
        with pytest.raises(UserError, match=r"stripes\.npz: train_(images|labels) must"):
            open_source(_stripes(medmnist_root))


def test_a_truncated_archive_is_named(medmnist_root: Path) -> None:
    path = medmnist_root / "stripes.npz"
    content = path.read_bytes()
    for length in (0, 10, len(content) // 2, len(content) - 30):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match=r"stripes\.npz is not a readable \.npz file"):
            open_source(_stripes(medmnist_root))
