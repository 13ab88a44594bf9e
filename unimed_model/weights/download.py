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
_BLOCK = 1 << 20
_TIMEOUT = 60.0
_NETWORK = (URLError, HTTPException, ConnectionError, TimeoutError, ssl.SSLError)


def download(url: str, target: Path, *, quiet: bool = False) -> None:
    """Fetch a file; what came before a failure stays beside ``target`` and the next call goes on from there.

    Args:
        url: answers with the file's size (``Content-Length``); where it also states an MD5 (``x-goog-hash``), that is
            checked.
        target: appears when it is complete.
        quiet: no progress bar.

    Raises:
        UserError: the server cannot be reached, refuses, states no size, or stops early; or the digest differs.
    """
    partial = target.with_name(f"{target.name}.partial")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        total, md5 = _receive(url, partial, quiet)
    except _NETWORK as error:
        raise UserError(_stopped(url, partial, error)) from error
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(KEPT)
        raise
    size = partial.stat().st_size
    if size < total:
        raise UserError(f"{url} stopped after {size} of {total} bytes; run this again to go on from there.")
    if size > total or (md5 and md5 != _md5(partial)):
        partial.unlink()
        raise UserError(f"What came from {url} is not the file that it announces; run this again.")
    partial.rename(target)


def _receive(url: str, partial: Path, quiet: bool) -> tuple[int, str | None]:
    """Append what is missing; return the whole file's size in bytes and, where stated, its MD5."""
    start = partial.stat().st_size if partial.exists() else 0
    request = Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        with urlopen(request, timeout=_TIMEOUT) as response:
            resumed = start if response.status == 206 else 0
            total = _length(url, response) + resumed
            with partial.open("ab" if resumed else "wb") as stream:
                _copy(response, stream, resumed, total, partial.stem, quiet)
            return total, _announced_md5(response.headers.get_all("x-goog-hash") or [])
    except HTTPError as error:
        # The server has nothing beyond what is here: all of it arrived, or it belongs to another version of the file.
        if error.code == 416 and start:
            if error.headers.get("Content-Range") == f"bytes */{start}":
                return start, _announced_md5(error.headers.get_all("x-goog-hash") or [])
            partial.unlink()
            return _receive(url, partial, quiet)
        raise


def _copy(response: HTTPResponse, stream: IO[bytes], start: int, total: int, name: str, quiet: bool) -> None:
    from tqdm import tqdm

    with tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=name, disable=quiet) as bar:
        while block := response.read(_BLOCK):
            stream.write(block)
            bar.update(len(block))


def _length(url: str, response: HTTPResponse) -> int:
    length = response.headers.get("Content-Length")
    if length is None:
        raise UserError(f"{url} does not state its size, so that its end could not be told from a broken connection.")
    return int(length)


def _announced_md5(headers: list[str]) -> str | None:
    """Return the hexadecimal MD5 of Google storage's ``x-goog-hash: crc32c=…,md5=…`` (base64), if there is one."""
    for entry in ",".join(headers).split(","):
        name, _, value = entry.strip().partition("=")
        if name == "md5":
            return base64.b64decode(value).hex()
    return None


def _md5(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "md5").hexdigest()


def _stopped(url: str, partial: Path, error: Exception) -> str:
    cause = error.reason if type(error) is URLError else error
    reason = " ".join(str(cause).split()) or type(error).__name__
    if partial.exists() and partial.stat().st_size:
        return f"{url} stopped after {partial.stat().st_size} bytes ({reason}); run this again to go on from there."
    return f"{url} cannot be fetched ({reason})."
