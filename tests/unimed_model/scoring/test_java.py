"""What the Java programs say, and what is said when they cannot."""

import stat
from pathlib import Path

import numpy as np
import pytest

from unimed_model.scoring import java
from unimed_model.scoring.meteor import additive, corpus_meteor

needs_java = pytest.mark.skipif(java.missing() is not None, reason=str(java.missing()))


@needs_java
def test_tokens_are_lower_case_and_without_punctuation_but_for_brackets():
    # pycocoevalcap means to remove brackets too, but looks for -LRB- where the tokeniser writes -lrb-
    found = java.ptb_tokenised(["Hello, Dr. Smith (left)\nlung - 5.5 cm.", "", 'µ x-ray "ok"!', "no."])
    assert found == ["hello dr. smith -lrb- left -rrb- lung 5.5 cm", "", "µ x-ray ok", "no"]


def test_meteor_of_a_worked_pair():
    # candidate "lung", reference "left lung": one equal content word in one chunk
    stated = [[1, 2, 0, 0, 1, 1, 0, 0, *[0] * 12, 1, 1, 1]]
    mean = 1 / (0.15 / 1 + 0.85 / 0.5)
    assert corpus_meteor(additive(stated)) == pytest.approx([mean * (1 - 0.6)])


def test_a_copy_in_one_piece_adds_no_chunk():
    stated = [[2, 2, 0, 0, 2, 2, 0, 0, *[0] * 12, 1, 2, 2]]
    assert corpus_meteor(additive(stated * 3).sum(axis=0)) == 1
    assert corpus_meteor(np.zeros(23)) == 0


def fake_java(folder, monkeypatch, script):
    program = folder / "java"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setattr(java, "_package", lambda: folder)


def test_without_java_the_reason_names_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no `java` on the PATH" in java.missing()
    with pytest.raises(java.Unavailable, match=r"pip install 'tugofwar\[java-metrics\]'"):
        java.meteor_statistics(["a"], ["a"])


def test_without_pycocoevalcap_the_reason_names_what_to_install(monkeypatch, tmp_path):
    fake_java(tmp_path, monkeypatch, "exit 0")
    monkeypatch.setattr(java, "_package", lambda: None)
    with pytest.raises(java.Unavailable, match=r"pip install 'tugofwar\[java-metrics\]'"):
        java.ptb_tokenised(["a"])


def test_a_program_that_fails_is_one_sentence_that_quotes_no_text(monkeypatch, tmp_path):
    fake_java(tmp_path, monkeypatch, "cat >&2; exit 3")
    with pytest.raises(java.Unavailable, match=r"0 answers to 1 lines, exit status 3") as raised:
        java.meteor_statistics(["secret"], ["secret"])
    assert "secret" not in str(raised.value)


def test_a_program_that_hangs_is_ended(monkeypatch, tmp_path):
    fake_java(tmp_path, monkeypatch, f"echo $$ > {tmp_path}/pid; exec sleep 60")
    monkeypatch.setattr(java, "_START_SECONDS", 0.5)
    with pytest.raises(java.Unavailable, match="did not answer within 1 s"):
        java.meteor_statistics(["a"], ["a"])
    pid = (tmp_path / "pid").read_text().strip()
    assert not Path(f"/proc/{pid}").exists()


def test_nothing_is_started_for_no_text(monkeypatch, tmp_path):
    fake_java(tmp_path, monkeypatch, "exit 9")
    assert java.meteor_statistics([], []) == []
