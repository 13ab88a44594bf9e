"""What a reader found wrong with a dataset: how often, where first, and whether the record was left out for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of problem.

    Attributes:
        count: number of records.
        first: where it occurred first: file and row, record or image.
        left_out: whether these records are left out; else they are kept, and this is for the user to know.
    """

    count: int
    first: str
    left_out: bool


class Findings(Mapping[str, Finding]):
    """Kind of problem -> what is known of it, in the order of first occurrence."""

    def __init__(self, found: Mapping[str, Finding] | None = None) -> None:
        self._found: dict[str, Finding] = dict(found or {})

    def __getitem__(self, kind: str) -> Finding:
        return self._found[kind]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def left_out(self) -> dict[str, int]:
        """Return kind -> number of records left out for it; empty when none was."""
        return {kind: found.count for kind, found in self.items() if found.left_out}

    def with_those(self, others: Findings) -> Findings:
        """Return these and others, counts added where both have a kind; the first place is that of these."""
        together = Findings(self._found)
        for kind, found in others.items():
            together._add(kind, found.first, found.count, left_out=found.left_out)
        return together

    def leave_out(self, kind: str, where: str, count: int = 1) -> None:
        """Count records that are left out."""
        self._add(kind, where, count, left_out=True)

    def note(self, kind: str, where: str, count: int = 1) -> None:
        """Count records that are kept all the same."""
        self._add(kind, where, count, left_out=False)

    def _add(self, kind: str, where: str, count: int, *, left_out: bool) -> None:
        if count:
            known = self._found.get(kind)
            first = known.first if known else where
            self._found[kind] = Finding(count + (known.count if known else 0), first, left_out)
