"""The sections of a MIMIC-CXR report.

Rules:

- A heading stands at the start of a line, blanks before it allowed: three or more capital letters, among them
  blanks and `( ) / , & ' -`, up to a colon. Its text begins behind the colon and ends before the next heading. A
  time of day or `___` makes a line no heading ("AP CHEST, 5:14 A.M.").
- A section also ends at a ruled line (ten or more `_`) and at a line `FINAL REPORT`, `FINAL ADDENDUM`, `ADDENDUM` or
  `WET READ` without colon. What stands before the first heading belongs to no section.
- A heading with the word FINDING or FINDINGS opens findings, one with IMPRESSION, IMPRESSIONS, CONCLUSION or
  CONCLUSIONS opens the impression. With both ("FINDINGS AND IMPRESSION:") the text counts as findings. All other
  sections are passed over.
- Hard wraps and runs of blanks become one blank; `___`, which stands for what was removed to protect a person, stays.
- Of several sections of one kind the last that is not empty counts: an addendum or final reading comes after a
  preliminary one.
"""

import re
from typing import NamedTuple

_HEADING = re.compile(r"\s*([A-Z][A-Z ()/,&'-]+[A-Z)])\s*:")
_END = re.compile(r"\s*(_{10,}|(FINAL )?(REPORT|ADDENDUM)|WET READ)\s*")
_FINDINGS = re.compile(r"\bFINDINGS?\b")
_IMPRESSION = re.compile(r"\b(IMPRESSION|CONCLUSION)S?\b")


class Sections(NamedTuple):
    """The two sections that a target is made of; empty where the report has none."""

    findings: str
    impression: str

    def target(self) -> str:
        """Return `Findings: … Impression: …`, each with its section alone."""
        named = (("Findings", self.findings), ("Impression", self.impression))
        return " ".join(f"{name}: {text}" for name, text in named if text)


def sections(report: str) -> Sections:
    """Return findings and impression of a report by the rules at the top of this file."""
    texts = {"findings": "", "impression": ""}
    kind: str | None = None
    lines: list[str] = []
    for line in [*report.splitlines(), "_" * 10]:
        heading = _HEADING.match(line)
        if not heading and not _END.fullmatch(line):
            lines.append(line)
            continue
        text = unwrapped("\n".join(lines))
        if kind and text:
            texts[kind] = text
        kind, lines = (_kind(heading[1]), [line[heading.end() :]]) if heading else (None, [])
    return Sections(**texts)


def unwrapped(text: str) -> str:
    """Return a text on one line, single blanks between its words."""
    return " ".join(text.split())


def _kind(heading: str) -> str | None:
    if _FINDINGS.search(heading):
        return "findings"
    return "impression" if _IMPRESSION.search(heading) else None
