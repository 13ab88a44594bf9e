"""A server on this machine that stands for the hub, which its own client asks what it holds, and for the web."""

from __future__ import annotations

import hashlib
import io
import json
import re
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

FIXTURES = Path(__file__).parents[3] / "fixtures"
COMMIT = "c0ffee" * 6 + "c0ff"
LARGE = 2000
"""From this size on the hub keeps a file in LFS and states its SHA-256; below, as a git object with a SHA-1."""
Files = dict[str, bytes]


class Server(ThreadingHTTPServer):
    """What is served, how well, and what was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.repositories: dict[str, Files] = {}
        self.files: Files = {}
        self.announced: Files = {}
        self.status = 200
        self.stops: int | None = None
        self.answers: bytes | None = None
        self.listed: list[str] = []
        self.fetched: list[tuple[str, int]] = []


class Handler(BaseHTTPRequestHandler):
    """Serves repositories as the hub's API describes them, and single files."""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if self.server.status != 200:
            self.send(self.server.status, b"{}")
        elif self.server.answers is not None:
            self.send(200, self.server.answers)
        elif match := re.fullmatch(r"/api/datasets/([\w-]+/[\w-]+)(?:/revision/\w+)?", path):
            self.server.listed.append(path)
            self.describe(match[1])
        elif match := re.fullmatch(r"/datasets/([\w-]+/[\w-]+)/resolve/\w+/(.+)", path):
            self.serve(match[2], self.server.repositories[match[1]][match[2]])
        else:
            self.serve(path[1:], self.server.files[path[1:]])

    def describe(self, repository: str) -> None:
        files = []
        for name, content in self.server.repositories[repository].items():
            announced = self.server.announced.get(name, content)
            blob = hashlib.sha1(b"blob %d\0" % len(announced) + announced).hexdigest()
            file: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": blob}
            if len(content) >= LARGE:
                digest = hashlib.sha256(announced).hexdigest()
                file["lfs"] = {"size": len(content), "pointerSize": 134, "sha256": digest}
            files.append(file)
        described = {"id": repository, "sha": COMMIT, "siblings": files}
        self.send(200, json.dumps(described).encode(), {"Content-Type": "application/json"})

    def serve(self, name: str, content: bytes) -> None:
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start = int(match[1]) if match else 0
        self.server.fetched.append((name, start))
        self.send(206 if start else 200, content[start:])

    def send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        stops = None if headers else self.server.stops  # a listing always arrives whole
        self.wfile.write(content[:stops])
        self.close_connection = stops is not None


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    from huggingface_hub import constants

    with Server() as made:
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setattr(constants, "ENDPOINT", made.address)
        template = made.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def zipped(members: Files) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def members_of(folder: Path, below: str = "") -> Files:
    return {below + name: (folder / name).read_bytes() for name in everything(folder)}


def everything(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def slake_files() -> Callable[[str], Files]:
    return _slake_files


def _slake_files(top: str) -> Files:
    """The hub's form of Slake: the annotations, and the images in an archive whose members begin with `top`."""
    folder = FIXTURES / "slake" / "Slake1.0"
    rubbish = {"__MACOSX/imgs/xmlab1/._source.jpg": b"x", f"{top}.DS_Store": b"x", "README.txt": b"x"}
    return {
        "train.json": (folder / "train.json").read_bytes(),
        "validation.json": (folder / "validate.json").read_bytes(),
        "test.json": (folder / "test.json").read_bytes(),
        "mask.txt": b"70:Liver",
        "imgs.zip": zipped({**members_of(folder / "imgs", top), **rubbish}),
        "KG.zip": b"not asked for",
        ".gitattributes": b"",
    }


@pytest.fixture
def medqa_files() -> Callable[..., Files]:
    return _medqa_files


def _medqa_files(below: str = "data_clean/") -> Files:
    members = members_of(FIXTURES / "medqa" / "data_clean", below)
    return {"data_clean.zip": zipped({**members, f"{below}textbooks/en/Anatomy.txt": b"text"})}
