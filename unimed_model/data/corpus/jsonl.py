"""The sample corpus in the generic JSONL form (RG): captions of tissue maps."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from . import selection, tissue_wording
from .anatomy import Slice
from .pictures import Row, row, write_json_lines, write_picture

PROMPTS = (
    "Describe this tissue map.",
    "What does this map of the brain show?",
    "Write a caption for this map.",
    "Summarise what is seen in this section.",
)
"""Instructions of training; testing asks the first."""


def write_captions(
    folder: Path, slices: Sequence[Slice], counts: dict[str, int], rng: np.random.Generator
) -> list[Row]:
    """Write one line per picture of a gray- or white-matter map."""
    rows: list[Row] = []
    for split in selection.SPLITS:
        records: list[dict[str, object]] = []
        for number, slice_ in enumerate(selection.draw(selection.of_split(slices, split), counts[split], rng)):
            name = f"images/{split}_{number:04d}.jpg"
            kind = str(rng.choice(tissue_wording.maps(slice_)))
            write_picture(folder / name, slice_, kind, rng)
            records.append(
                {
                    "image": name,
                    "prompt": str(rng.choice(PROMPTS)) if split == "train" else PROMPTS[0],
                    "answer": tissue_wording.caption(slice_, kind),
                    "task": "RG",
                    "dataset": folder.name,
                    "id": f"{split}-{number}",
                }
            )
            rows.append(row(folder, folder / name, split, slice_, kind))
        write_json_lines(folder / f"{split}.jsonl", records)
    return rows
