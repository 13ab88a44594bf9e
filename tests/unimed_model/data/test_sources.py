import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from unimed_model.data import PUBLISHED, discover, load_dataset, open_source
from unimed_model.errors import UserError

STRIPES = """
- name: stripes
  layout: medmnist
  root: stripes
  options:
    flag: stripes
    classes: [thin, wide, none]
    prompt: Which category does this striped image belong to
"""


FIXTURES = Path(__file__).parents[2] / "fixtures"
FOLDERS = {
    "medqa": "medqa",
    "pubmedqa": "pubmedqa",
    "slake": "slake",
    "path_vqa": "path_vqa",
    "sa_med2d": "sa_med2d",
    "mimic_cxr": "mimic_cxr/r2gen",
    "mpx": "mpx",
    "medmnist": "medmnist",
    "vqa_rad": "vqa_rad",
}
"""Default folder of a published dataset -> the fixture that is put there as it unpacks."""


@pytest.fixture
def full_root(tmp_path: Path, medmnist_root: Path) -> Path:
    """A root with all published datasets, and one that is declared."""
    medmnist_root.rename(tmp_path / "stripes")
    for name, fixture in FOLDERS.items():
        shutil.copytree(FIXTURES / fixture, tmp_path / name)
    (tmp_path / "datasets.yaml").write_text(STRIPES)
    return tmp_path


def _declare(root: Path, text: str) -> Path:
    path = root / "datasets.yaml"
    path.write_text(text)
    return path


def test_discovery_lists_published_in_paper_order_then_declared(full_root: Path) -> None:
    assert [source.name for source in discover(full_root)] == [*PUBLISHED, "stripes"]


def test_every_discovered_dataset_opens_and_pickles(full_root: Path) -> None:
    for source in discover(full_root):
        samples = open_source(source)
        assert len(samples) > 0
        copy = pickle.loads(pickle.dumps(samples[0]))
        assert copy == samples[0]
        assert (copy.dataset, copy.task) == (source.name, source.task)
        assert (copy.image is None) == (source.task == "QA")
        assert len({sample.sample_id for sample in samples}) == len(samples)


def test_a_folder_without_the_layouts_files_is_not_offered(tmp_path: Path, pubmedqa_root: Path) -> None:
    (tmp_path / "mpx").mkdir()
    assert [source.name for source in discover(tmp_path)] == ["pubmedqa"]


def test_questions_without_boxes_offer_questions_only(full_root: Path) -> None:
    for path in (full_root / "slake").rglob("detection.json"):
        path.unlink()
    names = [source.name for source in discover(full_root)]
    assert "slake_vqa" in names
    assert "slake_rec" not in names


def test_the_datasets_own_folder_serves_as_root(pubmedqa_root: Path) -> None:
    assert list(load_dataset("pubmedqa", pubmedqa_root)) == list(load_dataset("pubmedqa", pubmedqa_root.parent))


def test_a_yaml_file_serves_as_root_and_offers_only_what_it_declares(full_root: Path) -> None:
    path = full_root / "datasets.yaml"
    assert [source.name for source in discover(path)] == ["stripes"]
    assert load_dataset("stripes", path)[1].answer == "wide"


def test_a_declaration_moves_a_published_dataset(tmp_path: Path, pubmedqa_root: Path, medmnist_root: Path) -> None:
    elsewhere = pubmedqa_root.rename(tmp_path / "elsewhere")
    organs = "{name: organsmnist, root: medmnist, options: {size: 28}}"
    _declare(tmp_path, f"- {{name: pubmedqa, root: elsewhere}}\n- {organs}\n")
    sources = {source.name: source for source in discover(tmp_path)}
    assert list(sources) == ["pubmedqa", "dermamnist", "organsmnist"]
    assert sources["pubmedqa"].root == elsewhere
    assert load_dataset("organsmnist", tmp_path)[1].answer == "left femur"


def test_declared_files_are_not_offered_under_the_published_name_too(full_root: Path) -> None:
    _declare(full_root, "- {name: frames, layout: slake_vqa, root: slake}\n")
    names = [source.name for source in discover(full_root)]
    assert names == [name for name in PUBLISHED if name != "slake_vqa"] + ["frames"]
    with pytest.raises(UserError, match="does not hold slake_vqa"):
        load_dataset("slake_vqa", full_root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- {name: a, layuot: medmnist, root: .}", r"entry 1: unknown key 'layuot'.*'layout'"),
        ("- {name: a, layout: medminst, root: .}", r"entry 1: there is no layout 'medminst'.*'medmnist'"),
        ("- {name: a, root: .}", r"'a' is not a published dataset, so its layout must be stated"),
        ("- {name: a, layout: medmnist}", r"the key 'root' is missing"),
        ("- {name: a, layout: medqa, root: nowhere}", r"nowhere does not exist"),
        ("- {name: ../a, layout: medqa, root: .}", r"'name'"),
        ("- {name: pubmedqa, layout: medqa, root: .}", r"pubmedqa is published as pubmedqa"),
        ("- {name: a, layout: medmnist, root: ., options: {flug: x}}", r"unknown key 'flug'.*'flag'"),
        ("- {name: a, layout: medqa, root: ., options: {flag: x}}", r"the nearest valid key is .restricted."),
        ("- {name: a, layout: medqa, root: .}\n- {name: a, layout: medqa, root: .}", r"declares 'a' twice"),
        ("{name: a}", r"must hold a list of datasets"),
        ("- {name: a", r"is not valid YAML"),
    ],
)
def test_wrong_declarations(tmp_path: Path, text: str, message: str) -> None:
    path = _declare(tmp_path, text)
    with pytest.raises(UserError, match=message) as caught:
        discover(tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_and_empty_roots(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data root .*absent does not exist"):
        discover(tmp_path / "absent")
    with pytest.raises(UserError, match=r"data root .*absent does not exist"):
        load_dataset("medqa", tmp_path / "absent")
    with pytest.raises(UserError, match=r"holds no dataset: it needs a datasets\.yaml or one of the folders medqa"):
        discover(tmp_path)


def test_unknown_names_and_options(full_root: Path) -> None:
    with pytest.raises(UserError, match="nearest name is 'slake_vqa'"):
        load_dataset("slake_vga", full_root)
    with pytest.raises(UserError, match="nearest name is 'stripes'"):
        load_dataset("strips", full_root)
    with pytest.raises(UserError, match="unknown key 'roundng'; the nearest valid key is 'rounding'"):
        load_dataset("slake_rec", full_root, roundng="floor")
    with pytest.raises(UserError, match="has no split 'val'; it has train, test"):
        load_dataset("mpx_single", full_root, split="val")
    with pytest.raises(UserError, match="in English only"):
        load_dataset("dermamnist", full_root, language="zh")


def test_a_published_name_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not hold medqa"):
        load_dataset("medqa", tmp_path)


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, unimed_model.data; print({'torch', 'PIL', 'numpy', 'pandas'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
