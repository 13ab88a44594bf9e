"""Downloads from a server on this machine that resumes, refuses, stops early or lies."""

import base64
import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from unimed_model import UserError
from unimed_model.weights.download import KEPT, download

CONTENT = bytes(range(256)) * 4000


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT; how well is set on the server."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server
        server.ranges.append(self.headers.get("Range"))
        if server.status != 200:
            self.send_error(server.status)
            return
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start = int(match[1]) if match and server.resumes else 0
        if start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if match and server.resumes else 200)
        if server.sized:
            self.send_header("Content-Length", str(len(CONTENT) - start))
        if server.hash:
            self.send_header("x-goog-hash", "crc32c=AAAAAA==")
            self.send_header("x-goog-hash", f"md5={server.hash}")
        self.end_headers()
        self.wfile.write(CONTENT[start:][: server.stops])


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        made.ranges, made.status, made.resumes, made.sized, made.hash, made.stops = [], 200, True, True, None, None
        made.url = f"http://127.0.0.1:{made.server_port}/file.pth"
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def base64_md5(content):
    return base64.b64encode(hashlib.md5(content).digest()).decode()


def test_a_file_arrives_whole(server, tmp_path, capsys):
    server.hash = base64_md5(CONTENT)
    download(server.url, tmp_path / "deep" / "file.pth")
    assert (tmp_path / "deep" / "file.pth").read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["file.pth"]
    printed = capsys.readouterr()
    assert "file.pth" in printed.err
    assert printed.out == ""


def test_an_early_stop_is_resumed(server, tmp_path):
    server.stops = 300_000
    with pytest.raises(UserError, match=f"stopped after 300000 of {len(CONTENT)} bytes"):
        download(server.url, tmp_path / "file.pth", quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == ["file.pth.partial"]
    server.stops, server.hash = None, base64_md5(CONTENT)
    download(server.url, tmp_path / "file.pth", quiet=True)
    assert (tmp_path / "file.pth").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=300000-"]


def test_a_server_that_cannot_resume_starts_again(server, tmp_path):
    (tmp_path / "file.pth.partial").write_bytes(b"x" * 1000)
    server.resumes = False
    download(server.url, tmp_path / "file.pth", quiet=True)
    assert (tmp_path / "file.pth").read_bytes() == CONTENT


def test_all_that_arrived_before_is_not_fetched_again(server, tmp_path):
    (tmp_path / "file.pth.partial").write_bytes(CONTENT)
    download(server.url, tmp_path / "file.pth", quiet=True)
    assert server.ranges == [f"bytes={len(CONTENT)}-"]
    assert (tmp_path / "file.pth").read_bytes() == CONTENT


def test_a_longer_leftover_is_thrown_away(server, tmp_path):
    (tmp_path / "file.pth.partial").write_bytes(CONTENT + b"more")
    download(server.url, tmp_path / "file.pth", quiet=True)
    assert (tmp_path / "file.pth").read_bytes() == CONTENT


def test_a_leftover_of_another_version_is_noticed_by_the_digest(server, tmp_path):
    (tmp_path / "file.pth.partial").write_bytes(b"x" * 1000)
    server.hash = base64_md5(CONTENT)
    with pytest.raises(UserError, match="is not the file that it announces"):
        download(server.url, tmp_path / "file.pth", quiet=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_refusal_is_one_sentence(server, tmp_path, status):
    server.status = status
    with pytest.raises(UserError, match=f"cannot be fetched .*{status}"):
        download(server.url, tmp_path / "file.pth", quiet=True)
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_keeps_what_came_before(server, tmp_path):
    (tmp_path / "file.pth.partial").write_bytes(CONTENT[:1000])
    server.status = 503
    with pytest.raises(UserError, match=r"stopped after 1000 bytes .*503"):
        download(server.url, tmp_path / "file.pth", quiet=True)
    assert (tmp_path / "file.pth.partial").read_bytes() == CONTENT[:1000]


def test_a_file_without_a_size_is_refused(server, tmp_path):
    server.sized = False
    with pytest.raises(UserError, match="does not state its size"):
        download(server.url, tmp_path / "file.pth", quiet=True)


def test_a_known_size_is_enough(server, tmp_path):
    server.sized = False
    server.stops = 1000
    with pytest.raises(UserError, match=f"stopped after 1000 of {len(CONTENT)} bytes"):
        download(server.url, tmp_path / "file.pth", size=len(CONTENT), quiet=True)
    server.stops = None
    download(server.url, tmp_path / "file.pth", size=len(CONTENT), quiet=True)
    assert (tmp_path / "file.pth").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=1000-"]


@pytest.mark.parametrize(("algorithm", "name"), [("sha256", "SHA-256"), ("md5", "MD5")])
def test_a_known_digest_is_compared(server, tmp_path, algorithm, name):
    found, other = (hashlib.new(algorithm, content).hexdigest() for content in (CONTENT, CONTENT[::-1]))
    download(server.url, tmp_path / "file.pth", **{algorithm: found}, quiet=True)
    assert (tmp_path / "file.pth").read_bytes() == CONTENT
    with pytest.raises(UserError, match=rf"is not the known file \(its {name} is {found}, not {other}\)"):
        download(server.url, tmp_path / "other.pth", **{algorithm: other}, quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == ["file.pth"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_what_came_before_an_interrupt_or_a_full_disk_is_kept_and_said_so(server, tmp_path, monkeypatch, stop):
    def copy(response, stream, *_):
        stream.write(response.read(1000))
        raise stop

    with monkeypatch.context() as patch:
        patch.setattr("unimed_model.weights.download._copy", copy)
        with pytest.raises(type(stop)) as caught:
            download(server.url, tmp_path / "file.pth", quiet=True)
    assert caught.value.__notes__ == [KEPT]
    assert [path.name for path in tmp_path.iterdir()] == ["file.pth.partial"]
    download(server.url, tmp_path / "file.pth", quiet=True)
    assert server.ranges == [None, "bytes=1000-"]


def test_nobody_there_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="cannot be fetched"):
        download("http://127.0.0.1:9/file.pth", tmp_path / "file.pth", quiet=True)
