import pytest

from unimed_model.data.readers.mimic_cxr.sections import sections

SECTIONS = {
    "FINDINGS: A.\nIMPRESSION: B.": ("A.", "B."),
    "  FINDINGS : A  b\n   c ___ d\n\n IMPRESSION:\n\n B.\n": ("A b c ___ d", "B."),
    "FINDINGS AND IMPRESSION: A.": ("A.", ""),
    "IMPRESSION AND FINDINGS:\nA.": ("A.", ""),
    "FINDINGS/IMPRESSION: A.": ("A.", ""),
    "CONCLUSION: B.": ("", "B."),
    "IMPRESSION:B.": ("", "B."),
    "FINDINGS: A.\nFINAL REPORT\nC.": ("A.", ""),
    "FINDINGS: A.\n____________\nC.": ("A.", ""),
    "FINDINGS: A.\nRECOMMENDATION(S): C.\nIMPRESSION: B.": ("A.", "B."),
    "FINDINGS: A.\nFINDINGS: Later.\nFINDINGS:\n": ("Later.", ""),
    "FINDINGS: A at\nAP CHEST, 5:14 A.M.: b": ("A at AP CHEST, 5:14 A.M.: b", ""),
    "Findings: A.": ("", ""),
    "No heading at all.": ("", ""),
    "": ("", ""),
    "FINDINGS: A.\r\nIMPRESSION: B.\r\n": ("A.", "B."),
}


@pytest.mark.parametrize(("report", "expected"), SECTIONS.items(), ids=map(repr, SECTIONS))
def test_sections_of_a_report(report: str, expected: tuple[str, str]) -> None:
    assert tuple(sections(report)) == expected


def test_a_target_names_the_sections_that_are_there() -> None:
    assert sections("FINDINGS: A.\nIMPRESSION: B.").target() == "Findings: A. Impression: B."
    assert sections("IMPRESSION: B.").target() == "Impression: B."
    assert sections("").target() == ""
