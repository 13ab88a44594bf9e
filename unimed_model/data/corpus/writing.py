"""Write the whole sample corpus under one root, with its declarations, its table of pictures, its manifest."""

import csv
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import yaml

from ...errors import UserError
from ...folders import replacing
from ..files import read_json
from . import layouts, selection
from .anatomy import Slice, load_volumes, slices
from .jsonl import write_captions
from .path_vqa import write_path_vqa
from .pictures import Row
from .sa_med2d import write_sa_med2d
from .texts import write_medqa, write_pubmedqa

VERSION = 2
MANIFEST = "sample_corpus.json"
TABLE = "pictures.csv"
Writer = Callable[[Path, list[Slice], dict[str, int], np.random.Generator], list[Row]]

FOLDERS: tuple[tuple[str, Writer, dict[str, int]], ...] = (
    ("mni_slake", layouts.write_slake, {"train": 1200, "test": 240}),
    ("mni_mpx", layouts.write_mpx, {"train": 1200, "test": 180}),
    ("mni_t1", layouts.write_t1_archive, {"train": 3600, "test": 400}),
    ("mni_gray", layouts.write_gray_archive, {"train": 3600, "test": 400}),
    ("mni_tissue_vqa", write_path_vqa, {"train": 1200, "test": 240}),
    ("mni_mask", write_sa_med2d, {"train": 1200, "test": 240}),
    ("mni_tissue_caption", write_captions, {"train": 1200, "test": 180}),
    ("mni_qa", write_medqa, {"train": 1200, "test": 240}),
    ("mni_yesno", write_pubmedqa, {"train": 1200, "test": 240}),
)
"""Folder, what writes it, and how many pictures (or questions without pictures) each split holds. Each folder's
random numbers depend on its place here: append, so that what stands keeps its content."""
WITH_BOXES = ("mni_slake", "mni_mask")
"""Folders whose pictures have boxes or masks."""

TERMS = {
    "images": "MNI152 average brain (ICBM 2009a, symmetric, nonlinear): T1 volume, gray- and white-matter maps; Fonov "
    "et al. 2009 and 2011, Montreal Neurological Institute, McGill University; under the ICBM template's own terms, "
    "which nilearn does not restate: read them before you pass the pictures on",
    "source": "drawn from the volumes inside the Python package nilearn, whose code is BSD-3-Clause",
    "text": "questions, captions, boxes and masks made by this project (Apache-2.0), true by construction of the "
    "template",
}
CONVENTIONS = {
    "population": "one average brain: no patients, no diagnosis, no claim of generalisation to other people",
    "coordinates": "template millimetres, origin near the anterior commissure; left is x < 0, posterior part is "
    "y < 0, lower part is z < 0",
    "orientation": "left of the brain is on the left of axial and coronal pictures; anterior is on the right of "
    "sagittal pictures; superior, or anterior in axial pictures, is up",
    "sagittal position": "distance from the midline; the template is symmetric, so only one side is used",
    "split": "by position in periods of 13 mm: 7 for training, 2 for testing, 2 unused on either side of the test",
    "shares": "of the area that is at least half gray or half white matter in the section",
    "quadrants": "what two parts of the brain have in common: front and back of y = 0, left and right of x = 0, upper "
    "and lower of z = 0",
    "names in mni_mask": "count pictures: its cases are neither people nor scans",
    "placement": "brain cut out, its longer side 60 to 95 percent of a square black canvas, at a random place",
}
NOT_HERE = (
    "the layouts of MIMIC-CXR, whose instructions ask about chest X-rays, and of VQA-RAD, whose records are about "
    "clinical cases: an average brain is neither; tests read these layouts from small invented files"
)


def write_sample_corpus(root: Path, seed: int = 0) -> bool:
    """Write the corpus under ``root``; equal seeds give equal bytes.

    Returns:
        False when the same corpus was there already and nothing was written.

    Raises:
        UserError: ``root`` holds something else.
    """
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        if _stands_there(root, seed):
            return False
        raise UserError(
            f"{root} is not empty and does not hold this sample corpus; choose another folder or remove it."
        )
    with replacing(root) as folder:
        _write(folder, seed)
    return True


def picture_planes(root: Path) -> dict[str, str]:
    """Return image id -> plane of the pictures that have boxes; empty where the root is no sample corpus."""
    if not (root / MANIFEST).is_file():
        return {}
    pictures = [(Path(row["file"]), row["plane"]) for row in _table_of_pictures(root)]
    return {_image_id(path): plane for path, plane in pictures if path.parts[0] in WITH_BOXES}


def _image_id(picture: Path) -> str:
    """Image id by which a reader knows a picture: its folder where its own name says nothing (Slake), else its stem."""
    return picture.parent.name if picture.stem == "source" else picture.stem


def _stands_there(root: Path, seed: int) -> bool:
    """Say whether a root holds this very corpus.

    Raises:
        UserError: its manifest is damaged, or pictures that it lists are gone.
    """
    if not (root / MANIFEST).is_file():
        return False
    written = read_json(root / MANIFEST)
    if not isinstance(written, dict) or (written.get("version"), written.get("seed")) != (VERSION, seed):
        return False
    gone = [row["file"] for row in _table_of_pictures(root) if not (root / row["file"]).is_file()]
    if gone:
        raise UserError(
            f"{root} holds the sample corpus without {len(gone)} of its files, the first {gone[0]}; remove it."
        )
    return True


def _table_of_pictures(root: Path) -> list[dict[str, str]]:
    with (root / TABLE).open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _write(root: Path, seed: int) -> None:
    every = list(slices(load_volumes()))
    rows: list[Row] = []
    for number, (name, write, counts) in enumerate(FOLDERS):
        rows += write(root / name, every, counts, np.random.default_rng([seed, number]))
    with (root / TABLE).open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, fieldnames=list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    declarations = _declarations()
    (root / "datasets.yaml").write_text(yaml.safe_dump(declarations, sort_keys=False, width=110), encoding="utf-8")
    (root / MANIFEST).write_text(json.dumps(_manifest(seed), indent=2) + "\n", encoding="utf-8")


def _declarations() -> list[dict[str, object]]:
    shown = "Which category does this picture belong to"
    return [
        {"name": "mni_qa", "layout": "medqa", "root": "mni_qa"},
        {"name": "mni_yesno", "layout": "pubmedqa", "root": "mni_yesno"},
        {"name": "mni_vqa", "layout": "slake_vqa", "root": "mni_slake"},
        {"name": "mni_tissue_vqa", "layout": "path_vqa", "root": "mni_tissue_vqa"},
        {"name": "mni_rec", "layout": "slake_rec", "root": "mni_slake"},
        {"name": "mni_mask_rec", "layout": "sa_med2d_rec", "root": "mni_mask"},
        {"name": "mni_reg", "layout": "slake_reg", "root": "mni_slake"},
        {"name": "mni_mask_reg", "layout": "sa_med2d_reg", "root": "mni_mask"},
        {"name": "mni_caption", "layout": "mpx_single", "root": "mni_mpx"},
        {"name": "mni_tissue_caption", "layout": "jsonl", "root": "mni_tissue_caption"},
        _archive("mni_t1", selection.position_classes(), shown),
        _archive("mni_gray", selection.position_classes(), shown),
    ]


def _archive(name: str, classes: list[str], prompt: str) -> dict[str, object]:
    options = {"flag": name, "classes": classes, "prompt": prompt}
    return {"name": name, "layout": "medmnist", "root": name, "options": options}


def _manifest(seed: int) -> dict[str, object]:
    return {
        "version": VERSION,
        "seed": seed,
        "made_from": f"nilearn {version('nilearn')}",
        "terms": TERMS,
        "conventions": CONVENTIONS,
        "not_here": NOT_HERE,
        "files": {
            TABLE: "one row per picture: file, index inside an archive, split, plane, position, kind of picture",
            "datasets.yaml": "name, layout, folder and class names of each dataset",
            "mni_slake/": "Slake layout: questions, referring expressions and boxes on one set of pictures",
            "mni_mpx/": "MPx-Single layout: captions",
            "mni_t1/": "MedMNIST layout: eight balanced classes of plane and position, on the T1 volume",
            "mni_gray/": "MedMNIST layout: the same classes, on the gray-matter map",
            "mni_tissue_vqa/": "Path-VQA layout: questions on tissue maps and T1 pictures; no validation questions",
            "mni_mask/": "SA-Med2D layout: masks of structures on T1 pictures, and lists of the pictures of each split",
            "mni_tissue_caption/": "generic JSONL: captions of tissue maps",
            "mni_qa/": "MedQA layout: questions on the template's coordinates, planes and pictures, with five options",
            "mni_yesno/": "PubMedQA layout: questions on the same, decided with yes, no, or maybe where it cannot be",
        },
    }
