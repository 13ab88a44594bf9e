import numpy as np
import pytest
from PIL import Image

from unimed_model.data.files import State
from unimed_model.data.images import MOST_PIXELS, ImageArray, ImageFile
from unimed_model.data.preparation.ledger import read_ledger, write_ledger
from unimed_model.data.preparation.pictures import THUMBNAIL, examine, key_of
from unimed_model.errors import UserError


@pytest.fixture
def pictures(tmp_path):
    """Three pictures: a gradient, one that breaks off, one that is no image."""
    gradient = np.tile(np.arange(256, dtype=np.uint8), (64, 1))
    Image.fromarray(gradient).save(tmp_path / "gradient.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8)).save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:-400])
    (tmp_path / "none.png").write_text("not an image")
    return [ImageFile(tmp_path / name) for name in ("gradient.png", "cut.jpg", "none.png")]


def test_each_image_is_decoded_measured_and_seen_from_afar(pictures):
    found = examine(pictures, {}, quiet=True)
    good, cut, none = (found[key_of(source)] for source in pictures)
    assert (good.width, good.height, good.problem) == (256, 64, "")
    # the weighted mean of a gradient is its value in the middle of the 16 columns, but at the two ends
    expected = np.arange(THUMBNAIL) * 16 + 7.5
    row = np.frombuffer(good.thumbnail, np.uint8).reshape(16, 16)[3]
    np.testing.assert_allclose(row[1:-1], expected[1:-1], atol=0.51)
    assert "cut.jpg cannot be decoded" in cut.problem
    assert "none.png is not a readable image" in none.problem
    assert (cut.thumbnail, none.width) == (b"", 0)


def test_unchanged_images_are_not_opened_again(pictures, monkeypatch):
    known = examine(pictures, {}, quiet=True)
    monkeypatch.setattr(ImageFile, "open", lambda self: pytest.fail(f"{self.path} was opened"))
    assert examine(pictures, known, quiet=True) == known


def test_a_changed_image_is_opened_again_and_no_other(pictures, monkeypatch):
    known = examine(pictures, {}, quiet=True)
    Image.new("L", (5, 7)).save(pictures[2].path)
    opened = []
    whole = ImageFile.open
    monkeypatch.setattr(ImageFile, "open", lambda self: opened.append(self.path) or whole(self))
    again = examine(pictures, known, quiet=True)
    assert opened == [pictures[2].path]
    assert (again[key_of(pictures[2])].width, again[key_of(pictures[2])].height) == (5, 7)


def test_digests_find_a_change_that_size_and_time_hide(pictures):
    import os

    path = pictures[0].path
    known = examine(pictures, {}, digest=True, quiet=True)
    assert len(known[key_of(pictures[0])].state.sha256) == 64
    before, stat = path.read_bytes(), path.stat()
    path.write_bytes(before[:-20] + bytes(20))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert examine(pictures, known, quiet=True) == known
    assert examine(pictures, known, digest=True, quiet=True) != known


def test_a_file_that_was_only_touched_is_unchanged_by_its_digest(pictures, monkeypatch):
    import os

    known = examine(pictures, {}, digest=True, quiet=True)
    for source in pictures:
        os.utime(source.path, ns=(1, 1))
    monkeypatch.setattr(ImageFile, "open", lambda self: pytest.fail("opened"))
    assert examine(pictures, known, digest=True, quiet=True) == known


def test_missing_files_are_left_to_others(tmp_path):
    assert examine([ImageFile(tmp_path / "gone.png")], {}, quiet=True) == {}


def test_an_interrupt_keeps_what_was_found(pictures, monkeypatch):
    kept = []

    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("unimed_model.data.preparation.pictures._BATCH", 1)
    real = ImageFile.open
    monkeypatch.setattr(
        ImageFile, "open", lambda self: real(self) if "gradient" in self.path.name else interrupted(self)
    )
    with pytest.raises(KeyboardInterrupt):
        examine(pictures, {}, quiet=True, keep=lambda found: kept.append(dict(found)))
    assert list(kept[-1]) == [key_of(pictures[0])]


def test_the_ledger_is_read_as_it_was_written(pictures, tmp_path):
    np.savez(tmp_path / "a.npz", stack=np.zeros((2, 4, 4), np.uint8))
    sources = [*pictures, ImageArray(tmp_path / "a.npz", "stack", 1)]
    found = examine(sources, {}, quiet=True, digest=True)
    write_ledger(tmp_path / "out" / "ledger.parquet", found, tmp_path)
    assert read_ledger(tmp_path / "out" / "ledger.parquet", tmp_path) == found
    assert read_ledger(tmp_path / "other.parquet", tmp_path) == {}
    write_ledger(tmp_path / "empty.parquet", {}, tmp_path)
    assert read_ledger(tmp_path / "empty.parquet", tmp_path) == {}


def test_a_damaged_ledger_is_named(tmp_path):
    path = tmp_path / "ledger.parquet"
    path.write_bytes(b"PAR1 but not really PAR1")
    with pytest.raises(UserError, match=r"ledger\.parquet, the ledger of images, is damaged"):
        read_ledger(path, tmp_path)


def test_states_of_folders_follow_their_listing(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    before = State.of(folder)
    assert before.same(State.of(folder))
    import os

    os.utime(folder, ns=(5, 5))
    assert not before.same(State.of(folder))
    assert State.of(tmp_path / "none") is None
    assert not before.same(None)


def test_a_picture_beyond_the_limit_is_refused_unread(tmp_path):
    import struct
    import zlib

    side = int(MOST_PIXELS**0.5) + 2
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    (tmp_path / "bomb.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )
    with pytest.raises(UserError, match=r"bomb\.png is refused"):
        ImageFile(tmp_path / "bomb.png").open()
