"""One large file over HTTP: with a progress bar, resumed where it stopped, its size and digest checked."""

import base64
import hashlib
import ssl
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from unimed_model.errors import UserError

KEPT = "What was fetched is kept; the same command goes on from there."
DIGESTS = {"sha256": "SHA-256", "md5": "MD5"}
"""A digest as hashlib names it -> as people do."""
_BLOCK = 1 << 20
_TIMEOUT = 60.0
_NETWORK = (URLError, HTTPException, ConnectionError, TimeoutError, ssl.SSLError)


def download(
    url: str,
    target: Path,
    *,
    size: int | None = None,
    sha256: str | None = None,
    md5: str | None = None,
    quiet: bool = False,
) -> None:
    """Fetch a file; what came before a failure stays beside ``target`` and the next call goes on from there.

    Args:
        url: answers with the file's size (``Content-Length``), or ``size`` is needed; where it also states an MD5
            (``x-goog-hash``), that is checked.
        target: appears when it is complete.
        size: in bytes, where it is known; what the server states goes before it.
        sha256: the file's SHA-256 where it is known, in hexadecimal digits.
        md5: its MD5 likewise.
        quiet: no progress bar.

    Raises:
        UserError: the server cannot be reached, refuses, states no size, or stops early; or a digest differs: then what
            came is removed.
    """
    partial = target.with_name(f"{target.name}.partial")
    try:
        total, announced = _receive(url, partial, size, quiet)
    except _NETWORK as error:
        raise UserError(_stopped(url, partial, error)) from error
    except (KeyboardInterrupt, OSError) as stop:
        if partial.exists():
            stop.add_note(KEPT)
        raise
    here = partial.stat().st_size
    if here < total:
        raise UserError(f"{url} stopped after {here} of {total} bytes; run this again to go on from there.")
    if here > total or (announced and announced != digest(partial, "md5")):
        partial.unlink()
        raise UserError(f"What came from {url} is not the file that it announces; run this again.")
    for algorithm, known in (("sha256", sha256), ("md5", md5)):
        if known is not None and (found := digest(partial, algorithm)) != known:
            partial.unlink()
            raise UserError(
                f"What came from {url} is not the known file (its {DIGESTS[algorithm]} is {found}, not {known}) and "
                "was removed; run this again, and if it comes again, the file at that address is another one now."
            )
    partial.rename(target)


def digest(path: Path, algorithm: str) -> str:
    """Return a file's digest in hexadecimal digits; ``algorithm`` as hashlib names it."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


def _receive(url: str, partial: Path, size: int | None, quiet: bool) -> tuple[int, str | None]:
    """Append what is missing; return the whole file's size in bytes and, where stated, its MD5."""
    start = partial.stat().st_size if partial.exists() else 0
    # Some servers turn away the name that urllib gives itself.
    headers = {"User-Agent": "unimed-data", **({"Range": f"bytes={start}-"} if start else {})}
    request = Request(url, headers=headers)
    try:
        with urlopen(request, timeout=_TIMEOUT) as response:
            resumed = start if response.status == 206 else 0
            total = _total(url, response, resumed, size)
            partial.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("ab" if resumed else "wb") as stream:
                _copy(response, stream, resumed, total, partial.stem, quiet)
            return total, _announced_md5(response.headers.get_all("x-goog-hash") or [])
    except HTTPError as error:
        # The server has nothing beyond what is here: all of it arrived, or it belongs to another version of the file.
        if error.code == 416 and start:
            if error.headers.get("Content-Range") == f"bytes */{start}":
                return start, _announced_md5(error.headers.get_all("x-goog-hash") or [])
            partial.unlink()
            return _receive(url, partial, size, quiet)
        raise


def _copy(response: HTTPResponse, stream: IO[bytes], start: int, total: int, name: str, quiet: bool) -> None:
    from tqdm import tqdm

    with tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=name, disable=quiet) as bar:
        while block := response.read(_BLOCK):
            stream.write(block)
            bar.update(len(block))


def _total(url: str, response: HTTPResponse, before: int, known: int | None) -> int:
    """Return the whole file's size, of which the response lacks what came before."""
    length = response.headers.get("Content-Length")
    if length is not None:
        return before + int(length)
    if known is None:
        raise UserError(f"{url} does not state its size, so that its end could not be told from a broken connection.")
    return known


def _announced_md5(headers: list[str]) -> str | None:
    """Return the hexadecimal MD5 of Google storage's ``x-goog-hash: crc32c=…,md5=…`` (base64), if there is one."""
    for entry in ",".join(headers).split(","):
        name, _, value = entry.strip().partition("=")
        if name == "md5":
            return base64.b64decode(value).hex()
    return None


def _stopped(url: str, partial: Path, error: Exception) -> str:
    cause = error.reason if type(error) is URLError else error
    reason = " ".join(str(cause).split()) or type(error).__name__
    if partial.exists() and partial.stat().st_size:
        return f"{url} stopped after {partial.stat().st_size} bytes ({reason}); run this again to go on from there."
    return f"{url} cannot be fetched ({reason})."
