from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from unimed_model.data import load_dataset
from unimed_model.data.preparation import sheet
from unimed_model.errors import UserError

MIMIC = Path(__file__).parents[3] / "fixtures" / "mimic_cxr" / "r2gen"


@pytest.fixture
def lines(monkeypatch):
    """What is written under the pictures, sample by sample."""
    written = []
    real = sheet._caption
    monkeypatch.setattr(sheet, "_caption", lambda axes, text: written.append("\n".join(text)) or real(axes, text))
    return written


def test_restricted_text_is_withheld_unless_asked_for(lines, tmp_path):
    samples = load_dataset("mimic_cxr", MIMIC)
    sheet.draw_sheet(samples[:1], tmp_path / "a.png")
    assert "withheld" in lines[0]
    assert samples[0].answer[:12] not in lines[0]
    sheet.draw_sheet(samples[:1], tmp_path / "b.png", show_restricted=True)
    assert samples[0].answer[:12] in lines[1]


def test_prompt_and_target_stand_under_each_picture(lines, root, tmp_path):
    samples = load_dataset("slake_vqa", root)
    sheet.draw_sheet(samples, tmp_path / "sheet.png")
    assert lines[0].replace("\n", " ") == f"[vqa] {samples[0].instruction} → Spleen"
    assert len(lines) == 3


def test_long_texts_are_cut_and_markup_is_not_interpreted(lines, root, tmp_path):
    sample = replace(load_dataset("slake_vqa", root)[0], answer="$\\frac{1}$ " + "word " * 500)
    sheet.draw_sheet([sample], tmp_path / "sheet.png")
    assert lines[0].endswith("…")
    assert lines[0].count("\n") < 2 * sheet._LINES


def test_samples_are_spread_over_the_whole():
    assert sheet.spread(range(10), 4) == [0, 2, 5, 7]
    assert sheet.spread(range(3), 7) == [0, 1, 2]


def test_an_image_that_cannot_be_read_is_named_and_nothing_is_written(root, tmp_path):
    samples = load_dataset("slake_vqa", root)
    (root / "slake" / "imgs" / "xmlab1" / "source.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"xmlab1/source\.jpg"):
        sheet.draw_sheet(samples, tmp_path / "out" / "sheet.png")
    assert not (tmp_path / "out").exists()


def test_the_picture_is_upright_and_its_box_in_place(tmp_path, root):
    """A box over the left upper quarter of a picture that is white there and black elsewhere."""
    picture = Image.new("L", (80, 40))
    picture.paste(255, (0, 0, 40, 20))
    picture.save(root / "slake" / "imgs" / "xmlab1" / "source.jpg", quality=100)
    sample = replace(load_dataset("slake_vqa", root)[0], boxes=((0, 0, 50, 50),))
    sheet.draw_sheet([sample], tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as drawn:
        pixels = drawn.convert("RGB").load()
        box = [(x, y) for x in range(drawn.width) for y in range(drawn.height) if pixels[x, y] == (213, 94, 0)]
    left, right = min(x for x, _ in box), max(x for x, _ in box)
    top, bottom = min(y for _, y in box), max(y for _, y in box)
    assert (right - left) / (bottom - top) == pytest.approx(2, rel=0.06)
    assert pixels[(left + right) // 2, (top + bottom) // 2][0] > 240
    assert pixels[right + 12, (top + bottom) // 2][0] < 15
