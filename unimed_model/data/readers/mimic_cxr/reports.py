"""Where the reports of MIMIC-CXR lie: a table of sections, a folder of texts, or the archive of these."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Protocol

from unimed_model.data.files import note
from unimed_model.data.readers.csv_tables import read_csv
from unimed_model.data.readers.mimic_cxr.records import first_file
from unimed_model.data.readers.mimic_cxr.sections import Sections, sections, unwrapped
from unimed_model.errors import AbsentError, UserError

_TABLE = ("mimic_cxr_sectioned.csv", "mimic_cxr_sectioned.csv.gz")
_ARCHIVE = "mimic-cxr-reports.zip"
_TRIED = 20


class Reports(Protocol):
    """Gives the sections of a study's report."""

    def sections(self, subject: int, study: int) -> Sections | None:
        """Return the sections; None where the study has no report."""


def has_reports(places: Sequence[Path]) -> bool:
    """Say whether one of the folders holds reports."""
    return first_file(places, *_TABLE, _ARCHIVE) is not None or _text_folder(places) is not None


@contextmanager
def open_reports(places: Sequence[Path]) -> Iterator[Reports]:
    """Inside, reports can be asked for.

    Of unpacked texts the folders are noted, not the 227,835 files.

    Raises:
        UserError: the folders hold none, or what they hold is damaged.
    """
    table, archive = first_file(places, *_TABLE), first_file(places, _ARCHIVE)
    texts = _text_folder(places)
    if table:
        yield _Table(table)
    elif texts:
        yield _Texts(texts)
    elif archive:
        note(archive)
        with _readable(archive):
            opened = zipfile.ZipFile(archive)
        with opened:
            yield _Archive(archive, opened)
    else:
        raise AbsentError(f"{places[0]} holds no reports: it needs {_TABLE[0]}, {_ARCHIVE} or that archive unpacked.")


class _Table:
    def __init__(self, path: Path) -> None:
        table = read_csv(path, dict.fromkeys(("study", "findings", "impression"), "str"), words_are_text=True)
        filled = table.fillna("")
        rows = zip(filled["study"], filled["findings"], filled["impression"], strict=True)
        self._sections = {
            study.strip().removeprefix("s"): (findings, impression) for study, findings, impression in rows
        }

    def sections(self, subject: int, study: int) -> Sections | None:
        found = self._sections.get(str(study))
        return Sections(*map(unwrapped, found)) if found else None


class _Texts:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for path in (folder, *_groups(folder)):
            note(path)

    def sections(self, subject: int, study: int) -> Sections | None:
        path = self._folder / _name(subject, study)
        try:
            return sections(path.read_text(encoding="utf-8", errors="replace"))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}).") from error


class _Archive:
    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self._path = path
        self._archive = archive
        # Packed anew by somebody, the archive may have a folder around `files/`.
        first = next((name for name in archive.namelist() if name.endswith(".txt") and "files/p" in name), "files/")
        self._above = first[: first.index("files/")]

    def sections(self, subject: int, study: int) -> Sections | None:
        with _readable(self._path):
            try:
                content = self._archive.read(f"{self._above}files/{_name(subject, study)}")
            except KeyError:
                return None
        return sections(content.decode("utf-8", errors="replace"))


def _name(subject: int, study: int) -> str:
    patient = f"p{subject}"
    return f"{patient[:3]}/{patient}/s{study}.txt"


def _groups(files: Path) -> list[Path]:
    return sorted(files.glob("p[0-9][0-9]"))


def _text_folder(places: Sequence[Path]) -> Path | None:
    return next((folder / "files" for folder in places if _holds_texts(folder / "files")), None)


def _holds_texts(files: Path) -> bool:
    # Pictures lie in folders of the same names, 65,379 of them: a few of each group tell.
    return any(any(patient.glob("s*.txt")) for group in _groups(files) for patient in _first_folders(group))


def _first_folders(group: Path) -> list[Path]:
    with os.scandir(group) as entries:
        return [Path(entry.path) for entry in islice((entry for entry in entries if entry.is_dir()), _TRIED)]


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError) as error:  # RuntimeError: encrypted
        raise UserError(f"{path} is not a complete, readable archive ({error}); download it again.") from error
