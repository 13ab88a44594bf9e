from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from unimed_model.data.findings import Findings
from unimed_model.data.images import ImageFile
from unimed_model.data.readers.regions import Region, RegionOptions, region_samples
from unimed_model.data.readers.request import Request
from unimed_model.errors import UserError

SEVERAL = "several objects of one name"


def _request(task: str, images: bool = True) -> Request:
    return Request("shapes", task, Path(), "train", images, "en", 0)


@pytest.fixture
def regions(tmp_path: Path) -> list[Region]:
    """Two ducks and a pond in one picture of 50 x 20, a duck in another."""
    for name in ("one", "two"):
        Image.new("L", (50, 20)).save(tmp_path / f"{name}.png")
    boxes = [("duck", (5, 2, 10, 4)), ("pond", (0, 10, 50, 10)), ("duck", (20, 8, 5, 6))]
    first = [
        Region(ImageFile(tmp_path / "one.png"), None, name, box, f"list, entry {i}", f"one-{i}", "one")
        for i, (name, box) in enumerate(boxes)
    ]
    return [*first, Region(ImageFile(tmp_path / "two.png"), (50, 20), "duck", (0, 0, 1, 1), "list", "two-0", "two")]


def test_names_that_occur_twice_in_an_image_have_no_single_place(regions: list[Region]) -> None:
    findings = Findings()
    refer = region_samples(_request("REC"), RegionOptions(), regions, findings)
    assert [sample.sample_id for sample in refer] == ["one-1", "two-0"]
    assert (refer.skipped, findings[SEVERAL].first) == ({SEVERAL: 2}, "list, entry 0")
    each = region_samples(_request("REC"), RegionOptions(instances="each"), regions, Findings())
    assert [sample.answer for sample in each] == [
        "<10><10><30><30>",
        "<0><50><100><100>",
        "<40><40><50><70>",
        "<0><0><2><5>",
    ]
    identify = region_samples(_request("REG"), RegionOptions(), regions, Findings())
    assert ([sample.answer for sample in identify], identify.skipped) == (["duck", "pond", "duck", "duck"], {})


@pytest.mark.parametrize("task", ["REC", "REG"])
def test_instances_merge_into_the_box_around_all(regions: list[Region], task: str) -> None:
    samples = region_samples(_request(task), RegionOptions(instances="merge"), regions, Findings())
    assert [sample.sample_id for sample in samples] == ["one-0", "one-1", "two-0"]
    assert samples[0].boxes == ((10, 10, 50, 70),)
    assert samples[0].meta["box_pixels"] == (5, 2, 20, 12)
    assert samples[0].meta["instances"] == 2
    assert "instances" not in samples[1].meta
    assert samples.skipped == {}
    assert samples.findings[SEVERAL].count == 2


def test_empty_boxes_and_boxes_outside_are_told_apart(regions: list[Region]) -> None:
    empty = replace(regions[0], pixels=(5.0, 2.0, 0.0, 4.0))
    beyond = replace(regions[1], pixels=(40.0, 10.0, 20.0, 5.0))
    for wrong, message in ((empty, "is empty; correct it"), (beyond, "leaves the image of 50 x 20")):
        with pytest.raises(UserError, match=message):
            region_samples(_request("REG"), RegionOptions(), [wrong], Findings())
    skipping = region_samples(_request("REG"), RegionOptions(outside="skip"), [empty, beyond], Findings())
    assert skipping.skipped == {"empty box": 1, "box outside the image": 1}
    clipping = region_samples(_request("REG"), RegionOptions(outside="clip"), [empty, beyond], Findings())
    assert ([sample.boxes for sample in clipping], clipping.skipped) == ([((80, 50, 100, 75),)], {"empty box": 1})


def test_without_images_there_is_no_box(regions: list[Region], tmp_path: Path) -> None:
    for path in tmp_path.glob("*.png"):
        path.unlink()
    nowhere = [replace(region, size=None) for region in regions]
    samples = region_samples(_request("REG", images=False), RegionOptions(), nowhere, Findings())
    assert [(sample.boxes, sample.instruction, sample.answer) for sample in samples] == [
        ((), "", name) for name in ("duck", "pond", "duck", "duck")
    ]
    assert samples[1].meta["box_pixels"] == (0, 10, 50, 10)
    merged = region_samples(_request("REC", images=False), RegionOptions(instances="merge"), nowhere, Findings())
    assert (merged[0].meta["box_pixels"], merged[0].answer) == ((5, 2, 20, 12), "")


def test_missing_images_are_counted_by_region(regions: list[Region], tmp_path: Path) -> None:
    (tmp_path / "one.png").unlink()
    with pytest.raises(UserError, match=r"shapes: 1 image file is missing \(.*one\.png\)"):
        region_samples(_request("REG"), RegionOptions(), regions, Findings())
    skipping = region_samples(_request("REG"), RegionOptions(missing_images="skip"), regions, Findings())
    assert (len(skipping), skipping.skipped) == (1, {"missing image": 3})


def test_unreadable_images_are_an_error_or_counted_by_region(regions: list[Region], tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"one\.png is not a readable image"):
        region_samples(_request("REG"), RegionOptions(), regions, Findings())
    skipping = region_samples(_request("REG"), RegionOptions(missing_images="skip"), regions, Findings())
    assert (len(skipping), skipping.skipped) == (1, {"unreadable image": 3})
