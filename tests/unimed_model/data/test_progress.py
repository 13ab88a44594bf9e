import json
from pathlib import Path

import pytest
from tqdm import tqdm

from unimed_model.data.progress import progress_bar, reading_quietly
from unimed_model.data.readers.sa_med2d.scan import entries


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bars that would appear after two seconds appear at once."""
    plain = tqdm.__init__
    monkeypatch.setattr(tqdm, "__init__", lambda self, *args, **options: plain(self, *args, **{**options, "delay": 0}))


def test_a_reader_shows_a_bar_unless_it_is_told_to_be_quiet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "SAMed2D_v1.json"
    path.write_text(json.dumps({"images/a.png": ["masks/a.png"]}))
    assert len(list(entries(path))) == 1
    assert "SAMed2D_v1.json" in capsys.readouterr().err
    with reading_quietly():
        assert len(list(entries(path))) == 1
    assert capsys.readouterr().err == ""


def test_what_is_quiet_outside_stays_so_inside_and_ends_with_it(capsys: pytest.CaptureFixture[str]) -> None:
    with reading_quietly(), reading_quietly(False):
        assert list(progress_bar([1, 2], desc="masks")) == [1, 2]
    assert capsys.readouterr().err == ""
    with pytest.raises(KeyError), reading_quietly():
        raise KeyError
    list(progress_bar([1, 2], desc="masks"))
    assert "masks" in capsys.readouterr().err
