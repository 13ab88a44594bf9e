"""Samples that repeat another one exactly: kept, as those who publish results keep them, and noted."""

from unimed_model.data.findings import Findings
from unimed_model.data.sample import Sample


class Duplicates:
    """Notes the samples whose image, instruction and answer are those of an earlier one.

    Args:
        findings: get the kind "duplicate".
    """

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._seen: set[tuple[str | None, str, str]] = set()

    def see(self, sample: Sample, where: str) -> None:
        """Look at a sample of the split; ``where`` says which file and row, line or record it is."""
        key = (sample.image_id, sample.instruction, sample.answer)
        if key in self._seen:
            self._findings.note("duplicate", where)
        self._seen.add(key)
