import subprocess
import sys

import pytest
import torch

from unimed_model.memory import peak_memory


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell the peak")
def test_the_peak_is_what_was_held_at_once_and_stays_when_it_is_freed():
    psutil = pytest.importorskip("psutil")
    before = bytearray(b"1") * 2**29  # a larger parent, whose peak is not the child's
    program = (
        "import psutil; from unimed_model.memory import peak_memory\n"
        "held = bytearray(b'1') * (200 * 2**20); rss = psutil.Process().memory_info().rss; del held\n"
        "print(rss, peak_memory()['resident'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    held, peak = map(int, done.stdout.split())
    assert peak == pytest.approx(held, rel=0.05)
    assert peak < psutil.Process().memory_info().rss
    del before


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without GPU")
def test_without_a_gpu_there_is_none_of_its_memory():
    assert "cuda_allocated" not in peak_memory()
