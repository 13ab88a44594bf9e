"""The index of a prepared split: one Parquet row per sample, opened in a moment and turned into samples when asked.

Columns: `sample_id, image_id, patient_id, instruction, answer, boxes` (four whole numbers a box, one after the
other), `meta` (JSON), and where the image is: `image_kind, image_file` (relative to the data root), `image_key,
image_index`. `instruction` is empty where it follows from the pool and the subject in `meta`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from unimed_model.data.findings import Findings
from unimed_model.data.images import ImageArray, ImageFile, ImageSource
from unimed_model.data.sample import Sample, Samples, frozen
from unimed_model.data.tables import read_table, write_table
from unimed_model.data.templates import evaluation_instruction

if TYPE_CHECKING:
    import pyarrow as pa


def write_index(path: Path, samples: Sequence[Sample], root: Path, *, private: bool = False) -> None:
    """Write the index of a split, whole or not at all.

    Args:
        path: of the index.
        samples: of the split.
        root: what image files are named relative to.
        private: let its owner alone read it.
    """
    import pyarrow as pa

    text, number = pa.string(), pa.int32()
    fields = {
        "sample_id": (text, [sample.sample_id for sample in samples]),
        "image_id": (text, [sample.image_id for sample in samples]),
        "patient_id": (text, [sample.patient_id for sample in samples]),
        "instruction": (text, [None if _follows(sample) else sample.instruction for sample in samples]),
        "answer": (text, [sample.answer for sample in samples]),
        "boxes": (pa.list_(pa.int16()), [[value for box in sample.boxes for value in box] for sample in samples]),
        "meta": (text, [json.dumps(dict(sample.meta), ensure_ascii=False) for sample in samples]),
    }
    images = [_place(sample.image_source, root) for sample in samples]
    for column, name in enumerate(("image_kind", "image_file", "image_key", "image_index")):
        fields[name] = (number if name == "image_index" else text, [image[column] for image in images])
    write_table(path, {name: pa.array(values, kind) for name, (kind, values) in fields.items()}, private)


def _follows(sample: Sample) -> bool:
    pool = sample.meta.get("templates")
    return pool is not None and evaluation_instruction(pool, sample.meta.get("subject", "")) == sample.instruction


def _place(source: ImageSource | None, root: Path) -> tuple[str | None, str | None, str, int]:
    if source is None:
        return None, None, "", 0
    kind = next(name for name, cls in _kinds().items() if type(source) is cls)
    return (kind, os.path.relpath(source.path, root), *source.place)


@cache
def _kinds() -> Mapping[str, type[Any]]:
    from unimed_model.data.cells import ImageCell

    return {"file": ImageFile, "array": ImageArray, "cell": ImageCell}


class IndexedSamples(Samples):
    """The samples of a prepared split, made one by one from the rows of its index.

    Args:
        path: the index.
        root: what its image files are relative to.
        fixed: what all its samples have in common: `dataset`, `task`, `split`, `restricted`.
        findings: what was found wrong when it was prepared.

    Raises:
        UserError: the index is damaged.
    """

    def __init__(self, path: Path, root: Path, fixed: Mapping[str, Any], findings: Findings) -> None:
        super().__init__((), findings)
        self._origin = (path, root, dict(fixed), findings)
        self._root = root
        self._fixed = dict(fixed)
        self._columns: dict[str, pa.Array] = read_table(path, "the index of a prepared split")
        self._length = len(self._columns["sample_id"])

    def __reduce__(self) -> tuple[Any, ...]:
        return IndexedSamples, self._origin

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | Sequence[Sample]:
        if isinstance(index, slice):
            return tuple(self._sample(row) for row in range(*index.indices(self._length)))
        row = index + self._length if index < 0 else index
        if not 0 <= row < self._length:
            raise IndexError(f"sample {index} of {self._length}")
        return self._sample(row)

    def image_files(self) -> set[Path]:
        """Return the files that hold the images."""
        return {self._root / file for file in self._columns["image_file"].unique().to_pylist() if file is not None}

    def _sample(self, row: int) -> Sample:
        values = {name: column[row].as_py() for name, column in self._columns.items()}
        meta = {key: frozen(value) for key, value in json.loads(values["meta"]).items()}
        boxes = values["boxes"]
        instruction = values["instruction"]
        if instruction is None:
            instruction = evaluation_instruction(meta["templates"], meta.get("subject", ""))
        return Sample(
            **self._fixed,
            sample_id=values["sample_id"],
            image_id=values["image_id"],
            patient_id=values["patient_id"],
            instruction=instruction,
            answer=values["answer"],
            boxes=tuple(tuple(boxes[start : start + 4]) for start in range(0, len(boxes), 4)),
            meta=meta,
            image_source=self._image(values),
        )

    def _image(self, values: Mapping[str, Any]) -> ImageSource | None:
        if values["image_kind"] is None:
            return None
        path = self._root / values["image_file"]
        if values["image_kind"] == "file":
            return ImageFile(path)
        source: ImageSource = _kinds()[values["image_kind"]](path, values["image_key"], values["image_index"])
        return source
