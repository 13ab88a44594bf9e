"""The pass over a file of hundreds of MB: in bounded memory, and seen to go on."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from unimed_model.data import load_dataset
from unimed_model.data.readers.sa_med2d.scan import entries


def _write(root: Path, cases: int) -> Path:
    root.mkdir()
    with (root / "SAMed2D_v1.json").open("w") as file:
        for number in range(cases * 20):
            stem = f"{('ct_00', 'mr_t1')[number % 2]}--SET--case{number // 20:06d}--z_{number % 20:04d}"
            masks = [f"masks/{stem}--{i:04d}_000.png" for i in range(4)]
            file.write(f"{',' if number else '{'} {json.dumps(f'images/{stem}.png')}: {json.dumps(masks)}")
        file.write("}")
    labels = {f"shape_{i}": f"{i:04d}" for i in range(4)}
    (root / "SAMed2D_v1_class_mapping_id.json").write_text(json.dumps({"SET": labels}))
    return root


def _peak(root: Path) -> int:
    """Most bytes that Python held at a time while a draw of a fixed size was read."""
    tracemalloc.start()
    samples = load_dataset("sa_med2d_rec", root, images=False, per_modality_train=100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(samples) == 200
    return peak


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    small, large = _write(tmp_path / "small", 30), _write(tmp_path / "large", 400)
    _peak(small)  # what is imported at first is not counted
    assert (large / "SAMed2D_v1.json").stat().st_size > 2_000_000
    assert _peak(large) < 1.5 * _peak(small)


def test_every_byte_that_is_read_moves_the_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(tmp_path / "some", 40) / "SAMed2D_v1.json"
    bars: list[Any] = []

    class Bar:
        def __init__(self, *, total: int, delay: float, **_: object) -> None:
            self.total, self.delay, self.done = total, delay, 0
            bars.append(self)

        def __enter__(self) -> "Bar":
            return self

        def __exit__(self, *_: object) -> None: ...

        def update(self, count: int) -> None:
            self.done += count

    monkeypatch.setattr("tqdm.tqdm", Bar)
    assert sum(1 for _ in entries(path)) == 800
    assert [(bar.total, bar.done, bar.delay) for bar in bars] == [(path.stat().st_size, path.stat().st_size, 2)]
