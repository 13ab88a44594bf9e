"""Indexed datasets against the raw ones; what is done again and what is not; what is refused."""

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
from PIL import Image

from unimed_model.data import discover, load_dataset, open_source
from unimed_model.data.preparation import preparing
from unimed_model.data.preparation.preparing import Settings, prepare
from unimed_model.data.sources import skipping
from unimed_model.errors import AbsentError, UserError


def run(root, out, settings=None):
    return {d.dataset: d for d in prepare(root, out, discover(root), settings or Settings(), quiet=True)}


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_sample_comes_out_as_it_went_in(root, tmp_path):
    done = run(root, tmp_path / "out")
    assert all(d.refused is None for d in done.values())
    names = [source.name for source in discover(root)]
    assert [source.name for source in discover(tmp_path / "out")] == names
    for source in discover(root):
        for split in ("train", "test"):
            raw, indexed = open_source(source, split), load_dataset(source.name, tmp_path / "out", split)
            assert list(indexed) == list(raw)
            assert indexed.skipped == raw.skipped
    assert "slake_rec" in names


def test_indexed_images_are_the_raw_ones(root, tmp_path):
    run(root, tmp_path / "out")
    for name in ("slake_vqa", "dermamnist"):
        raw, indexed = load_dataset(name, root), load_dataset(name, tmp_path / "out")
        assert [s.image.tobytes() for s in indexed] == [s.image.tobytes() for s in raw]


def test_indexed_samples_behave_as_a_sequence(root, tmp_path):
    run(root, tmp_path / "out")
    samples = load_dataset("dermamnist", tmp_path / "out")
    assert samples[-1] == samples[len(samples) - 1]
    assert list(samples[2:5]) == [samples[2], samples[3], samples[4]]
    with pytest.raises(IndexError):
        samples[len(samples)]
    again = pickle.loads(pickle.dumps(samples))
    assert list(again) == list(samples)


def test_a_second_preparation_does_nothing(root, tmp_path, monkeypatch):
    run(root, tmp_path / "out")
    before = contents(tmp_path / "out")
    monkeypatch.setattr(preparing, "open_source", lambda *_, **__: pytest.fail("a dataset was read again"))
    assert not any(d.fresh for d in run(root, tmp_path / "out").values())
    assert contents(tmp_path / "out") == before


def test_only_what_changed_is_done_again(root, tmp_path):
    run(root, tmp_path / "out")
    path = root / "slake" / "imgs" / "xmlab1" / "detection.json"
    path.write_text(json.dumps([{"Spleen": [20, 10, 100, 50]}]))
    done = run(root, tmp_path / "out")
    assert {name for name, d in done.items() if d.fresh} == {"slake_rec", "slake_reg"}
    assert load_dataset("slake_reg", tmp_path / "out")[0].answer == "Spleen"


def test_a_changed_image_is_looked_at_again(root, tmp_path):
    run(root, tmp_path / "out")
    Image.new("L", (400, 200)).save(root / "slake" / "imgs" / "xmlab1" / "source.jpg")
    assert {name for name, d in run(root, tmp_path / "out").items() if d.fresh} == {
        "slake_vqa",
        "slake_rec",
        "slake_reg",
    }
    assert load_dataset("slake_rec", tmp_path / "out")[0].meta["image_size"] == (400, 200)


def test_a_new_file_in_a_listed_folder_is_noticed(root, tmp_path):
    (root / "slake" / "imgs" / "xmlab3" / "detection.json").unlink()
    run(root, tmp_path / "out")
    (root / "slake" / "imgs" / "xmlab3" / "detection.json").write_text(json.dumps([{"Heart": [0, 0, 30, 30]}]))
    done = run(root, tmp_path / "out")
    assert done["slake_reg"].entry.splits["test"].samples == 1


def test_an_index_that_is_out_of_date_is_refused(root, tmp_path):
    run(root, tmp_path / "out")
    path = root / "slake" / "train.json"
    path.write_text(path.read_text(encoding="utf-8").replace("Spleen", "Kidney"), encoding="utf-8")
    with pytest.raises(
        UserError, match=r"train\.json has changed since slake_vqa was prepared; run unimed-data prepare"
    ):
        load_dataset("slake_vqa", tmp_path / "out")


def test_touched_files_count_as_unchanged_by_their_digests(root, tmp_path):
    settings = Settings(digest=True)
    run(root, tmp_path / "out", settings)
    for path in root.rglob("*.*"):
        os.utime(path, ns=(1, 1))
    fresh = {name for name, d in run(root, tmp_path / "out", settings).items() if d.fresh}
    assert "dermamnist" not in fresh


def test_what_was_finished_stands_when_a_run_is_broken_off(root, tmp_path, monkeypatch):
    real = preparing.open_source

    def broken(source, *args, **kwargs):
        if source.name == "mpx_single":
            raise KeyboardInterrupt
        return real(source, *args, **kwargs)

    monkeypatch.setattr(preparing, "open_source", broken)
    with pytest.raises(KeyboardInterrupt) as caught:
        run(root, tmp_path / "out")
    assert caught.value.__notes__ == ["What was prepared is kept; the same command goes on from there."]
    monkeypatch.undo()
    assert load_dataset("slake_vqa", tmp_path / "out")
    fresh = {name: d.fresh for name, d in run(root, tmp_path / "out").items()}
    assert not fresh["slake_vqa"]
    assert fresh["mpx_single"]
    assert contents(tmp_path / "out").keys() == contents_of_a_clean_run(root, tmp_path)


def contents_of_a_clean_run(root, tmp_path):
    run(root, tmp_path / "clean")
    return contents(tmp_path / "clean").keys()


def test_a_full_disk_leaves_no_half_index(root, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(preparing, "write_index", full)
    with pytest.raises(OSError, match="No space"):
        run(root, tmp_path / "out")
    monkeypatch.undo()
    assert not list((tmp_path / "out").rglob("*.partial"))
    with pytest.raises(UserError, match="holds no dataset yet"):
        discover(tmp_path / "out")
    assert all(d.fresh for d in run(root, tmp_path / "out").values())


def discover_names(folder):
    return [source.name for source in discover(folder)]


def test_one_bad_dataset_does_not_keep_the_others_out(root, tmp_path):
    (root / "slake" / "imgs" / "xmlab2" / "source.jpg").unlink()
    (root / "slake" / "test.json").write_text("[{")
    done = run(root, tmp_path / "out")
    assert "test.json is not complete, valid JSON" in done["slake_vqa"].refused
    assert "1 image file is missing" in done["slake_rec"].refused
    assert done["dermamnist"].refused is None
    assert "slake_vqa" not in discover_names(tmp_path / "out")
    with pytest.raises(UserError, match="offers no dataset 'slake_vqa'"):
        load_dataset("slake_vqa", tmp_path / "out")


def test_missing_and_unreadable_images_can_be_left_out_and_stay_counted(root, tmp_path):
    (root / "slake" / "imgs" / "xmlab2" / "source.jpg").unlink()
    (root / "slake" / "imgs" / "xmlab4" / "source.jpg").write_bytes(b"\xff\xd8\xff\xe0 broken off")
    assert "an image that cannot be read" in run(root, tmp_path / "strict")["slake_vqa"].refused or (
        "missing" in run(root, tmp_path / "strict")["slake_vqa"].refused
    )
    done = run(root, tmp_path / "out", Settings(skip_missing=True))["slake_vqa"]
    assert done.entry.splits["train"].findings.left_out() == {"empty answer": 1, "missing image": 1}
    assert load_dataset("slake_vqa", tmp_path / "out", split="test").skipped == {"unreadable image": 1}
    manifest = json.loads((tmp_path / "out" / "splits" / "slake_vqa.json").read_text())
    assert manifest["splits"]["test"]["findings"] == {"unreadable image": 1}


def test_absent_splits_are_named_and_the_rest_is_indexed(root, tmp_path):
    (root / "mpx" / "MedPix_single_test.csv").unlink()
    done = run(root, tmp_path / "out")["mpx_single"]
    assert "MedPix_single_test.csv" in done.absent["test"]
    assert "absent" in done.text()
    with pytest.raises(AbsentError, match="no split 'test'"):
        load_dataset("mpx_single", tmp_path / "out", split="test")


def test_the_manifest_says_which_images_are_where_and_by_what_rule(root, tmp_path):
    run(root, tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "splits" / "slake_vqa.json").read_text())
    assert manifest["unit"] == "image_id"
    assert manifest["splits"]["train"]["units"] == ["xmlab1", "xmlab2"]
    assert manifest["paper"] == {"train": 6018, "test": 1014}
    assert "train.txt" in manifest["rule"]
    assert str(tmp_path) not in json.dumps(manifest)
    derma = json.loads((tmp_path / "out" / "splits" / "dermamnist.json").read_text())
    assert "HAM10000" in derma["known"]


def test_a_leak_is_in_the_manifest(root, tmp_path):
    shutil.copy(root / "slake" / "imgs" / "xmlab2" / "source.jpg", root / "slake" / "imgs" / "xmlab4" / "source.jpg")
    (root / "slake" / "test.txt").write_text("xmlab3 xmlab4")
    picture = Image.linear_gradient("L")
    picture.save(root / "slake" / "imgs" / "xmlab2" / "source.jpg")
    picture.resize((64, 64)).save(root / "slake" / "imgs" / "xmlab4" / "source.jpg")
    done = run(root, tmp_path / "out", Settings(skip_missing=True))
    (leak,) = done["slake_vqa"].leaks
    assert (leak.kind, leak.splits, leak.first) == (
        "near-duplicate",
        ("train", "test"),
        "xmlab4 is nearly xmlab2 of train",
    )
    manifest = json.loads((tmp_path / "out" / "splits" / "slake_vqa.json").read_text())
    assert manifest["leakage"][0]["count"] == 1


def test_equal_roots_give_equal_bytes(root, tmp_path):
    run(root, tmp_path / "a")
    run(root, tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_other_settings_prepare_anew(root, tmp_path):
    run(root, tmp_path / "out")
    done = run(root, tmp_path / "out", Settings(language="all"))
    assert done["slake_vqa"].fresh
    with pytest.raises(UserError, match="prepared with language='all', not 'en'"):
        load_dataset("slake_vqa", tmp_path / "out", language="en")
    assert len(load_dataset("slake_vqa", tmp_path / "out")) == 4


@pytest.mark.parametrize("kind", ["a file", "something else", "another root"])
def test_outputs_that_are_not_ours_are_left_alone(root, tmp_path, kind):
    out = tmp_path / "out"
    if kind == "a file":
        out.write_text("mine")
    elif kind == "something else":
        out.mkdir()
        (out / "notes.txt").write_text("mine")
    else:
        shutil.copytree(root, tmp_path / "second")
        run(tmp_path / "second", out)
    before = contents(tmp_path)
    with pytest.raises(UserError, match="out"):
        run(root, out)
    assert contents(tmp_path) == before


def test_a_root_that_moved_with_its_index_still_opens(root, tmp_path):
    run(root, root / "prepared")
    shutil.copytree(root, tmp_path / "elsewhere")
    shutil.rmtree(root)
    assert next(s.image.size for s in load_dataset("slake_vqa", tmp_path / "elsewhere" / "prepared")) == (200, 100)


def test_a_root_that_is_gone_is_named(root, tmp_path):
    run(root, tmp_path / "out")
    root.rename(tmp_path / "moved")
    with pytest.raises(UserError, match=r"root, which does not exist"):
        load_dataset("slake_vqa", tmp_path / "out")


@pytest.mark.parametrize("name", ["prepared.json", "datasets/slake_vqa.json", "index/slake_vqa/train.parquet"])
@pytest.mark.parametrize("how", ["cut", "emptied"])
def test_damaged_files_are_named(root, tmp_path, name, how):
    run(root, tmp_path / "out")
    path = tmp_path / "out" / name
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] if how == "cut" else b"")
    with pytest.raises(UserError, match=Path(name).name):
        load_dataset("slake_vqa", tmp_path / "out")
    if name != "prepared.json":
        path.unlink()
        run(root, tmp_path / "out")
        assert load_dataset("slake_vqa", tmp_path / "out")


def test_an_image_that_arrives_later_is_indexed(root, tmp_path):
    path = root / "slake" / "imgs" / "xmlab2" / "source.jpg"
    kept = path.read_bytes()
    path.unlink()
    settings = Settings(skip_missing=True)
    assert run(root, tmp_path / "out", settings)["slake_vqa"].entry.splits["train"].samples == 2
    path.write_bytes(kept)
    assert run(root, tmp_path / "out", settings)["slake_vqa"].entry.splits["train"].samples == 3


def test_roots_and_outputs_behind_links(root, tmp_path, monkeypatch):
    (tmp_path / "deep" / "real").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "real")
    (tmp_path / "root_link").symlink_to(root)
    monkeypatch.chdir(tmp_path)
    for given in (Path("root"), Path("root_link"), root):
        done = run(given, Path("link"))
        assert all(d.refused is None for d in done.values())
        assert {d.fresh for d in done.values()} == {given == Path("root")}
    assert load_dataset("slake_vqa", tmp_path / "link")[0].image is not None


def test_touched_annotations_with_known_digests_still_open(root, tmp_path):
    run(root, tmp_path / "out", Settings(digest=True))
    for path in root.rglob("*.json"):
        os.utime(path, ns=(1, 1))
    assert load_dataset("slake_vqa", tmp_path / "out")


@pytest.mark.parametrize("content", ["", "[]", '{"format": 1}', '{"format": 1, "root": ".", "datasets": 5}'])
def test_a_damaged_head_is_named_by_prepare_too(root, tmp_path, content):
    run(root, tmp_path / "out")
    (tmp_path / "out" / "prepared.json").write_text(content)
    with pytest.raises(UserError, match=r"prepared\.json"):
        run(root, tmp_path / "out")
    with pytest.raises(UserError, match=r"prepared\.json"):
        discover(tmp_path / "out")


def test_images_that_went_after_preparing_are_counted_or_left_out(root, tmp_path):
    run(root, tmp_path / "out")
    (root / "slake" / "imgs" / "xmlab2" / "source.jpg").unlink()
    source = next(source for source in discover(tmp_path / "out") if source.name == "slake_vqa")
    assert len(open_source(source)) == 3
    left = open_source(skipping(source))
    assert [sample.image_id for sample in left] == ["xmlab1", "xmlab1"]
    assert left.skipped == {"empty answer": 1, "missing image": 1}
    assert len(open_source(skipping(source), images=False)) == 3


def test_a_dataset_that_left_the_root_leaves_the_index(root, tmp_path):
    out = tmp_path / "out"
    run(root, out)
    shutil.rmtree(root / "mpx")
    list(prepare(root, out, discover(root)[:1], Settings(), quiet=True))
    assert "mpx_single" in discover_names(out)
    *_, last = prepare(root, out, discover(root), Settings(), whole=True, quiet=True)
    assert (last.dataset, last.removed) == ("mpx_single", True)
    assert "mpx_single" not in discover_names(out)
    assert not (out / "index" / "mpx_single").exists()
    assert (out / "splits" / "mpx_single.json").is_file()


def test_a_dataset_of_which_nothing_can_be_used_is_refused(root, tmp_path):
    shutil.rmtree(root / "mpx" / "images")
    done = run(root, tmp_path / "out", Settings(skip_missing=True))["mpx_single"]
    assert done.refused == "mpx_single has no sample that can be used."
