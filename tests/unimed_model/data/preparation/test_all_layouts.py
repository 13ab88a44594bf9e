"""Every published layout at once, from the fixtures, as a user has them: checked, prepared, and read back."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from unimed_model.data import PUBLISHED, discover, open_source
from unimed_model.data.layouts import LAYOUTS
from unimed_model.data.preparation.inspection import inspect
from unimed_model.data.preparation.preparing import Settings, prepare
from unimed_model.data.terms import TERMS
from unimed_model.errors import AbsentError

FIXTURES = Path(__file__).parents[3] / "fixtures"
FORMS = {
    "medqa": ("medqa", "medqa/hub", "medqa/bigbio"),
    "pubmedqa": ("pubmedqa", "pubmedqa/folds", "pubmedqa/hub"),
    "slake": ("slake",),
    "path_vqa": ("path_vqa/pvqa", "path_vqa/hub"),
    "sa_med2d": ("sa_med2d", "sa_med2d_prepared"),
    "mimic_cxr": ("mimic_cxr/r2gen", "mimic_cxr/radfm", "mimic_cxr/official"),
    "mpx": ("mpx",),
    "medmnist": ("medmnist",),
    "vqa_rad": ("vqa_rad", "vqa_rad/sets", "vqa_rad/hub"),
}
"""Default folder -> fixtures of the forms that it may have."""
EVERY_FORM = [(folder, form) for folder, forms in FORMS.items() for form in forms]


def opened(source, **options):
    """Split -> samples of the splits that are there, missing images left out."""
    tolerant = {"missing_images": "skip"} if "missing_images" in LAYOUTS[source.layout].options.model_fields else {}
    found = {}
    for split in LAYOUTS[source.layout].splits:
        try:
            found[split] = open_source(source, split, **tolerant, **options)
        except AbsentError:
            continue
    return found


@pytest.mark.parametrize(("folder", "form"), EVERY_FORM, ids=[form for _, form in EVERY_FORM])
def test_a_form_is_read_the_same_from_its_index(folder, form, tmp_path):
    root, out = tmp_path / "root", tmp_path / "out"
    shutil.copytree(FIXTURES / form, root / folder)
    sources = discover(root)
    assert {PUBLISHED[source.name].folder for source in sources} == {folder}
    done = list(prepare(root, out, sources, Settings(skip_missing=True), quiet=True))
    assert [d.refused for d in done] == [None] * len(sources)
    for source, indexed in zip(sources, discover(out), strict=True):
        raw = opened(source)
        assert raw
        for split, samples in raw.items():
            again = open_source(indexed, split)
            assert list(again) == list(samples)
            assert again.skipped == samples.skipped
            for sample in again:
                assert (sample.image is None) == (source.task == "QA")
                assert sample.instruction
                assert sample.answer


@pytest.mark.parametrize(("folder", "form"), EVERY_FORM, ids=[form for _, form in EVERY_FORM])
def test_annotations_alone_need_no_picture(folder, form, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(FIXTURES / form, root / folder)
    with_images = {source.name: opened(source) for source in discover(root)}
    for path in root.rglob("*"):
        if path.suffix in (".jpg", ".jpeg", ".png"):
            path.unlink()
    for source in discover(root):
        for split, samples in opened(source, images=False).items():
            assert len(samples) >= len(with_images[source.name].get(split, ()))


def test_every_published_dataset_has_its_terms_and_a_fixture():
    assert TERMS.keys() == PUBLISHED.keys()
    assert {entry.folder for entry in PUBLISHED.values()} == FORMS.keys()


def test_every_image_of_every_fixture_is_rgb(tmp_path):
    for folder, form in EVERY_FORM:
        shutil.copytree(FIXTURES / form, tmp_path / form / folder)
        for source in discover(tmp_path / form):
            for samples in opened(source).values():
                assert {sample.image.mode for sample in samples if sample.image} <= {"RGB"}


@pytest.fixture
def masks(tmp_path):
    """Many CT and MR images with one mask each, in SA-Med2D's published form: more than are asked for."""
    root = tmp_path / "root" / "sa_med2d" / "SAMed2Dv1"
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    write_masks(root, range(40))
    return tmp_path / "root"


def write_masks(root, cases):
    listing = root / "SAMed2D_v1.json"
    known = json.loads(listing.read_text()) if listing.is_file() else {}
    for case in cases:
        for modality in ("ct_00", "mr_t1"):
            name = f"{modality}--DEMOSET--case{case}--z_0001"
            picture = Image.effect_noise((24, 20), 60)
            picture.save(root / "images" / f"{name}.png")
            mask = Image.new("L", picture.size)
            mask.paste(1, (4, 5, 9, 12))
            mask.save(root / "masks" / f"{name}--0000_000.png")
            known[f"images/{name}.png"] = [f"masks/{name}--0000_000.png"]
    listing.write_text(json.dumps(known))
    (root / "SAMed2D_v1_class_mapping_id.json").write_text(json.dumps({"DEMOSET": {"liver": "0000"}}))


def test_a_drawn_split_stays_when_files_are_added(masks, tmp_path):
    (tmp_path / "root" / "datasets.yaml").write_text(
        "- {name: sa_med2d_rec, root: sa_med2d, options: {per_modality_train: 8, per_modality_test: 3}}\n"
    )

    def units(settings=None):
        sources = [source for source in discover(masks) if source.name == "sa_med2d_rec"]
        (done,) = prepare(masks, tmp_path / "out", sources, settings or Settings(), quiet=True)
        assert done.refused is None
        content = json.loads((tmp_path / "out" / "splits" / "sa_med2d_rec.json").read_text())
        return done, {split: value["units"] for split, value in content["splits"].items()}

    first, drawn = units()
    assert first.fresh
    assert {split: len(names) for split, names in drawn.items()} == {"train": 16, "test": 6}
    write_masks(masks / "sa_med2d" / "SAMed2Dv1", range(40, 120))
    again, kept = units()
    assert again.fresh
    assert kept == drawn
    _, anew = units(Settings(redraw=True))
    assert anew != drawn
    _, other = units(Settings(seed=1))
    assert other != anew


def test_cases_and_pictures_are_on_one_side(masks):
    source = next(source for source in discover(masks) if source.name == "sa_med2d_reg")
    found = inspect(source, {}, quiet=True)
    assert [leak for leak in found.leaks if leak.kind in ("image", "patient")] == []


def test_masks_belong_to_what_an_index_depends_on(masks, tmp_path):
    sources = [source for source in discover(masks) if source.name == "sa_med2d_rec"]
    (first,) = prepare(masks, tmp_path / "out", sources, Settings(), quiet=True)
    assert first.fresh
    path = next((masks / "sa_med2d" / "SAMed2Dv1" / "masks").iterdir())
    mask = Image.new("L", (24, 20))
    mask.paste(1, (0, 0, 24, 20))
    mask.save(path)
    (second,) = prepare(masks, tmp_path / "out", sources, Settings(), quiet=True)
    assert second.fresh
    (indexed,) = [source for source in discover(tmp_path / "out") if source.name == "sa_med2d_rec"]
    boxes = {s.sample_id: s.boxes for split in ("train", "test") for s in open_source(indexed, split)}
    assert boxes[path.stem] == ((0, 0, 100, 100),)


def test_text_of_restricted_datasets_is_readable_to_its_owner_alone(tmp_path):
    root, out = tmp_path / "root", tmp_path / "out"
    shutil.copytree(FIXTURES / "mimic_cxr" / "r2gen", root / "mimic_cxr")
    list(prepare(root, out, discover(root), Settings(skip_missing=True), quiet=True))
    (source,) = discover(out)
    assert all(sample.restricted for sample in open_source(source))
    path = out / "index" / "mimic_cxr" / "train.parquet"
    assert path.stat().st_mode & 0o077 == 0
    report = open_source(source)[0].answer.encode()
    written = [p for p in out.rglob("*") if p.is_file() and p.suffix == ".json"]
    assert written
    assert not any(report in p.read_bytes() for p in written)
