"""The benchmark's script end to end, in its quick form: a model of the size of ``tiny``."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "training.py"


@pytest.mark.slow
def test_every_section_has_its_rows(tmp_path):
    out = tmp_path / "training.md"
    command = [sys.executable, str(SCRIPT), "--quick", "--out", str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    rows = [line.strip("| ").split(" | ") for line in out.read_text().splitlines() if line.startswith("| ")][1:]
    assert [row[0].split(" ")[0] for row in rows] == ["step", "waiting", "waiting", "time"]
    for _, measured, goal, met in rows:
        value, bound = float(measured.split(" ")[0]), float(goal.split(" ")[2])
        assert met == ("yes" if (value >= bound if goal.startswith("at least") else value <= bound) else "no")
