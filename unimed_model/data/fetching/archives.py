"""Unpack what is needed of a zip file that others made: nothing leaves the folder, and its size is bounded."""

from __future__ import annotations

import hashlib
import re
import stat
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from unimed_model.data.files import relative_name
from unimed_model.errors import UserError
from unimed_model.folders import replacing

from .recipes import Archive

_BLOCK = 1 << 20
_MEMBERS = 200_000


def unpack(archive: Archive, path: Path, target: Path, *, quiet: bool = False) -> dict[str, str]:
    """Unpack the wanted members of a zip file into a folder that appears whole or not at all.

    Args:
        archive: which members are wanted, and how large they may be together.
        path: the zip file.
        target: the folder; what stood there is replaced.
        quiet: no progress bar.

    Returns:
        Path in the folder -> SHA-256 of what was written.

    Raises:
        UserError: a member that leaves the folder, is a link, encrypted, or stands twice; too many members or bytes;
            no member that is wanted; a damaged file.
    """
    from tqdm import tqdm

    try:
        with zipfile.ZipFile(path) as opened, replacing(target) as folder:
            members = _wanted(archive, path, opened.infolist())
            total = sum(member.file_size for member in members.values())
            with tqdm(total=total, unit="B", unit_scale=True, desc=path.name, disable=quiet, leave=False) as bar:
                return {str(name): _write(opened, m, folder / name, bar.update) for name, m in members.items()}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise UserError(f"{path} is truncated or damaged ({error}); remove it and run this again.") from error


def _wanted(archive: Archive, path: Path, members: list[zipfile.ZipInfo]) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """Return place in the folder -> member, after looking at every member, wanted or not."""
    if len(members) > _MEMBERS:
        raise UserError(f"{path} holds {len(members)} members, more than {_MEMBERS}, and is refused.")
    wanted: dict[PurePosixPath, zipfile.ZipInfo] = {}
    for member in members:
        if member.is_dir():
            continue
        where = f"{path}, member {member.filename!r}"
        name = relative_name(member.filename, where)
        _require_plain(member, where)
        match = re.fullmatch(archive.members, str(name))
        if match is None:
            continue
        place = PurePosixPath(match["kept"])
        if place in wanted:
            raise UserError(f"{where}: another member has the same place {place}; the archive is refused.")
        wanted[place] = member
    size = sum(member.file_size for member in wanted.values())
    if size > archive.limit:
        raise UserError(f"{path} would unpack to {size} bytes, more than {archive.limit}, and is refused.")
    if not wanted:
        raise UserError(f"{path} holds no {archive.wanted}; it is not the archive that is known.")
    return wanted


def _require_plain(member: zipfile.ZipInfo, where: str) -> None:
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise UserError(f"{where}: it is a link or device, not a file; the archive is refused.")
    if member.flag_bits & 1:
        raise UserError(f"{where}: it is encrypted; the archive is refused.")


def _write(opened: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, seen: Callable[[int], object]) -> str:
    target.parent.mkdir(parents=True, exist_ok=True)
    state = hashlib.sha256()
    # No more than the stated size is ever read, and the member's check sum is compared at its end.
    with opened.open(member) as inside, target.open("xb") as out:
        while block := inside.read(_BLOCK):
            out.write(block)
            state.update(block)
            seen(len(block))
    return state.hexdigest()
