"""Files of a repository of the hub: what it announces, fetched, and each checked against its announced digest."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from unimed_model.errors import UserError

from .download import download

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository of the hub: ``owner/name``, what it holds, and the commit or branch; the main branch when None."""

    name: str
    kind: Literal["model", "dataset"] = "model"
    revision: str | None = None

    @property
    def page(self) -> str:
        """Where a person reads about it."""
        return f"https://huggingface.co/{'datasets/' if self.kind == 'dataset' else ''}{self.name}"


@dataclass(frozen=True, slots=True)
class Announced:
    """A file that the hub lists: its size in bytes and its digest, SHA-256 or, of small files, git's SHA-1."""

    name: str
    size: int | None
    digest: str


@dataclass(frozen=True, slots=True)
class Listing:
    """The wanted files of a repository at one commit."""

    repository: Repository
    revision: str
    files: tuple[Announced, ...]


def announced(repository: Repository, choose: Callable[[list[str]], Sequence[str]], *, otherwise: str = "") -> Listing:
    """Ask the hub, or the mirror that ``HF_ENDPOINT`` names, for the wanted files of a repository.

    Args:
        repository: which one.
        choose: returns those of the repository's file names that are wanted; it may raise a UserError.
        otherwise: what else a user can do when the hub cannot be reached: ends a sentence.

    Raises:
        UserError: as `in_one_sentence`; or the hub states no digest of a wanted file.
    """
    from huggingface_hub import HfApi

    with in_one_sentence(repository, otherwise):
        ask = HfApi().dataset_info if repository.kind == "dataset" else HfApi().model_info
        info = ask(repository.name, revision=repository.revision, files_metadata=True)
        siblings = {file.rfilename: file for file in info.siblings or ()}
    files = []
    for name in sorted(choose(list(siblings))):
        file = siblings[name]
        digest = file.lfs.sha256 if file.lfs else file.blob_id
        if digest is None:
            raise UserError(f"The hub states no digest of {name} of {repository.name}, so it could not be verified.")
        files.append(Announced(name, file.size, digest))
    return Listing(repository, str(info.sha), tuple(files))


def fetch_files(listing: Listing, folder: Path, *, quiet: bool = False) -> dict[str, str]:
    """Fetch the files of a public repository under their names and verify them.

    What is interrupted stays in the folder, and the next call goes on from there, inside a file too: the hub's own
    client starts a file anew.

    Args:
        listing: what to fetch.
        folder: holds what an earlier call fetched.
        quiet: no progress bars.

    Returns:
        Name -> SHA-256.

    Raises:
        UserError: as `download` and `verified`.
    """
    from huggingface_hub import hf_hub_url

    repository = listing.repository
    for file in listing.files:
        target = folder / file.name
        if not target.is_file():
            url = hf_hub_url(repository.name, file.name, repo_type=repository.kind, revision=listing.revision)
            download(url, target, size=file.size, quiet=quiet)
    return verified(listing, folder, quiet=quiet)


def verified(listing: Listing, folder: Path, *, quiet: bool = False) -> dict[str, str]:
    """Return each file's SHA-256; a file that is not what the hub announces is removed, to be fetched again.

    Args:
        listing: what the folder must hold, among other things.
        folder: the files under their names.
        quiet: no progress bar.

    Raises:
        UserError: a file is missing or incomplete, or its digest differs.
    """
    from tqdm import tqdm

    found = {}
    total = sum(file.size or 0 for file in listing.files)
    with tqdm(total=total, unit="B", unit_scale=True, desc="verifying", disable=quiet, leave=False) as bar:
        for file in listing.files:
            path = folder / file.name
            if not path.is_file() or (file.size is not None and path.stat().st_size != file.size):
                path.unlink(missing_ok=True)
                raise UserError(
                    f"{listing.repository.name} did not arrive whole ({file.name} is incomplete); run this again to "
                    "go on."
                )
            sha256, blob = _digests(path, bar.update)
            if file.digest not in (sha256, blob):
                path.unlink()
                raise UserError(
                    f"{file.name} of {listing.repository.name} is not the file that the hub announces (its digest is "
                    f"not {file.digest}) and was removed; run this again."
                )
            found[file.name] = sha256
    return found


@contextmanager
def in_one_sentence(repository: Repository, otherwise: str = "") -> Iterator[None]:
    """Inside, what goes wrong with the hub's client is a UserError.

    Args:
        repository: what is asked for.
        otherwise: what else a user can do when the hub cannot be reached: ends a sentence.

    Raises:
        UserError: the repository is gated (the sentence says what to do); the hub cannot be reached or refuses.
    """
    from huggingface_hub.errors import GatedRepoError

    try:
        yield
    except GatedRepoError as error:
        raise UserError(
            f"{repository.name} is gated: ask for access on {repository.page} and, once it is granted, log in with "
            "'hf auth login' (or set HF_TOKEN) and run this again."
        ) from error
    except Exception as error:
        if not _of_the_network(error):
            raise
        raise UserError(
            f"{repository.name} cannot be fetched from the {repository.kind} hub ({_first_line(error)}); run this "
            f"again to go on{otherwise}."
        ) from error


def _of_the_network(error: Exception) -> bool:
    """Say whether the connection, the server or what it answered is at fault, not this machine or this program."""
    from huggingface_hub import errors

    if isinstance(error, errors.HTTPError | errors.EntryNotFoundError | ConnectionError | TimeoutError):
        return True
    # The client's own complaints about what it received carry no number; the operating system's do.
    if isinstance(error, OSError):
        return error.errno is None
    # The part of the client that is written in Rust knows no other kind, for a full disk either.
    rust = getattr(errors, "XetDownloadError", RuntimeError)
    return isinstance(error, ValueError | KeyError | RuntimeError | rust) and f"os error {errno.ENOSPC}" not in str(
        error
    )


def _digests(path: Path, seen: Callable[[int], object]) -> tuple[str, str]:
    """Return the SHA-256 of a file, and the SHA-1 by which git names it."""
    sha256, blob = hashlib.sha256(), hashlib.sha1(usedforsecurity=False)
    blob.update(f"blob {path.stat().st_size}\0".encode())
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            sha256.update(block)
            blob.update(block)
            seen(len(block))
    return sha256.hexdigest(), blob.hexdigest()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
