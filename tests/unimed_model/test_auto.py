"""transformers' Auto classes, in a process that imports nothing but ``unimed_model.auto``."""

import subprocess
import sys

SCRIPT = """
import sys, torch
import unimed_model.auto
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

folder = sys.argv[1]
kinds = [kind.from_pretrained(folder) for kind in (AutoConfig, AutoModelForImageTextToText, AutoProcessor)]
print(*(type(each).__name__ for each in kinds))
"""


def test_a_run_opens_through_auto_classes(trained):
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(trained)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["UniMedConfig", "UniMedForConditionalGeneration", "UniMedProcessor"]
