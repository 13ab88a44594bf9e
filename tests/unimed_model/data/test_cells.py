import hashlib
import io
import pickle
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from unimed_model.data import cells
from unimed_model.data.cells import ImageCell, find_shards, read_rows, require_whole
from unimed_model.data.files import noting
from unimed_model.data.images import ImageFile
from unimed_model.errors import UserError

KIND = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def _picture(number: int, size: tuple[int, int] = (6, 4)) -> Image.Image:
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def _same(image: Image.Image, other: Image.Image) -> bool:
    return np.array_equal(np.asarray(image), np.asarray(other))


def _encoded(image: Image.Image, form: str = "PNG") -> bytes:
    stream = io.BytesIO()
    image.save(stream, form)
    return stream.getvalue()


def _write(path: Path, images: list[bytes | None], group: int = 2, kind: pa.DataType = KIND) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {
        "image": pa.array([{"bytes": content, "path": None} for content in images], kind),
        "question": [f"{path.name[:11]} {row}?" for row in range(len(images))],
    }
    pq.write_table(pa.table(columns), path, row_group_size=group)
    return path


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    return _write(tmp_path / "train-00000-of-00001.parquet", [_encoded(_picture(number)) for number in range(7)])


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """A root with shards of 3, 2 and 4 rows."""
    for number, rows in enumerate((3, 2, 4)):
        images: list[bytes | None] = [_encoded(_picture(10 * number + row)) for row in range(rows)]
        _write(tmp_path / "data" / f"train-{number:05d}-of-00003-ab{number}.parquet", images)
    return tmp_path


def test_every_row_gives_its_own_image(shard: Path) -> None:
    for row in (6, 0, 3, 2, 5, 1, 4):
        opened = ImageCell(shard, "image", row).open()
        assert opened.mode == "RGB"
        assert _same(opened, _picture(row))


def test_place_size_and_pickling(shard: Path) -> None:
    cell = pickle.loads(pickle.dumps(ImageCell(shard, "image", 3)))
    assert (cell, cell.place, cell.path) == (ImageCell(shard, "image", 3), ("image", 3), shard)
    assert cell.size() == cell.open().size == (6, 4)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16", "LA"])
def test_pixels_are_converted_as_those_of_files(tmp_path: Path, mode: str) -> None:
    grey = _picture(1).convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    form = "TIFF" if mode == "CMYK" else "PNG"
    content = _encoded(deep if mode == "I;16" else _picture(1).convert(mode), form)
    (tmp_path / "file").write_bytes(content)
    path = _write(tmp_path / "a.parquet", [content])
    assert _same(ImageCell(path, "image", 0).open(), ImageFile(tmp_path / "file").open())


def test_a_file_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.parquet", [_encoded(_picture(1))])
    assert _same(ImageCell(path, "image", 0).open(), _picture(1))
    _write(path, [_encoded(_picture(2, (30, 20)))] * 3)
    assert _same(ImageCell(path, "image", 0).open(), _picture(2, (30, 20)))


def test_a_row_group_is_read_once_for_its_neighbours(shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: Counter[int] = Counter()
    read = cells._read_cells

    def counting(file: Any, group: int, column: str) -> Any:
        reads[group] += 1
        return read(file, group, column)

    monkeypatch.setattr(cells, "_read_cells", counting)
    for row in range(7):
        ImageCell(shard, "image", row).open()
    assert reads == {0: 1, 1: 1, 2: 1, 3: 1}


def test_images_that_cannot_be_opened_are_named(tmp_path: Path) -> None:
    whole = _encoded(_picture(1), "JPEG")
    path = _write(tmp_path / "a.parquet", [None, b"", whole[: len(whole) // 2], b"no image"])
    for row, problem in enumerate(("is empty", "is empty", "cannot be", "is not a readable image")):
        with pytest.raises(UserError, match=rf"a\.parquet, row {row}, image {problem}"):
            ImageCell(path, "image", row).open()
    with pytest.raises(UserError, match="row 3, image is not a readable image"):
        ImageCell(path, "image", 3).size()


def test_decompression_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(tmp_path / "a.parquet", [_encoded(_picture(1))])
    monkeypatch.setattr("unimed_model.data.images.MOST_PIXELS", 20)
    with pytest.raises(UserError, match=r"row 0, image is refused: it has 6 x 4 pixels"):
        ImageCell(path, "image", 0).open()


def test_wrong_places_are_named(shard: Path, tmp_path: Path) -> None:
    for row in (7, -1):
        with pytest.raises(UserError, match=f"has 7 rows and no row {row}"):
            ImageCell(shard, "image", row).open()
    with pytest.raises(UserError, match="lacks the column 'picture'; it has image, question"):
        ImageCell(shard, "picture", 0).open()
    with pytest.raises(UserError, match=r"'question' must hold images as struct\{bytes, path\}, not string"):
        ImageCell(shard, "question", 0).open()
    with pytest.raises(UserError, match=r"absent\.parquet is missing"):
        ImageCell(tmp_path / "absent.parquet", "image", 0).open()


def test_rows_come_shard_after_shard(three: Path) -> None:
    shards = find_shards(three, "train")
    rows = list(read_rows(shards, ["question"], "image"))
    assert [row.values["question"] for row in rows] == [
        f"train-0000{number} {row}?" for number, count in enumerate((3, 2, 4)) for row in range(count)
    ]
    expected = [(shard, row) for shard, count in zip(shards, (3, 2, 4), strict=True) for row in range(count)]
    assert [(row.image.path, row.image.index) for row in rows if row.image] == expected
    assert [row.where for row in rows] == [f"{path}, row {index}" for path, index in expected]


def test_digests_are_those_of_the_bytes(tmp_path: Path) -> None:
    same, other = _encoded(_picture(1)), _encoded(_picture(2))
    shards = [
        _write(tmp_path / "train-00000-of-00002.parquet", [same, other, None, b""]),
        _write(tmp_path / "train-00001-of-00002.parquet", [other, same]),
    ]
    expected = [hashlib.blake2b(content, digest_size=16).hexdigest() for content in (same, other)]
    found = [row.digest for row in read_rows(shards, [], "image")]
    assert found == [expected[0], expected[1], None, None, expected[1], expected[0]]


def test_large_binary_and_null_cells(tmp_path: Path) -> None:
    kind = pa.struct({"bytes": pa.large_binary(), "path": pa.string()})
    table = pa.table({"image": pa.array([{"bytes": _encoded(_picture(5)), "path": "x.png"}, None], kind)})
    pq.write_table(table, tmp_path / "a-00000-of-00001.parquet")
    rows = list(read_rows([tmp_path / "a-00000-of-00001.parquet"], [], "image"))
    assert [row.digest is None for row in rows] == [False, True]
    assert rows[0].image is not None
    assert rows[0].image.size() == (6, 4)


@pytest.mark.parametrize("level", [".", "data"])
def test_shards_are_found_at_each_level(three: Path, tmp_path_factory: pytest.TempPathFactory, level: str) -> None:
    assert [path.name for path in find_shards(three / level, "train")] == [
        f"train-0000{number}-of-00003-ab{number}.parquet" for number in range(3)
    ]
    above = tmp_path_factory.mktemp("above")
    shutil.copytree(three, above / "path-vqa")
    assert len(find_shards(above, "train")) == 3
    assert find_shards(above, "test") == []
    assert find_shards(above / "absent", "train") == []


def test_another_splits_shards_are_not_taken(three: Path) -> None:
    _write(three / "data" / "train-small-00000-of-00001.parquet", [None])
    assert len(find_shards(three, "train")) == 3
    assert len(find_shards(three, "train-small")) == 1


def test_missing_shards_are_named(three: Path) -> None:
    shards = find_shards(three, "train")
    require_whole(shards)
    with pytest.raises(
        UserError, match=r"data: of 3 shards, train-00000-of-00003 and train-00002-of-00003 are missing"
    ):
        list(read_rows(shards[1:2], ["question"]))
    with pytest.raises(UserError, match=r"of 3 shards, train-00001-of-00003 is missing"):
        require_whole([shards[0], shards[2]])


def test_shards_of_two_downloads_are_not_mixed(three: Path) -> None:
    extra = _write(three / "data" / "train-00000-of-00002-ff.parquet", [None])
    with pytest.raises(UserError, match=r"is of another set than"):
        require_whole(find_shards(three, "train"))
    extra.rename(three / "data" / "train-00001-of-00003-ff.parquet")
    with pytest.raises(UserError, match=r"train-00001-of-00003-ff\.parquet is of another set than"):
        require_whole(find_shards(three, "train"))


def test_a_number_beyond_measure_is_a_sentence(tmp_path: Path) -> None:
    path = _write(tmp_path / "train-00000-of-99999999999.parquet", [None])
    with pytest.raises(UserError, match="train-00010-of-99999999999 and others are missing"):
        require_whole([path])


def test_lacking_columns_and_damage_are_named(shard: Path) -> None:
    with pytest.raises(UserError, match="lacks the column 'answer'"):
        list(read_rows([shard], ["answer"]))
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"train-00000-of-00001\.parquet is not a complete, valid Parquet file"):
        list(read_rows([shard], ["question"]))
    with pytest.raises(UserError, match=r"is not a complete, valid Parquet file"):
        ImageCell(shard, "image", 0).open()
    shard.unlink()
    with pytest.raises(UserError, match="is missing"):
        list(read_rows([shard], ["question"]))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=5))
def test_damaged_bytes_give_rows_or_one_sentence(shard: Path, changes: list[tuple[int, int]]) -> None:
    content = bytearray(shard.read_bytes())
    for place, value in changes:
        content[place % len(content)] = value
    damaged = shard.parent / "damaged" / shard.name
    damaged.parent.mkdir(exist_ok=True)
    damaged.write_bytes(content)
    said = _problem(damaged)
    assert said is None or (str(damaged) in said and "\n" not in said)


def _problem(path: Path) -> str | None:
    try:
        for row in read_rows([path], ["question"], "image"):
            assert row.image is not None
            row.image.open()
    except UserError as error:
        return str(error)
    return None


def test_what_was_read_is_noted(three: Path) -> None:
    with noting() as noted:
        list(read_rows(find_shards(three, "train"), ["question"]))
    assert noted == {three / "data", *(three / "data").iterdir()}
