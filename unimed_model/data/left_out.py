"""How many samples were left out because their image file is missing (`--skip-missing`), for every later report."""

from collections.abc import Mapping

MISSING_IMAGE = "missing image"
"""The kind of finding."""


def missing_images(skipped: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Return name -> number of samples without image file, of those that have any.

    Args:
        skipped: name (of a dataset, or of a split) -> reason -> number of samples left out.
    """
    counts = {name: reasons.get(MISSING_IMAGE, 0) for name, reasons in skipped.items()}
    return {name: count for name, count in counts.items() if count}


def missing_line(missing: Mapping[str, int]) -> str:
    """Return, for example, `left out, image file missing: 3 of mni_vqa, 1 of mni_rec`."""
    return f"left out, image file missing: {', '.join(f'{count} of {name}' for name, count in missing.items())}"
