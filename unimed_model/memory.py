"""The most memory that this process has held so far."""

import re
import sys
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")


def peak_memory() -> dict[str, int]:
    """Return bytes since the process began: ``resident`` on the host, ``cuda_allocated`` on the GPU in use.

    ``resident`` is absent where the system does not tell.
    """
    found = {}
    if (resident := _peak_resident()) is not None:
        found["resident"] = resident
    if torch.cuda.is_available():
        found["cuda_allocated"] = torch.cuda.max_memory_allocated()
    return found


def _peak_resident() -> int | None:
    if _STATUS.exists():
        # getrusage would also count the process that started this one
        match = re.search(r"VmHWM:\s*(\d+) kB", _STATUS.read_text(encoding="ascii", errors="replace"))
        return int(match[1]) * 1024 if match else None
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
