"""Slake's boxes: where is an object (REC), and which object is in a box (REG).

`imgs/xmlabN/detection.json` is a list of one-key objects `{name: [x, y, w, h]}` in pixels; it may be empty
or absent, and a name may occur more than once in an image.
"""

from collections.abc import Iterator
from pathlib import Path

from unimed_model.data.files import note, shown
from unimed_model.data.findings import Findings
from unimed_model.data.images import ImageFile
from unimed_model.data.readers import slake
from unimed_model.data.readers.regions import Region, RegionOptions, named_boxes, region_samples
from unimed_model.data.readers.request import Request
from unimed_model.data.sample import Samples
from unimed_model.errors import AbsentError


def holds(root: Path, _: RegionOptions) -> bool:
    """Say whether the folder holds Slake boxes."""
    return any((folder / "detection.json").is_file() for folder in slake.image_folders(root))


def read(request: Request, options: RegionOptions) -> Samples:
    """Return one sample per box of a split, by image number and then in file order.

    Raises:
        UserError: an unknown split, a damaged file, a missing image, an unusable box unless `outside` says otherwise.
    """
    request.require_english()
    return region_samples(request, options, _regions(request), Findings())


def _regions(request: Request) -> Iterator[Region]:
    for folder in _folders(request):
        path = folder / "detection.json"
        for index, (name, pixels) in enumerate(named_boxes(path)):
            yield Region(
                image=ImageFile(folder / "source.jpg"),
                size=None,
                name=name,
                pixels=pixels,
                where=f"{path}, object {shown(name)}",
                sample_id=f"{folder.name}-{index}",
                image_id=folder.name,
            )


def _folders(request: Request) -> list[Path]:
    wanted = slake.images_of_split(request)
    folders = slake.image_folders(request.root)
    if request.split not in slake.OFFICIAL:
        for folder in folders:
            slake.require_in_split_range(slake.image_number(folder.name), request.root)
    with_boxes = []
    for folder in folders:
        if (folder / "detection.json").is_file():
            with_boxes.append(folder)
        else:
            note(folder)  # it may get one
    if not with_boxes:
        with slake.hinting_at_archives(request.root):
            raise AbsentError(f"{request.dataset}: {request.root} holds no imgs/xmlabN/detection.json.")
    return [folder for folder in with_boxes if slake.image_number(folder.name) in wanted]
