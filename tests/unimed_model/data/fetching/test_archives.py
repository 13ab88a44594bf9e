"""Archives that others made: refused whole, or unpacked whole."""

import io
import stat
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from unimed_model import UserError
from unimed_model.data.fetching import archives
from unimed_model.data.fetching.recipes import Archive


def zipped(members: Iterable[tuple[zipfile.ZipInfo, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def everything(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def member(name: str, mode: int = stat.S_IFREG | 0o644) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo(name)
    made.external_attr = mode << 16
    return made


ARCHIVE = Archive("a.zip", "imgs", r"(?:.*/)?(?P<kept>xmlab\d+/[^/]+)", "files of xmlab", 1000)
GOOD = (member("imgs/xmlab0/source.jpg"), b"good")


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ((member("../xmlab1/source.jpg"), b"x"), "leaves the data folder"),
        ((member("imgs/../../xmlab1/source.jpg"), b"x"), "leaves the data folder"),
        ((member("/xmlab1/source.jpg"), b"x"), "leaves the data folder"),
        ((member("C:\\xmlab1\\source.jpg"), b"x"), "leaves the data folder"),
        ((member("..\\xmlab1\\source.jpg"), b"x"), "leaves the data folder"),
        ((member("unwanted/../../evil"), b"x"), "leaves the data folder"),
        ((member("xmlab1/source.jpg", stat.S_IFLNK | 0o777), b"/etc/passwd"), "link or device"),
        ((member("xmlab1/source.jpg", stat.S_IFIFO | 0o644), b""), "link or device"),
        ((member("xmlab0/source.jpg"), b"x"), "another member has the same place"),
        ((member("xmlab1/source.jpg"), b"x" * 1000), "would unpack to 1004 bytes, more than 1000"),
    ],
)
def test_an_archive_that_is_not_safe_is_refused_whole(
    tmp_path: Path, bad: tuple[zipfile.ZipInfo, bytes], says: str
) -> None:
    path = tmp_path / "deep" / "a.zip"
    path.parent.mkdir()
    path.write_bytes(zipped([GOOD, bad]))
    with pytest.raises(UserError, match=says):
        archives.unpack(ARCHIVE, path, tmp_path / "deep" / "imgs", quiet=True)
    assert everything(tmp_path) == ["deep/a.zip"]


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    content = bytearray(zipped([GOOD]))
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + flags] |= 1
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(UserError, match="encrypted"):
        archives.unpack(ARCHIVE, tmp_path / "a.zip", tmp_path / "imgs", quiet=True)


def test_a_bomb_that_lies_about_its_size_is_stopped_at_what_it_states(tmp_path: Path) -> None:
    content = bytearray(zipped([(member("xmlab0/source.jpg"), b"0" * 10**6)]))
    for signature, size in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        place = content.index(signature) + size
        content[place : place + 4] = (500).to_bytes(4, "little")
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        archives.unpack(ARCHIVE, tmp_path / "a.zip", tmp_path / "imgs", quiet=True)
    assert everything(tmp_path) == ["a.zip"]


@pytest.mark.parametrize("spoil", [lambda c: c[: len(c) // 2], lambda c: c.replace(b"good", b"evil"), lambda c: b""])
def test_a_damaged_archive_is_named(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(*GOOD)
    (tmp_path / "a.zip").write_bytes(spoil(buffer.getvalue()))
    with pytest.raises(UserError, match=r"a\.zip is truncated or damaged"):
        archives.unpack(ARCHIVE, tmp_path / "a.zip", tmp_path / "imgs", quiet=True)
    assert everything(tmp_path) == ["a.zip"]


def test_an_archive_without_what_is_wanted_is_another_archive(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped([(member("README"), b"x")]))
    with pytest.raises(UserError, match="holds no files of xmlab; it is not the archive that is known"):
        archives.unpack(ARCHIVE, tmp_path / "a.zip", tmp_path / "imgs", quiet=True)
