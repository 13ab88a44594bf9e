"""Text of datasets whose licence forbids passing it on (MIMIC-CXR's reports) stays out of everything that is written.

Whatever puts a question, a report or an answer into a file, a picture or the terminal asks here first. Errors and
warnings never quote a sample: they name its dataset and id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unimed_model.data.sample import Sample

FLAG = "--allow-restricted-text"
"""The option by which a user who may write such text says so."""


def passed_on(text: str, sample: Sample, allowed: bool = False) -> str | None:
    """Return a text that came from or was asked about a sample; None where it must not be written.

    Args:
        text: the sample's instruction or answer, or a model's answer about it, which may repeat what was trained on.
        sample: whose licence counts.
        allowed: whether the user gave `FLAG`.
    """
    return None if sample.restricted and not allowed else text
