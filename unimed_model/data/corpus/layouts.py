"""The sample corpus in the published raw layouts: Slake (VQA, REC, REG), MedMNIST (CLS), MPx (RG).

Each function writes one dataset folder and returns one row per picture, for the corpus's table of pictures.
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import selection, wording
from .anatomy import Slice
from .pictures import Row, row, write_json, write_picture
from .rendering import Placement, render

ARCHIVE_SIDE = 64
QUESTIONS_PER_PICTURE = 2
BOXES_PER_PICTURE = 3
SHARE_OF_TISSUE_MAPS = 0.2
"""Pictures of the Slake folder that show a tissue map instead of the T1 volume; these have no boxes."""


def write_slake(folder: Path, slices: Sequence[Slice], counts: dict[str, int], rng: np.random.Generator) -> list[Row]:
    """Write a Slake folder: question files, per-image folders, and the lists of images of each split."""
    rows: list[Row] = []
    for split in selection.SPLITS:
        first = len(rows)
        questions: list[dict[str, Any]] = []
        for slice_ in selection.draw(selection.of_split(slices, split), counts[split], rng):
            image = folder / "imgs" / f"xmlab{len(rows)}"
            kind = str(rng.choice(["gray", "white"])) if rng.random() < SHARE_OF_TISSUE_MAPS else "t1"
            placement = write_picture(image / "source.jpg", slice_, kind, rng)
            asked = _slake_questions(slice_, kind, len(rows), rng)
            boxes = _slake_boxes(slice_, placement, rng) if kind == "t1" else []
            write_json(image / "question.json", asked)
            write_json(image / "detection.json", boxes)
            questions += asked
            rows.append(row(folder, image / "source.jpg", split, slice_, kind))
        write_json(folder / f"{split}.json", questions)
        names = [f"xmlab{number}" for number in range(first, len(rows))]
        (folder / f"{split}.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    return rows


def write_mpx(folder: Path, slices: Sequence[Slice], counts: dict[str, int], rng: np.random.Generator) -> list[Row]:
    """Write an MPx folder: RadFM's two tables with a caption, a modality and a plane per picture."""
    rows: list[Row] = []
    for split in selection.SPLITS:
        records: list[tuple[str, str, str]] = []
        for slice_ in selection.draw(selection.of_split(slices, split), counts[split], rng):
            name = f"mni{len(rows):05d}.jpg"
            write_picture(folder / "images" / name, slice_, "t1", rng)
            records.append((name, wording.caption(slice_, "t1"), "caption"))
            records.append((name, "MR - T1W", "modality"))
            records.append((name, slice_.plane.name.capitalize(), "plane"))
            rows.append(row(folder, folder / "images" / name, split, slice_, "t1"))
        with (folder / f"MedPix_single_{split}.csv").open("w", newline="", encoding="utf-8") as stream:
            table = csv.writer(stream, lineterminator="\n")
            table.writerow(("name", "context", "type"))
            table.writerows(records)
    return rows


def write_t1_archive(
    folder: Path, slices: Sequence[Slice], counts: dict[str, int], rng: np.random.Generator
) -> list[Row]:
    """Write ``mni_t1_64.npz``: eight balanced classes of plane and position, drawn from the T1 volume."""
    return _write_archive(folder, "t1", slices, counts, rng)


def write_gray_archive(
    folder: Path, slices: Sequence[Slice], counts: dict[str, int], rng: np.random.Generator
) -> list[Row]:
    """Write ``mni_gray_64.npz``: the same eight classes, drawn from the gray-matter map."""
    return _write_archive(folder, "gray", slices, counts, rng)


def _write_archive(
    folder: Path, kind: str, slices: Sequence[Slice], counts: dict[str, int], rng: np.random.Generator
) -> list[Row]:
    """Write one MedMNIST archive with train, val and test; the validation split is empty."""
    arrays: dict[str, NDArray[np.uint8]] = {
        "val_images": np.zeros((0, ARCHIVE_SIDE, ARCHIVE_SIDE), np.uint8),
        "val_labels": np.zeros((0, 1), np.uint8),
    }
    rows: list[Row] = []
    path = folder / f"{folder.name}_{ARCHIVE_SIDE}.npz"
    for split in selection.SPLITS:
        drawn = _balanced(selection.of_split(slices, split), counts[split], rng)
        arrays[f"{split}_images"] = np.stack([render(slice_, kind, ARCHIVE_SIDE, rng)[0] for _, slice_ in drawn])
        arrays[f"{split}_labels"] = np.array([[label] for label, _ in drawn], np.uint8)
        rows += [row(folder, path, split, slice_, kind) | {"index": index} for index, (_, slice_) in enumerate(drawn)]
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, allow_pickle=False, **arrays)
    return rows


def _balanced(slices: Sequence[Slice], count: int, rng: np.random.Generator) -> list[tuple[int, Slice]]:
    """Draw ``count`` slices with their class, as many of each class, in random order."""
    classes = selection.position_classes()
    drawn: list[tuple[int, Slice]] = []
    for label, name in enumerate(classes):
        of_class = [slice_ for slice_ in slices if selection.position_class(slice_) == name]
        drawn += [(label, slice_) for slice_ in selection.draw(of_class, count // len(classes), rng)]
    return [drawn[index] for index in rng.permutation(len(drawn))]


def _slake_questions(slice_: Slice, kind: str, image: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    possible = wording.questions(slice_, kind)
    chosen = sorted(rng.choice(len(possible), QUESTIONS_PER_PICTURE, replace=False))
    return [
        {
            "img_id": image,
            "img_name": f"xmlab{image}/source.jpg",
            "question": possible[index].text,
            "answer": possible[index].answer,
            "q_lang": "en",
            "location": "Brain",
            "modality": "MRI",
            "answer_type": "CLOSED" if possible[index].closed else "OPEN",
            "base_type": "vqa",
            "content_type": possible[index].content,
            "triple": ["vhead", "_", "_"],
            "qid": image * QUESTIONS_PER_PICTURE + rank,
        }
        for rank, index in enumerate(chosen)
    ]


def _slake_boxes(slice_: Slice, placement: Placement, rng: np.random.Generator) -> list[dict[str, Any]]:
    names = list(slice_.structures)
    chosen = sorted(rng.choice(len(names), min(BOXES_PER_PICTURE, len(names)), replace=False))
    return [{names[index]: list(placement.box(slice_.structures[names[index]]))} for index in chosen]
