"""The project's commands, called by benchmarks as a user would."""

import subprocess
import sys
from typing import Any


def call(module: str, *arguments: Any) -> str:
    """Return what a command printed; its errors and progress go to stderr as ever.

    Raises:
        SystemExit: it failed.
    """
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {done.returncode}.")
    return done.stdout.strip()
