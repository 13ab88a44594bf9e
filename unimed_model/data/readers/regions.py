"""Regions: named objects with a box in an image, and the samples made of them: where is X (REC), what is there (REG).

Boxes come in pixels, from files or from masks, and are normalised by the size of their image. A request for
annotations alone (`images=False`) looks for no image: its samples have no `boxes`, REC has no answer and REG no
instruction then; they are there to be counted.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from unimed_model.data.boxes import PixelBox, Rounding, box_problem, box_text, clip, normalise, union
from unimed_model.data.files import note_absent, read_json_records, shown
from unimed_model.data.findings import Findings
from unimed_model.data.images import ImageSource
from unimed_model.data.readers.request import ImageOptions, Request, missing_images
from unimed_model.data.sample import Sample, Samples
from unimed_model.data.templates import evaluation_instruction
from unimed_model.errors import UserError

SEVERAL = "several objects of one name"
_LARGEST_NUMBER = 1e9


class RegionOptions(ImageOptions):
    """How boxes become samples.

    Attributes:
        rounding: `floor`, as the released code does, or `nearest`.
        instances: what is done with a name that occurs more than once in an image. `skip`: REC leaves these out and
            counts them, since "where is X" then has no single answer. `each`: REC makes a sample of each, which the
            paper's equal counts of REC and REG suggest it did. `merge`: they become one object with the box around
            all. REG is not ambiguous and reads each unless they are merged.
        outside: what to do with a box that is empty or leaves the image: `error`, `skip` (counted), or `clip`
            to the image (what is empty afterwards is skipped).
    """

    rounding: Rounding = "floor"
    instances: Literal["skip", "each", "merge"] = "skip"
    outside: Literal["error", "skip", "clip"] = "error"


@dataclass(frozen=True, slots=True)
class Region:
    """One named object in an image.

    Attributes:
        image: the image.
        size: its (width, height) in pixels; None: read from its header.
        name: what the object is called.
        pixels: its box `[x, y, w, h]` in pixels; None where it is unknown because masks are not opened.
        where: where it comes from: file and entry.
        sample_id: see `Sample`; of merged regions the first one's is kept, as are the following.
        image_id: see `Sample`.
        patient_id: see `Sample`.
        meta: what else the files tell.
    """

    image: ImageSource
    size: tuple[int, int] | None
    name: str
    pixels: PixelBox | None
    where: str
    sample_id: str
    image_id: str
    patient_id: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


def ambiguous(task: str, options: RegionOptions) -> bool:
    """Say whether objects that share their name are left out."""
    return task == "REC" and options.instances == "skip"


def region_samples(request: Request, options: RegionOptions, regions: Iterable[Region], findings: Findings) -> Samples:
    """Return the samples of REC or REG, in the order of the regions.

    Args:
        request: its task decides what is asked and what is answered.
        options: how.
        regions: all that are known of each image, so that names which occur twice are seen.
        findings: what was found wrong so far.

    Raises:
        UserError: an image is missing (unless `missing_images` is `skip`) or its header damaged; a box is empty or
            leaves its image, unless `outside` says otherwise.
    """
    kept = _with_sizes(request, options, list(regions), findings)
    if ambiguous(request.task, options):
        kept = _unambiguous(kept, findings)
    kept = [usable for region in kept if (usable := _inside(region, options, findings)) is not None]
    if options.instances == "merge":
        kept = _merged(kept, findings)
    return Samples([_sample(request, options, region) for region in kept], findings)


def size_or_finding(
    image: ImageSource, options: ImageOptions, findings: Findings, count: int = 1
) -> tuple[int, int] | None:
    """Return (width, height) of an image in pixels; None, and counted, where it cannot be read and that is let pass.

    Args:
        image: the image.
        options: `missing_images="skip"` lets it pass.
        findings: get the kind "unreadable image".
        count: how many regions it has.

    Raises:
        UserError: the header is damaged; names the file.
    """
    try:
        return image.size()
    except UserError as error:
        if options.missing_images == "error":
            raise
        findings.leave_out("unreadable image", str(error), count)
        return None


def named_boxes(path: Path) -> list[tuple[str, PixelBox]]:
    """Return (name, box `[x, y, w, h]` in pixels) of a JSON list of one-key objects `{name: [x, y, w, h]}`.

    Raises:
        UserError: damaged, or an entry of another form; names the file and the entry.
    """
    return [_named_box(record, f"{path}, entry {i}") for i, record in enumerate(read_json_records(path))]


def _named_box(record: dict[str, Any], where: str) -> tuple[str, PixelBox]:
    if len(record) != 1:
        raise UserError(f"{where}: one object per entry is needed, such as {{'Liver': [10, 20, 30, 40]}}.")
    ((name, box),) = record.items()
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        raise UserError(f"{where}: the box of {shown(name)} must be four numbers [x, y, w, h], not {shown(box)}.")
    if not name.strip():
        raise UserError(f"{where}: the object has no name.")
    x, y, w, h = box
    return name.strip(), (x, y, w, h)


def _is_number(value: Any) -> bool:
    # JSON as Python reads it has NaN, infinity and integers beyond any float.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST_NUMBER


def _with_sizes(request: Request, options: RegionOptions, regions: list[Region], findings: Findings) -> list[Region]:
    if not request.images:
        return regions
    by_image: dict[str, list[Region]] = defaultdict(list)
    for region in regions:
        if region.size is None:
            by_image[region.image_id].append(region)
    absent = {key: found[0].image.path for key, found in by_image.items() if not found[0].image.path.is_file()}
    if absent and options.missing_images == "error":
        raise missing_images(request.dataset, list(absent.values()))
    for key, path in absent.items():
        note_absent(path)
        findings.leave_out("missing image", str(path), len(by_image[key]))
    sizes = {
        key: size_or_finding(found[0].image, options, findings, len(found))
        for key, found in by_image.items()
        if key not in absent
    }
    sized = [replace(region, size=region.size or sizes.get(region.image_id)) for region in regions]
    return [region for region in sized if region.size is not None]


def _unambiguous(regions: list[Region], findings: Findings) -> list[Region]:
    times = Counter((region.image_id, region.name) for region in regions)
    for region in regions:
        if times[region.image_id, region.name] > 1:
            findings.leave_out(SEVERAL, region.where)
    return [region for region in regions if times[region.image_id, region.name] == 1]


def _inside(region: Region, options: RegionOptions, findings: Findings) -> Region | None:
    """Return the region, clipped if asked for; None if it is left out for its box."""
    if region.pixels is None or region.size is None:
        return region
    problem = box_problem(region.pixels, region.size)
    if problem is None:
        return region
    if options.outside == "error":
        width, height = region.size
        of = f" of {width} x {height} pixels" if problem == "leaves the image" else ""
        raise UserError(
            f"{region.where}: the box {list(region.pixels)} {problem}{of}; correct it, or give the dataset the option "
            "outside: clip (or skip) in datasets.yaml."
        )
    clipped = clip(region.pixels, region.size)
    if options.outside == "clip" and box_problem(clipped, region.size) is None:
        return replace(region, pixels=clipped)
    findings.leave_out("empty box" if problem == "is empty" else "box outside the image", region.where)
    return None


def _merged(regions: list[Region], findings: Findings) -> list[Region]:
    groups: dict[tuple[str, str], list[Region]] = defaultdict(list)
    for region in regions:
        groups[region.image_id, region.name].append(region)
    return [group[0] if len(group) == 1 else _around(group, findings) for group in groups.values()]


def _around(group: list[Region], findings: Findings) -> Region:
    findings.note(SEVERAL, group[0].where, len(group))
    boxes = [region.pixels for region in group if region.pixels is not None]
    return replace(group[0], pixels=union(boxes) if boxes else None, meta={**group[0].meta, "instances": len(group)})


def _sample(request: Request, options: RegionOptions, region: Region) -> Sample:
    known = {"box_pixels": region.pixels, "image_size": region.size}
    facts = {"object": region.name, **{key: value for key, value in known.items() if value is not None}, **region.meta}
    box = None
    if region.pixels is not None and region.size is not None:
        box = normalise(region.pixels, region.size, options.rounding)
    text = "" if box is None else box_text(box)
    refer = request.task == "REC"
    pool, subject, answer = ("refer", region.name, text) if refer else ("identify", text, region.name)
    return request.sample(
        sample_id=region.sample_id,
        image_id=region.image_id,
        patient_id=region.patient_id,
        instruction=evaluation_instruction(pool, subject) if subject else "",
        answer=answer,
        boxes=() if box is None else (box,),
        meta={"templates": pool, "subject": subject, **facts},
        image_source=region.image,
    )
