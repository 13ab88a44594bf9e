"""Slake's boxes: where is an object (REC), and which object is in a box (REG).

`imgs/xmlabN/detection.json` is a list of one-key objects `{name: [x, y, w, h]}` in pixels; it may be empty
or absent, and a name may occur more than once in an image.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from unimed_model.data.boxes import Box, Rounding, box_problem, box_text, clip, normalise
from unimed_model.data.files import read_json_records
from unimed_model.data.findings import Findings
from unimed_model.data.images import ImageFile
from unimed_model.data.readers import slake
from unimed_model.data.readers.request import ImageOptions, Request, finish, missing_images
from unimed_model.data.sample import Sample, Samples
from unimed_model.data.templates import evaluation_instruction
from unimed_model.errors import UserError


class RegionOptions(ImageOptions):
    """How boxes become samples.

    Attributes:
        rounding: `floor`, as the released code does, or `nearest`.
        instances: what REC does with a name that occurs twice in an image: `skip` leaves these out and counts
            them, since "where is X" then has no single answer; `each` makes a sample of each, which the
            paper's equal counts of REC and REG suggest it did. REG is not ambiguous and always reads each.
        outside: what to do with a box that is empty or leaves the image: `error`, `skip` (counted), or `clip`
            to the image (what is empty afterwards is skipped).
    """

    rounding: Rounding = "floor"
    instances: Literal["skip", "each"] = "skip"
    outside: Literal["error", "skip", "clip"] = "error"


@dataclass(frozen=True, slots=True)
class _Region:
    image: ImageFile
    size: tuple[int, int]
    index: int
    name: str
    pixels: tuple[float, float, float, float]
    where: str


def holds(root: Path, _: RegionOptions) -> bool:
    """Say whether the folder holds Slake boxes."""
    return any((folder / "detection.json").is_file() for folder in slake.image_folders(root))


def read(request: Request, options: RegionOptions) -> Samples:
    """Return one sample per box of a split, by image number and then in file order.

    Raises:
        UserError: `images=False` (boxes are normalised by the size of their image), an unknown split, a
            damaged file, a missing image, an unusable box unless `outside` says otherwise.
    """
    request.require_english()
    if not request.images:
        raise UserError(f"{request.dataset}: boxes need the sizes of their images, so images=False cannot read them.")
    findings = Findings()
    samples = []
    for region in _regions(request, options, findings):
        pixels = _usable(region, options)
        if pixels is None:
            findings.leave_out("unusable box", region.where)
        else:
            box = normalise(pixels, region.size, options.rounding)
            samples.append(_sample(request, region, box))
    return finish(request, samples, findings)


def _regions(request: Request, options: RegionOptions, findings: Findings) -> Iterator[_Region]:
    absent: list[Path] = []
    for folder in _folders(request):
        path = folder / "detection.json"
        found = [_named_box(record, f"{path}, entry {i}") for i, record in enumerate(read_json_records(path))]
        image = ImageFile(folder / "source.jpg")
        if found and not image.path.is_file():
            absent.append(image.path)
            findings.leave_out("missing image", str(image.path), len(found))
            continue
        yield from _of_image(request, options, findings, image, path, found)
    if absent and options.missing_images == "error":
        raise missing_images(request.dataset, absent)


def _of_image(
    request: Request,
    options: RegionOptions,
    findings: Findings,
    image: ImageFile,
    path: Path,
    found: list[tuple[str, tuple[float, float, float, float]]],
) -> Iterator[_Region]:
    if not found:
        return
    size = image.size()
    times = Counter(name for name, _ in found)
    for index, (name, pixels) in enumerate(found):
        if request.task == "REC" and times[name] > 1 and options.instances == "skip":
            findings.leave_out("several objects of one name", f"{path}, object {name!r}")
        else:
            yield _Region(image, size, index, name, pixels, f"{path}, object {name!r}")


def _folders(request: Request) -> list[Path]:
    wanted = slake.images_of_split(request)
    folders = slake.image_folders(request.root)
    if request.split not in slake.OFFICIAL:
        for folder in folders:
            slake.require_in_split_range(slake.image_number(folder.name), request.root)
    with_boxes = [folder for folder in folders if (folder / "detection.json").is_file()]
    if not with_boxes:
        raise UserError(f"{request.dataset}: {request.root} holds no imgs/xmlabN/detection.json.")
    return [folder for folder in with_boxes if slake.image_number(folder.name) in wanted]


def _named_box(record: dict[str, Any], where: str) -> tuple[str, tuple[float, float, float, float]]:
    if len(record) != 1:
        raise UserError(f"{where}: one object per entry is needed, such as {{'Liver': [10, 20, 30, 40]}}.")
    ((name, box),) = record.items()
    numbers = isinstance(box, list) and [isinstance(v, int | float) and not isinstance(v, bool) for v in box]
    if numbers != [True] * 4:
        raise UserError(f"{where}: the box of {name!r} must be four numbers [x, y, w, h], not {box!r}.")
    if not name.strip():
        raise UserError(f"{where}: the object has no name.")
    x, y, w, h = box
    return name.strip(), (x, y, w, h)


def _usable(region: _Region, options: RegionOptions) -> tuple[float, float, float, float] | None:
    problem = box_problem(region.pixels, region.size)
    if problem is None:
        return region.pixels
    if options.outside == "error":
        width, height = region.size
        raise UserError(
            f"{region.where}: the box {list(region.pixels)} {problem} of {width} x {height} pixels; correct "
            "it, or read with outside='clip' or outside='skip'."
        )
    if options.outside == "skip":
        return None
    clipped = clip(region.pixels, region.size)
    return clipped if box_problem(clipped, region.size) is None else None


def _sample(request: Request, region: _Region, box: Box) -> Sample:
    text = box_text(box)
    image_id = region.image.path.parent.name
    refer = request.task == "REC"
    pool, subject, answer = ("refer", region.name, text) if refer else ("identify", text, region.name)
    return request.sample(
        sample_id=f"{image_id}-{region.index}",
        image_id=image_id,
        patient_id=None,
        instruction=evaluation_instruction(pool, subject),
        answer=answer,
        boxes=(box,),
        meta={
            "templates": pool,
            "subject": subject,
            "object": region.name,
            "box_pixels": region.pixels,
            "image_size": region.size,
        },
        image_source=region.image,
    )
