"""Findings and warnings for the head of the page, each with a link to the picture, and the choices, that show it."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from figures.report.chart import Picture, View
from figures.report.sections import KINDS, LABELS, Section

# So many findings of a question stand at the head of the page; a button shows the others.
MOST_SHOWN = 2


@dataclass(frozen=True)
class Remark:
    """One sentence.

    Attributes:
        text: the sentence.
        link: what on the page it is about; empty for none.
        label: what that is called.
        at: JSON of the choices of the picture's pickers; empty where there is nothing to choose.
    """

    text: str
    link: str = ""
    label: str = ""
    at: str = ""


@dataclass(frozen=True, eq=False)
class Group:
    """What was found about one question, the most telling first."""

    section: Section
    shown: Sequence[Remark]
    later: Sequence[Remark]


def finding_groups(findings: Sequence[tuple[str, str]], sections: Sequence[Section]) -> list[Group]:
    """Findings by question, what compares all runs before what is about one of them.

    Args:
        findings: kind of the picture that each belongs to, and the sentence, in order of importance.
        sections: of the page.
    """
    groups = []
    for section in sections:
        found = list(_findings_of(section, findings))
        remarks = [remark for _, remark in sorted(found, key=lambda pair: "Run" in pair[0].pickers)]
        if remarks:
            groups.append(Group(section, remarks[:MOST_SHOWN], remarks[MOST_SHOWN:]))
    return groups


def warning_remarks(of_runs: Sequence[str], of_pictures: Sequence[str], sections: Sequence[Section]) -> list[Remark]:
    """Every warning once.

    Args:
        of_runs: warnings about the runs as a whole.
        of_pictures: warnings that stand beside pictures.
        sections: of the page.
    """
    places: dict[str, Remark] = {}
    for section in sections:
        for picture in section.pictures:
            for view in picture.views:
                for text in view.explanation.warnings:
                    places.setdefault(text, _remark(text, picture, view))
    about_runs = [Remark(text, "runs", "The runs") for text in dict.fromkeys(of_runs)]
    return about_runs + [places.get(text, Remark(text)) for text in dict.fromkeys(of_pictures)]


def _findings_of(section: Section, findings: Sequence[tuple[str, str]]) -> Iterator[tuple[Picture, Remark]]:
    places: dict[str, tuple[Picture, Remark]] = {}
    for picture in section.pictures:
        for view in picture.views:
            if (text := view.explanation.finding) is not None:
                places.setdefault(text, (picture, _remark(text, picture, view)))
    for kind, text in findings:
        alike = [one for one in section.pictures if KINDS.get(one.name, one.name) == kind]
        if text in places:
            yield places[text]
        elif alike:
            # What was too large for the page is still said, beside the first picture of its kind.
            yield alike[0], Remark(text, alike[0].name, LABELS[alike[0].name])


def _remark(text: str, picture: Picture, view: View) -> Remark:
    return Remark(text, picture.name, LABELS[picture.name], json.dumps(view.at, ensure_ascii=False))
