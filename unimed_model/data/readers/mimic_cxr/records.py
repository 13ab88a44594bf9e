"""What the three sources of MIMIC-CXR's reports have in common: a record, and where a download puts its files.

Every image is `files/p19/p19999991/s59999991/<dicom id>.jpg`: group, patient, study, image. PhysioNet's downloads
unpack into folders of their own, such as `physionet.org/files/mimic-cxr-jpg/2.1.0/` or `MIMIC-CXR-JPG/2.0.0/`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from unimed_model.data.files import note, relative_name
from unimed_model.data.progress import progress_bar

Row = TypeVar("Row")

SPLITS = ("train", "val", "test")

IMAGE_LEVELS = ("files", "images", ".")
# A name with an ending, so not `..`.
_PLACE = re.compile(r"(?:^|/)(p\d\d/p\d{1,12}/s\d{1,12}/[^/\0]+\.\w+)$")
_IDS = re.compile(r"p(\d{1,12})/s(\d{1,12})/[^/]+$")
_INNER = re.compile(r"physionet\.org|mimic.*|data_csv|radfm.*|\d+(\.\d+)+", re.IGNORECASE)
_DEEPEST = 6
_TRIED = 100


@dataclass(frozen=True, slots=True)
class Record:
    """An image with the text of its report.

    Attributes:
        image: its file, relative to `files/`.
        text: the target, perhaps empty.
        where: file and row or entry; never text of the report.
        problem: kind of finding for which the record must be left out.
        meta: what else the files tell.
    """

    image: str
    text: str
    where: str
    problem: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def image_id(self) -> str:
        """The DICOM id, which is the file's name."""
        return id_of(self.image)

    @property
    def patient_id(self) -> str | None:
        """The number of the patient, where the path tells."""
        found = _IDS.search(self.image)
        return found[1] if found else None

    @property
    def study_id(self) -> int | None:
        """The number of the study, where the path tells."""
        found = _IDS.search(self.image)
        return int(found[2]) if found else None

    @property
    def group(self) -> str:
        """The top folder, p10 to p19; empty where the path has none."""
        return self.image.partition("/")[0] if "/" in self.image else ""


def id_of(image: str) -> str:
    """Return the DICOM id of an image's path."""
    name = image.rpartition("/")[2]
    return name.rpartition(".")[0] or name


def image_of(name: str, where: str) -> str:
    """Return an image's path relative to `files/`, whatever folder of the authors' stands before it.

    Raises:
        UserError: the rest leaves the data folder.
    """
    name = name.strip().replace("\\", "/")
    place = _PLACE.search(name)
    if place:
        return place[1]
    return relative_name(name.rpartition("/files/")[2].removeprefix("files/"), where).as_posix()


def progress(rows: Iterable[Row], total: int) -> Iterable[Row]:
    """Return the same rows; going through them shows a bar on stderr when it takes over two seconds."""
    bar: Iterable[Row] = progress_bar(rows, total=total, desc="reading reports", unit="image")
    return bar


def folders(root: Path) -> list[Path]:
    """Return the root and the folders below it that downloads unpack into, outer ones first."""
    found = [root]
    for folder in found:  # grows while it is gone through
        if folder.is_dir() and len(folder.relative_to(root).parts) < _DEEPEST:
            note(folder)
            found += sorted(path for path in folder.iterdir() if _unpacks_into(path) and path.is_dir())
    return found


def first_file(places: Sequence[Path], *names: str) -> Path | None:
    """Return the first of some files that one of the folders holds, by folder and then by name."""
    paths = (folder / name for folder in places for name in names)
    return next((path for path in paths if path.is_file()), None)


def image_folder(root: Path, places: Sequence[Path], images: Sequence[str]) -> Path:
    """Return the folder that images are relative to, as the first of them show; without any, `files/` of the root."""
    candidates = [folder / level for folder in places for level in IMAGE_LEVELS]
    for image in islice(images, _TRIED):
        for folder in candidates:
            if (folder / image).is_file():
                return folder
    return root / IMAGE_LEVELS[0]


def _unpacks_into(path: Path) -> bool:
    return bool(_INNER.fullmatch(path.name)) or (path.name == "files" and path.parent.name == "physionet.org")
