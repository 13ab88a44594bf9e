"""The fixtures are what their script writes: the same files, texts to the letter, pictures of the same size."""

import importlib.util
import io
from pathlib import Path

import pytest

FIXTURES = Path(__file__).parent / "fixtures"
TEXT = (".json", ".jsonl", ".csv", ".txt")
PICTURES = (".jpg", ".jpeg", ".png")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    spec = importlib.util.spec_from_file_location("write_fixtures", FIXTURES / "write.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = tmp_path_factory.mktemp("fixtures")
    module.write_all(folder)
    return folder


def files(folder):
    layouts = {path.stem for path in (FIXTURES / "layouts").glob("*.py")}
    return {path.relative_to(folder) for name in layouts for path in (folder / name).rglob("*") if path.is_file()}


def test_the_script_writes_the_committed_files(written):
    assert files(written) == files(FIXTURES)
    assert {path.stem for path in (FIXTURES / "layouts").glob("*.py")} == {path.parts[0] for path in files(FIXTURES)}


def test_texts_are_equal_to_the_letter(written):
    texts = [path for path in files(FIXTURES) if path.suffix in TEXT]
    assert len(texts) > 20
    for path in texts:
        assert (written / path).read_bytes() == (FIXTURES / path).read_bytes(), path


def test_pictures_have_the_same_size_and_mode(written):
    """Their bytes differ between versions of the libraries that compress them."""
    from PIL import Image, UnidentifiedImageError

    def looks(path):
        try:
            with Image.open(io.BytesIO(path.read_bytes())) as picture:
                return picture.size, picture.mode
        except UnidentifiedImageError:
            return None

    pictures = [path for path in files(FIXTURES) if path.suffix in PICTURES]
    assert len(pictures) > 30
    for path in pictures:
        assert looks(written / path) == looks(FIXTURES / path), path


def test_they_are_small():
    assert sum((FIXTURES / path).stat().st_size for path in files(FIXTURES)) < 400_000
