"""SA-Med2D in the naming of SAM-Med2D's `data_demo`: `image2label_train.json` and `label2image_test.json`.

A mask is called after its image, label and instance: `amos_0004_75_aorta_000.png` belongs to `amos_0004_75.png`. The
names say nothing of the modality, so all is read, and the splits are those of the two files.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from unimed_model.data.files import read_json, relative_name, shown
from unimed_model.data.findings import Findings
from unimed_model.data.images import ImageFile
from unimed_model.data.readers.regions import Region, size_or_finding
from unimed_model.data.readers.request import Request
from unimed_model.data.readers.sa_med2d import names
from unimed_model.data.readers.sa_med2d.masks import SAMed2DOptions, usable_box
from unimed_model.errors import UserError

FILES: Mapping[str, str] = {"train": "image2label_train.json", "test": "label2image_test.json"}
_LABEL = re.compile(r"_(.+)_(\d+)")


def demo_regions(folder: Path, request: Request, options: SAMed2DOptions, findings: Findings) -> Iterator[Region]:
    """Yield the regions of a split by image and mask name; what is left out is counted.

    Raises:
        UserError: a missing or damaged file, or a name that leaves the folder; names the file and the entry.
    """
    path = folder / FILES[request.split]
    for image, masks in sorted(_masks_of_images(path).items()):
        source = ImageFile(folder / _place(image, path))
        present = request.images and source.path.is_file()
        size = size_or_finding(source, options, findings, len(masks)) if present else None
        if present and size is None:
            continue
        for mask in sorted(set(masks)):
            place = _place(mask, path)
            where = f"{path}, {mask}"
            label = _label(mask, image)
            if label is None or not names.usable(label, generic=options.labels == "all"):
                findings.leave_out("unusable label" if label else "unusable name", where)
                continue
            pixels = usable_box(folder / place, size, options.inclusive, findings) if size else None
            if size and pixels is None:
                continue
            yield Region(
                image=source,
                size=size,
                name=names.spoken(label),
                pixels=pixels,
                where=where,
                sample_id=names.stem(mask),
                image_id=names.stem(image),
                meta={"label": label, "mask": mask},
            )


def _masks_of_images(path: Path) -> dict[str, list[str]]:
    """Return image -> masks, whichever of them the file goes by."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold one JSON object.")
    found: dict[str, list[str]] = defaultdict(list)
    for key, value in content.items():
        if isinstance(value, list) and all(isinstance(mask, str) for mask in value):
            found[key] += value
        elif isinstance(value, str):
            found[value].append(key)
        else:
            raise UserError(f"{path}: {shown(key)} must be followed by an image or a list of masks.")
    return found


def _place(name: str, path: Path) -> Path:
    """Return the path within the folder: names begin with a folder `data_demo/`, whatever it is called here."""
    return Path(*relative_name(name, f"{path}, {shown(name)}").parts[-2:])


def _label(mask: str, image: str) -> str | None:
    found = _LABEL.fullmatch(names.stem(mask).removeprefix(names.stem(image)))
    return found[1] if found else None
