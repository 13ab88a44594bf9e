"""The pass over a file of hundreds of MB: in bounded memory, and seen to go on."""

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from unimed_model.data import load_dataset
from unimed_model.data.readers.sa_med2d.scan import entries
from unimed_model.errors import UserError


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
        def __init__(self, items: None, *, total: int, delay: float, **_: object) -> None:
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


def _refusal(content: str, tmp_path: Path) -> tuple[str, int]:
    """What a process of its own says of a file that it must refuse, and the megabytes it grew by for that."""
    path = tmp_path / "SAMed2D_v1.json"
    path.write_text(content)
    program = """
import resource, sys
from pathlib import Path
import ijson, tqdm
from unimed_model.data.readers.sa_med2d.scan import entries
from unimed_model.errors import UserError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    print(sum(1 for _ in entries(Path(sys.argv[1]))))
except UserError as error:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, error)
"""
    ended = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    grown, _, message = ended.stdout.partition(" ")
    return message, int(grown) // 1024


@pytest.mark.parametrize("form", ['{"a":%s}', '{"a":["b.png",-%s]}', '{"a":[%s.5]}'])
def test_a_number_of_any_length_is_refused_by_a_process_that_lives(tmp_path: Path, form: str) -> None:
    message, _ = _refusal(form % ("9" * 4301), tmp_path)
    assert "SAMed2D_v1.json is not complete, valid JSON (parse error: " in message
    assert "overflow" in message
    assert len(message) < len(str(tmp_path)) + 200


@pytest.mark.parametrize("nested", ['{"a":', "[", '{"a":['])
def test_what_is_nested_is_refused_before_it_is_built(tmp_path: Path, nested: str) -> None:
    message, grown = _refusal(('{"b":' if nested == "[" else "") + nested * 40_000, tmp_path)
    assert "' must be followed by a list of mask files." in message
    assert grown < 40


@pytest.mark.parametrize(
    "content",
    [
        '{"a": ["' + "x" * 9_000_000 + '"]}',
        '{"' + "x" * 9_000_000,
        '{"a": [' + '"mask.png", ' * 800_000,
        " " * 9_000_000,
    ],
    ids=["mask", "image", "list", "blanks"],
)
def test_an_entry_has_a_length(tmp_path: Path, content: str) -> None:
    message, grown = _refusal(content, tmp_path)
    assert "SAMed2D_v1.json: the entry after byte 0 is longer than 4,000,000 bytes." in message
    assert grown < 60


@pytest.mark.parametrize("value", ['"a.png"', "3", "null", "true", "{}", '["a.png", 3]', "[null]", "[[]]", "[{}]"])
def test_nothing_but_a_list_of_texts_follows_an_image(tmp_path: Path, value: str) -> None:
    path = tmp_path / "SAMed2D_v1.json"
    path.write_text(f'{{"one.png": ["m.png"], "two.png": {value}, "three.png": []}}')
    read = entries(path)
    assert next(read) == ("one.png", ["m.png"])
    with pytest.raises(UserError, match=r"SAMed2D_v1\.json: 'two\.png' must be followed by a list of mask files"):
        next(read)


@pytest.mark.parametrize("start", ["\ufeff", " " * 100, "\ufeff\n" + "\t" * 70_000])
def test_a_mark_of_the_byte_order_and_blanks_may_come_first(tmp_path: Path, start: str) -> None:
    path = tmp_path / "SAMed2D_v1.json"
    path.write_text(start + '{"é.png": [], "b.png": ["c.png", "d.png"]}', encoding="utf-8")
    assert list(entries(path)) == [("é.png", []), ("b.png", ["c.png", "d.png"])]


@pytest.mark.parametrize("name", ["images/ct_00--" + "x" * 300, "images/ct_00--" + "é" * 150, "ct_00--/" + "x/" * 3000])
@pytest.mark.parametrize("which", ["image", "mask"])
def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path, name: str, which: str) -> None:
    root = _write(tmp_path / "some", 1)
    image = "images/ct_00--SET--case--z_1.png"
    content = {f"{name}/ct_00--SET--a--z_1.png": []} if which == "image" else {image: [name]}
    (root / "SAMed2D_v1.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"SAMed2D_v1\.json, .* is longer than any file can have") as caught:
        load_dataset("sa_med2d_rec", root)
    assert len(str(caught.value)) < len(str(root)) + 600
