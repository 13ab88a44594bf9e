"""Tiny datasets in the published raw layouts, with invented content and the layouts' known quirks."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

SLAKE_SIZES = {1: (200, 100), 2: (50, 400), 3: (300, 150), 4: (64, 32), 700: (20, 40)}


def slake_record(image: int, qid: int, question: str, answer: str, language: str = "en") -> dict[str, Any]:
    """A record in one of the three key orders that the published files mix."""
    record = {
        "img_id": image,
        "img_name": f"xmlab{image}/source.jpg",
        "question": question,
        "answer": answer,
        "q_lang": language,
        "location": "Abdomen",
        "modality": "CT",
        "answer_type": "OPEN",
        "base_type": "vqa",
        "triple": ["vhead", "_", "_"],
    }
    orders: list[dict[str, Any]] = [
        {**record, "content_type": "Organ", "qid": qid},
        {**record, "qid": qid, "content_type": "Organ"},
        {"content_type": "Organ", **record, "qid": qid},
    ]
    return orders[qid % 3]


SLAKE_QUESTIONS = {
    "train.json": [
        slake_record(1, 0, "Which organ is striped?", "Spleen"),
        slake_record(1, 1, "哪个器官有条纹?", "脾脏", "zh"),
        slake_record(2, 2, "Is the mint fresh or dried?", "Fresh"),
        slake_record(2, 3, "What colour is the frame?", ""),
    ],
    "validation.json": [slake_record(3, 4, "How many squares are there?", "Two")],
    "test.json": [
        slake_record(1, 5, "Is the image tall?", "No"),
        slake_record(4, 6, "Where is the square?", "Upper left"),
        slake_record(4, 7, "方块在哪里?", "左上", "zh"),
    ],
}

SLAKE_BOXES: dict[int, list[dict[str, list[float]]] | None] = {
    1: [{"Liver": [20, 10, 100, 50]}, {"Left Kidney": [150.0, 49.5, 50.0, 50.5]}],
    2: [{"Lung Cancer": [5, 40, 10, 40]}, {"Lung Cancer": [30, 200, 20, 200]}, {"Heart": [0, 0, 50, 400]}],
    3: [],
    4: None,
}


@pytest.fixture
def slake_root(tmp_path: Path) -> Path:
    """A Slake folder with images of different shapes: 1 and 2 for training, 3 and 4 for testing."""
    root = tmp_path / "slake"
    for image, size in SLAKE_SIZES.items():
        folder = root / "imgs" / f"xmlab{image}"
        folder.mkdir(parents=True)
        Image.new("L", size, color=image % 256).save(folder / "source.jpg")
        boxes = SLAKE_BOXES.get(image)
        if boxes is not None:
            (folder / "detection.json").write_text(json.dumps(boxes))
    for name, records in SLAKE_QUESTIONS.items():
        (root / name).write_text(json.dumps(records, ensure_ascii=False), encoding="utf-8")
    (root / "train.txt").write_text("xmlab1 xmlab2\n")
    (root / "test.txt").write_text("xmlab3\nxmlab4")
    return root


@pytest.fixture
def slake_without_lists(slake_root: Path) -> Path:
    for name in ("train.txt", "test.txt"):
        (slake_root / name).unlink()
    return slake_root


# `Any`: numpy's stub of `savez` takes keywords for its own flag otherwise.
Arrays = dict[str, Any]


@pytest.fixture
def medmnist_arrays() -> Callable[..., Arrays]:
    def make(side: int = 28, classes: int = 3, colour: bool = False) -> Arrays:
        rng = np.random.default_rng(side)
        arrays: Arrays = {}
        for split, count in (("train", 8), ("val", 2), ("test", 4)):
            shape = (count, side, side, 3) if colour else (count, side, side)
            arrays[f"{split}_images"] = rng.integers(0, 256, shape, dtype=np.uint8)
            arrays[f"{split}_labels"] = (np.arange(count, dtype=np.uint8) % classes)[:, None]
        return arrays

    return make


@pytest.fixture
def medmnist_root(tmp_path: Path, medmnist_arrays: Callable[..., Arrays]) -> Path:
    root = tmp_path / "medmnist"
    root.mkdir()
    np.savez_compressed(root / "dermamnist.npz", **medmnist_arrays(28, 7, colour=True))
    np.savez_compressed(root / "dermamnist_64.npz", **medmnist_arrays(64, 7, colour=True))
    np.savez_compressed(root / "organsmnist.npz", **medmnist_arrays(28, 11))
    np.savez_compressed(root / "stripes.npz", **medmnist_arrays(28, 3))
    return root


MPX_ROWS = [
    ["synpic1.jpg", 'A grey square.\nIt has a "frame".', "caption"],
    ["synpic1.jpg", "CT - noncontrast", "modality"],
    ["synpic1.jpg", "Axial", "plane"],
    ["synpic2.jpg", "", "caption"],
    ["synpic2.jpg", "None", "caption"],
    ["synpic2.jpg", "A white square, no frame", "caption"],
]


@pytest.fixture
def mpx_root(tmp_path: Path) -> Path:
    """MPx captions; the test file has an index column and a column that is empty but for one row."""
    root = tmp_path / "mpx"
    (root / "images").mkdir(parents=True)
    for number in (1, 2):
        Image.new("L", (30, 20), color=100 * number).save(root / "images" / f"synpic{number}.jpg")
    with (root / "MedPix_single_train.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["name", "context", "type"], *MPX_ROWS])
    with (root / "MedPix_single_test.csv").open("w", newline="", encoding="utf-8") as file:
        rows = [[i, *row, "note" if i == 0 else ""] for i, row in enumerate(MPX_ROWS)]
        csv.writer(file).writerows([["", "name", "context", "type", "remark"], *rows])
    return root


def pubmedqa_record(number: int) -> dict[str, Any]:
    return {
        "QUESTION": f"Does chewing mint shorten {number} naps?",
        "CONTEXTS": ["Forty cats chewed mint."],
        "LABELS": ["BACKGROUND"],
        "MESHES": ["Cats"],
        "YEAR": None,
        "final_decision": ("yes", "no", "maybe")[number % 3],
        "LONG_ANSWER": "It depends on the café.",
    }


@pytest.fixture
def pubmedqa_root(tmp_path: Path) -> Path:
    """The repository's form: ten records, of which the last four are the test set."""
    root = tmp_path / "pubmedqa"
    root.mkdir()
    records = {str(90000000 + i): pubmedqa_record(i) for i in range(10)}
    (root / "ori_pqal.json").write_text(json.dumps(records, indent=4))
    truth = {key: record["final_decision"] for key, record in list(records.items())[6:]}
    (root / "test_ground_truth.json").write_text(json.dumps(truth))
    return root


@pytest.fixture
def pubmedqa_folds(tmp_path: Path) -> Path:
    """The split script's form: training records 0..3, development records 4 and 5, test records 6..9."""
    root = tmp_path / "folds"
    parts = {"pqal_fold0/train_set": range(4), "pqal_fold0/dev_set": range(4, 6), "test_set": range(6, 10)}
    for name, numbers in parts.items():
        path = root / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({str(90000000 + i): pubmedqa_record(i) for i in numbers}))
    return root


MEDQA_QUESTIONS = [
    "A potter has a temperature of 38.2°C. Which step is next?",
    'What is the best glaze?"',
    'He says "more clay". What is meant?',
    "First line.\nSecond line?",
    " ".join(["word"] * 60) + "?",
]


@pytest.fixture
def medqa_root(tmp_path: Path) -> Path:
    root = tmp_path / "medqa"
    folder = root / "data_clean" / "data_clean" / "questions" / "US"
    folder.mkdir(parents=True)
    for split in ("train", "dev", "test"):
        lines = []
        for number, question in enumerate(MEDQA_QUESTIONS):
            options = {letter: f"{split} option {letter}" for letter in "ABCDE"}
            options["B"] = 'Measure zinc\n"' if number == 1 else "Measure zinc"
            record = {"question": question, "answer": options["B"], "options": options}
            record |= {"meta_info": "step1" if number % 2 else "step2&3", "answer_idx": "B"}
            lines.append(json.dumps(record, ensure_ascii=False) + "\n")
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    return root
