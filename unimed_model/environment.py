"""What a run was run with: versions, the code's revision, the machine; without names of hosts or users."""

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import unimed_model

LIBRARIES = ("torch", "transformers", "accelerate", "peft", "tokenizers", "numpy")
_PACKAGE = Path(__file__).resolve().parent


def versions() -> dict[str, str]:
    """Return the versions of Python, of the libraries that results depend on, and of this program."""
    libraries = {name: version(name) for name in LIBRARIES}
    return {"python": platform.python_version(), **libraries, "unimed_model": str(unimed_model.__version__)}


def code_revision(package: Path = _PACKAGE) -> dict[str, Any] | None:
    """Return ``revision`` (the commit) and ``dirty`` (whether tracked files differ from it) of the running code.

    None where it runs from no git checkout of its own, such as an installed package, or git is not there.

    Args:
        package: folder of the package.
    """
    top = _git(package, "rev-parse", "--show-toplevel")
    # An environment inside somebody's repository is not that repository's code.
    if top is None or Path(top).resolve() != package.parent or not _git(package, "ls-files", "__init__.py"):
        return None
    revision = _git(package, "rev-parse", "HEAD")
    changes = _git(package, "status", "--porcelain", "--untracked-files=no", "--", str(package.parent))
    if revision is None or changes is None:
        return None
    return {"revision": revision, "dirty": bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    # A container often runs as another user than the checkout's owner, which git would refuse.
    command = ["git", "-c", f"safe.directory={folder.parent}", "--no-optional-locks", *arguments]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def hardware(device: torch.device, world_size: int) -> dict[str, Any]:
    """Return what the run computes on.

    Args:
        device: of this process.
        world_size: number of processes.

    Returns:
        ``device``, ``name`` (of GPU or CPU), ``cuda`` (version, None without), ``system``, ``cpus`` (that this process
        may use), ``threads`` (of torch), ``memory`` (bytes of the host, None where it does not tell), ``world_size``.
    """
    on_gpu = device.type == "cuda"
    return {
        "device": str(device),
        "name": torch.cuda.get_device_name(device) if on_gpu else _cpu_name(),
        "cuda": torch.version.cuda if on_gpu else None,
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory": _host_memory(),
        "world_size": world_size,
    }


def _cpu_name() -> str:
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, name = line.partition(":")
            if key.strip() == "model name":
                return name.strip()
    return platform.processor() or platform.machine()


def _host_memory() -> int | None:
    if sys.platform == "win32":
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
