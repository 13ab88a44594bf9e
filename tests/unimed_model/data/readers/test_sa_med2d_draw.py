"""Which regions of SA-Med2D are drawn for training and for test."""

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unimed_model.data import discover, load_dataset, open_source
from unimed_model.data.readers.sa_med2d.choice import TEST_CASES
from unimed_model.data.readers.sa_med2d.scan import case_rank
from unimed_model.data.splits import RANKS, rank
from unimed_model.errors import UserError

Entries = dict[str, list[str]]
CLASSES = {f"shape_{number}": f"{number:04d}" for number in range(5)}
SMALL = {"per_modality_train": 40, "per_modality_test": 10}


def entries(cases: Mapping[str, int], slices: int = 4, classes: int = 3) -> Entries:
    """Images and masks of a number of cases of each modality."""
    content: Entries = {}
    for modality, count in cases.items():
        for case in range(count):
            for place in range(slices):
                stem = f"{modality}--SET--{modality}.{case:03d}--z_{place:04d}"
                content[f"images/{stem}.png"] = [f"masks/{stem}--{number:04d}_000.png" for number in range(classes)]
    return content


def write(root: Path, content: Entries) -> Path:
    folder = root / "sa_med2d"
    folder.mkdir(exist_ok=True)
    (folder / "SAMed2D_v1.json").write_text(json.dumps(content))
    (folder / "SAMed2D_v1_class_mapping_id.json").write_text(json.dumps({"SET": CLASSES}))
    return root


def ids(root: Path, split: str, name: str = "sa_med2d_rec", **options: Any) -> list[str]:
    options = {"images": False, **SMALL, **options}
    return [sample.sample_id for sample in load_dataset(name, root, split=split, **options)]


def case_of(sample_id: str) -> str:
    return "--".join(sample_id.split("--")[1:3])


def test_exactly_as_many_of_each_modality_as_asked_for(tmp_path: Path) -> None:
    write(tmp_path, entries({"ct_00": 30, "mr_t1": 15, "mr_t2": 15, "pet_00": 20}))
    train, test = ids(tmp_path, "train"), ids(tmp_path, "test")
    assert [sum(name.startswith(group) for name in train) for group in ("ct_", "mr_")] == [40, 40]
    assert [sum(name.startswith(group) for name in test) for group in ("ct_", "mr_")] == [10, 10]
    assert train == sorted(set(train))
    assert not {case_of(name) for name in train} & {case_of(name) for name in test}


def test_the_drawn_are_those_of_lowest_rank_among_the_cases_of_a_side(tmp_path: Path) -> None:
    content = entries({"ct_00": 30, "mr_t1": 30})
    write(tmp_path, content)
    masks = [Path(mask).stem for masks in content.values() for mask in masks]
    limit = RANKS // 6
    for split, size in (("train", 40), ("test", 10)):
        expected = []
        for group in ("ct_", "mr_"):
            side = [mask for mask in masks if mask.startswith(group)]
            side = [m for m in side if (rank(3, "sa_med2d/case", case_of(m)) < limit) == (split == "test")]
            expected += sorted(side, key=lambda mask: rank(3, "sa_med2d", mask))[:size]
        assert ids(tmp_path, split, seed=3) == sorted(expected)
    assert ids(tmp_path, "train", seed=3) != ids(tmp_path, "train", seed=4)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32), st.randoms(use_true_random=False))
def test_the_split_is_stable_under_file_order(
    tmp_path_factory: pytest.TempPathFactory, seed: int, shuffle: random.Random
) -> None:
    content = entries({"ct_00": 12, "mr_t1": 12})
    root = write(tmp_path_factory.mktemp("order"), content)
    before = [ids(root, split, seed=seed) for split in ("train", "test")]
    images = list(content)
    shuffle.shuffle(images)
    write(root, {image: shuffle.sample(content[image], len(content[image])) for image in images})
    assert [ids(root, split, seed=seed) for split in ("train", "test")] == before


def test_added_cases_take_places_but_move_no_other_case(tmp_path: Path) -> None:
    write(tmp_path, entries({"ct_00": 20, "mr_t1": 20}))
    before = {split: set(ids(tmp_path, split)) for split in ("train", "test")}
    write(tmp_path, entries({"ct_00": 30, "mr_t1": 20}))
    after = {split: set(ids(tmp_path, split)) for split in ("train", "test")}
    old = {f"SET--ct_00.{case:03d}" for case in range(20)}
    for split in before:
        assert {name for name in after[split] if case_of(name) in old} <= before[split]
        assert {name for name in after[split] if name.startswith("mr")} == {
            name for name in before[split] if name.startswith("mr")
        }


def test_an_earlier_preparation_is_kept_under_added_files(tmp_path: Path) -> None:
    write(tmp_path, entries({"ct_00": 20, "mr_t1": 20}))
    before = {split: ids(tmp_path, split) for split in ("train", "test")}
    lists = {split: frozenset(names) for split, names in before.items()}
    write(tmp_path, entries({"ct_00": 40, "mr_t1": 40}))
    (source,) = [source for source in discover(tmp_path) if source.name == "sa_med2d_rec"]
    for split in before:
        kept = open_source(source, split, images=False, lists=lists)
        assert [sample.sample_id for sample in kept] == before[split]
        assert ids(tmp_path, split) != before[split]


def test_rec_and_reg_draw_from_the_same_ranks(tmp_path: Path) -> None:
    content = entries({"ct_00": 20, "mr_t1": 20})
    write(tmp_path, content)
    assert ids(tmp_path, "train") == ids(tmp_path, "train", "sa_med2d_reg")
    for image, masks in content.items():
        masks.append(f"masks/{Path(image).stem}--0000_001.png")
    write(tmp_path, content)
    refer, identify = ids(tmp_path, "train"), ids(tmp_path, "train", "sa_med2d_reg")
    assert not any("--0000_" in name for name in refer)
    assert {name for name in identify if "--0000_" not in name} <= set(refer)
    cases = {split: {case_of(name) for name in ids(tmp_path, split, "sa_med2d_reg")} for split in ("train", "test")}
    assert not cases["test"] & {case_of(name) for name in refer}


@pytest.mark.parametrize("seed", range(8))
def test_two_cases_are_enough_for_both_sides(tmp_path: Path, seed: int) -> None:
    write(tmp_path, entries({"ct_00": 2, "mr_t1": 3, "mr_t2": 1}))
    sides = {split: {case_of(name) for name in ids(tmp_path, split, seed=seed)} for split in ("train", "test")}
    assert not sides["train"] & sides["test"]
    assert len(sides["train"] | sides["test"]) == 6
    for group in ("ct", "mr"):
        ranks = {
            split: {case_rank(seed, case): case for case in cases if f"SET--{group}" in case}
            for split, cases in sides.items()
        }
        assert ranks["train"]
        assert ranks["test"]
        # Only a case that would leave a side empty goes against its rank: the nearest one.
        wrong = [r for r in ranks["test"] if r >= TEST_CASES] + [r for r in ranks["train"] if r < TEST_CASES]
        assert len(wrong) <= 1
        assert max(ranks["test"]) < min(ranks["train"])


def test_one_case_stays_where_its_rank_puts_it(tmp_path: Path) -> None:
    write(tmp_path, entries({"ct_00": 1, "mr_t1": 5}))
    sides = [any(name.startswith("ct") for name in ids(tmp_path, split)) for split in ("train", "test")]
    assert sum(sides) == 1


# --- masks that are not usable


def _draw_files(root: Path, content: Entries, usable: set[str]) -> None:
    """Write every image, and those masks that are usable; of the others every second is empty, the rest is missing."""
    folder = root / "sa_med2d"
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for number, (image, masks) in enumerate(content.items()):
        Image.new("L", (8, 4)).save(folder / image)
        for mask in masks:
            if Path(mask).stem in usable:
                Image.new("L", (8, 4), 255).save(folder / mask)
            elif number % 2:
                Image.new("L", (8, 4)).save(folder / mask)


def test_the_next_in_rank_takes_the_place_of_an_unusable_mask(tmp_path: Path) -> None:
    content = entries({"ct_00": 20, "mr_t1": 20})
    write(tmp_path, content)
    order = ids(tmp_path, "train", per_modality_train=1000)
    groups = [[name for name in order if name.startswith(group)] for group in ("ct", "mr")]
    ranked = [sorted(group, key=lambda name: rank(0, "sa_med2d", name)) for group in groups]
    # The five of highest rank among over a hundred: several passes are needed to come to them.
    last = [group[-5:] for group in ranked]
    _draw_files(tmp_path, content, {name for group in last for name in group})
    samples = load_dataset("sa_med2d_rec", tmp_path, per_modality_train=3)
    assert [sample.sample_id for sample in samples] == sorted(name for group in last for name in group[:3])
    assert all(sample.boxes == ((0, 0, 100, 100),) for sample in samples)
    assert sum(samples.skipped.values()) == sum(len(group) - 5 for group in ranked)
    assert min(len(group) for group in ranked) > 100
    assert set(samples.skipped) == {"empty mask", "missing mask"}
    all_there = load_dataset("sa_med2d_rec", tmp_path, per_modality_train=50)
    assert len(all_there) == 10


def test_only_images_that_are_there_are_drawn_from_when_others_are_left_out(tmp_path: Path) -> None:
    content = entries({"ct_00": 20, "mr_t1": 20})
    write(tmp_path, content)
    masks = {Path(mask).stem for masks in content.values() for mask in masks}
    _draw_files(tmp_path, content, masks)
    for image in list(content)[::2]:
        (tmp_path / "sa_med2d" / image).unlink()
    with pytest.raises(UserError, match="image files are missing"):
        load_dataset("sa_med2d_rec", tmp_path, **SMALL)
    samples = load_dataset("sa_med2d_rec", tmp_path, missing_images="skip", **SMALL)
    assert len(samples) == 80
    absent = {Path(mask).stem for image in list(content)[::2] for mask in content[image]}
    passed_over = 0
    for group in ("ct", "mr"):
        order = [name for name in ids(tmp_path, "train", per_modality_train=1000) if name.startswith(group)]
        order.sort(key=lambda name: rank(0, "sa_med2d", name))
        present = [name for name in order if name not in absent]
        assert {s.sample_id for s in samples if s.sample_id.startswith(group)} == set(present[:40])
        passed_over += len(absent & set(order[: order.index(present[39])]))
    assert samples.skipped == {"missing image": passed_over}
    few = load_dataset("sa_med2d_rec", tmp_path, missing_images="skip", per_modality_train=1000)
    assert len(few) + few.skipped["missing image"] == len(ids(tmp_path, "train", per_modality_train=1000))
    assert few.findings["missing image"].first.endswith(".png")


def test_an_unreadable_image_is_an_error_or_left_out(tmp_path: Path) -> None:
    content = entries({"ct_00": 2}, slices=1)
    write(tmp_path, content)
    _draw_files(tmp_path, content, {Path(mask).stem for masks in content.values() for mask in masks})
    (image,) = {sample.image_id for sample in load_dataset("sa_med2d_rec", tmp_path)}
    (tmp_path / "sa_med2d" / "images" / f"{image}.png").write_bytes(b"nothing")
    with pytest.raises(UserError, match=rf"{image}\.png is not a readable image"):
        load_dataset("sa_med2d_rec", tmp_path)
    samples = load_dataset("sa_med2d_rec", tmp_path, missing_images="skip")
    assert (len(samples), samples.skipped) == (0, {"unreadable image": 3})


# --- lists


def test_lists_of_images_and_of_masks_go_before_the_draw(tmp_path: Path) -> None:
    write(tmp_path, entries({"ct_00": 3, "mr_t1": 3}))
    folder = tmp_path / "sa_med2d"
    image, other = "ct_00--SET--ct_00.000--z_0001", "mr_t1--SET--mr_t1.002--z_0003"
    (folder / "train.txt").write_text(f"{image}.png masks/{other}--0002_000.png\n")
    (folder / "test.txt").write_text(f"{other}--0001_000\nct_00--SET--gone--z_0000\n")
    assert ids(tmp_path, "train") == [*(f"{image}--000{i}_000" for i in range(3)), f"{other}--0002_000"]
    test = load_dataset("sa_med2d_reg", tmp_path, split="test", images=False)
    assert [sample.sample_id for sample in test] == [f"{other}--0001_000"]
    assert test.skipped == {"listed, but not in the files": 1}
    assert "ct_00--SET--gone--z_0000" in test.findings["listed, but not in the files"].first
    (folder / "test.txt").write_text(f"{image}--0001_000")
    with pytest.raises(UserError, match=rf"The lists put '{image}--0001_000' into test, but it or its image"):
        ids(tmp_path, "train")


def test_lists_beside_the_files_serve_too(tmp_path: Path) -> None:
    write(tmp_path, entries({"ct_00": 2}))
    (tmp_path / "sa_med2d").rename(tmp_path / "SAMed2Dv1")
    (tmp_path / "sa_med2d").mkdir()
    (tmp_path / "SAMed2Dv1").rename(tmp_path / "sa_med2d" / "SAMed2Dv1")
    for split, case in (("train", 0), ("test", 1)):
        path = tmp_path / "sa_med2d" / "SAMed2Dv1" / f"{split}.txt"
        path.write_text(f"ct_00--SET--ct_00.{case:03d}--z_0000.png")
    assert {case_of(name) for name in ids(tmp_path, "train")} == {"SET--ct_00.000"}
    assert len(ids(tmp_path, "test")) == 3


def test_a_listed_instance_is_merged_with_those_that_are_not(tmp_path: Path) -> None:
    stem = "ct_00--SET--a--z_0000"
    write(tmp_path, {f"images/{stem}.png": [f"masks/{stem}--0000_00{i}.png" for i in (1, 0)]})
    (tmp_path / "sa_med2d" / "train.txt").write_text(f"{stem}--0000_000")
    (tmp_path / "sa_med2d" / "test.txt").write_text("nothing")
    (merged,) = load_dataset("sa_med2d_rec", tmp_path, images=False, instances="merge")
    assert merged.meta["masks"] == (f"masks/{stem}--0000_000.png", f"masks/{stem}--0000_001.png")
    assert load_dataset("sa_med2d_rec", tmp_path, images=False).skipped == {"several objects of one name": 1}


def test_an_image_that_the_file_lists_twice_is_read_once(tmp_path: Path) -> None:
    write(tmp_path, entries({"ct_00": 2}, slices=1))
    path = tmp_path / "sa_med2d" / "SAMed2D_v1.json"
    path.write_text(path.read_text()[:-1] + ", " + path.read_text()[1:])
    samples = [load_dataset("sa_med2d_reg", tmp_path, split=split, images=False) for split in ("train", "test")]
    assert sum(map(len, samples)) == 6
    assert sum(part.skipped["listed twice"] for part in samples) == 6
