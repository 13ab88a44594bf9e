"""The benchmark's script end to end, in its quick form."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "data.py"


def start(*arguments):
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_every_section_has_rows_with_its_goal(tmp_path):
    out = tmp_path / "data.md"
    done = start("--quick", "--only", "mixture,pipeline", "--out", out)
    assert done.returncode == 0, done.stderr
    text = out.read_text()
    assert done.stdout.strip() == text.strip()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")
    ]
    assert [row[0].split(",")[0] for row in rows[1:]] == ["mixture"] * 5 + ["pipeline"] * 2
    for what, measured, goal, met in rows[1:]:
        value = float(measured.split(" ")[0])
        assert value > 0
        wanted = value <= 50 if what.startswith("mixture") else value >= 0.8
        assert goal.startswith("at most 50" if what.startswith("mixture") else "at least 0.8")
        assert met == ("yes" if wanted else "no")


def test_an_unknown_section_is_one_sentence():
    done = start("--only", "mixtur")
    assert done.returncode == 2
    assert "'mixtur' is none of mixture, pipeline, index" in done.stderr


def test_the_index_section_prepares_and_opens_a_corpus(tmp_path):
    done = start("--quick", "--only", "index", "--out", tmp_path / "data.md")
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| index, 3,000 samples on 400 images")]
    assert len(rows) == 2
    assert "at most 150 MB" in rows[1]
