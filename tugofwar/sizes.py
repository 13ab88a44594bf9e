"""Sizes in bytes as people write them: ``8GB``, ``500 MiB``, ``2e9``."""

import os
import re
from pathlib import Path

from tugofwar.errors import UserError

_UNITS = {"": 1, "B": 1} | {
    f"{letter}{suffix}": base**power
    for power, letter in enumerate("KMGT", start=1)
    for suffix, base in (("", 1000), ("B", 1000), ("iB", 1024))
}


def parse_bytes(text: str | int) -> int:
    """Bytes in ``text``; decimal units for ``GB``, binary ones for ``GiB``.

    Raises:
        UserError: not a positive size.
    """
    match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([A-Za-z]*)\s*", str(text))
    units = {unit.lower(): factor for unit, factor in _UNITS.items()}
    try:
        size = int(float(match[1]) * units[match[2].lower()]) if match else 0
    except (ValueError, KeyError, OverflowError):
        size = 0
    if size < 1:
        raise UserError(f"{text!r} is not a size in bytes; write it like 8GB, 500MB or 2GiB.")
    return size


def format_bytes(size: int) -> str:
    """``size`` in decimal units with three digits, such as ``1.23 GB``."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB" if value < 1000 else f"{value:,.0f} TB"


def available_memory() -> int | None:
    """Bytes of memory that can be used without swapping; None where the system does not tell."""
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        if "MemAvailable" in fields:
            return int(fields["MemAvailable"].split()[0]) * 1024
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" in names and "SC_PAGE_SIZE" in names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None
