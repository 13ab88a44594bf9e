"""Captions of tissue maps, read as plain JSON lines and compared with the template itself."""

import csv
import json
import re

import numpy as np
from PIL import Image

FOLDER = "mni_tissue_caption"
CAPTION = re.compile(
    r"(Gray|White) matter map of an? (axial|coronal|sagittal) section, (.+)\. "
    r"The tissue fills about (\d+) percent of the section, (.+)\."
)


def lines(corpus, split):
    return [json.loads(line) for line in (corpus / FOLDER / f"{split}.jsonl").read_text().splitlines()]


def pictures(corpus):
    with (corpus / "pictures.csv").open() as stream:
        return {row["file"]: row for row in csv.DictReader(stream)}


def distance(plane, position):
    rounded = 5 * round(abs(position) / 5)
    if plane == "sagittal":
        return f"{rounded} mm from the midline"
    if rounded == 0:
        return "level with the anterior commissure"
    words = {"axial": ("below", "above"), "coronal": ("behind", "in front of")}[plane][position > 0]
    return f"{rounded} mm {words} the anterior commissure"


def balance(plane, tissue, brain):
    """Where more of the tissue lies along the picture's upright axis, which is the section's second one."""
    filled = np.flatnonzero(brain.any(axis=0))
    middle = (filled[0] + filled[-1] + 1) / 2
    above = tissue[:, int(np.ceil(middle)) :].sum() / tissue.sum()
    first, second = ("front", "back") if plane == "axial" else ("upper", "lower")
    if above >= 0.55:
        return f"more of it in the {first} half"
    if above <= 0.45:
        return f"more of it in the {second} half"
    return f"about as much in the {first} as in the {second} half"


def test_every_caption_is_true_of_the_template(corpus, template):
    table = pictures(corpus)
    for split in ("train", "test"):
        for record in lines(corpus, split):
            row = table[f"{FOLDER}/{record['image']}"]
            kind, plane, place, percent, part = CAPTION.fullmatch(record["answer"]).groups()
            position = int(row["position_mm"])
            gray, white = template.tissues(plane, position)
            tissue = {"gray": gray, "white": white}[row["picture"]]
            assert (kind.lower(), plane, row["split"]) == (row["picture"], row["plane"], split)
            assert place == distance(plane, position)
            assert int(percent) == 10 * round(10 * tissue.sum() / (gray | white).sum())
            assert part == balance(plane, tissue, gray | white)


def test_records_have_the_keys_of_the_generic_form(corpus):
    for split in ("train", "test"):
        records = lines(corpus, split)
        assert len({record["id"] for record in records}) == len(records)
        for record in records:
            assert set(record) == {"image", "prompt", "answer", "task", "dataset", "id"}
            assert (record["task"], record["dataset"]) == ("RG", FOLDER)
            with Image.open(corpus / FOLDER / record["image"]) as image:
                assert np.asarray(image).max() > 100, "a map without tissue shows nothing"
    assert len({record["prompt"] for record in lines(corpus, "train")}) > 1
    assert len({record["prompt"] for record in lines(corpus, "test")}) == 1
