"""The two Java programs that the released scripts score reports with: a PTB tokeniser and METEOR 1.5.

Both come with pycocoevalcap. Each is started once with all lines on its standard input and has ended when a function
here returns. Their messages are not passed on: they may quote the text that they were given.
"""

import importlib.util
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

EXTRA = "pip install 'tugofwar[java-metrics]'"
PTB_JAR, METEOR_JAR = Path("tokenizer/stanford-corenlp-3.4.1.jar"), Path("meteor/meteor-1.5.jar")
"""Where they lie in pycocoevalcap's folder."""

_START_SECONDS, _SECONDS_PER_LINE = 120.0, 0.2
"""How long a program may take: far more than it needs."""


class Unavailable(Exception):
    """A metric cannot be computed here; the message is one clause that says why, and what would help."""


def missing() -> str | None:
    """Return what is missing for the Java metrics, or None."""
    if shutil.which("java") is None:
        return f"needs Java (no `java` on the PATH) and pycocoevalcap ({EXTRA})"
    if _package() is None:
        return f"needs pycocoevalcap and Java: {EXTRA}"
    return None


def ptb_tokenised(texts: Sequence[str]) -> list[str]:
    """Return texts in the tokens of the Penn Treebank, lower case, those of punctuation removed, joined by blanks.

    Raises:
        Unavailable: Java or pycocoevalcap is missing, or the program failed.
    """
    package = _required()
    from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS

    options = ["-cp", str(package / PTB_JAR), "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    lines = _run("the PTB tokeniser", options, [_one_line(text) for text in texts])
    return [" ".join(word for word in line.split() if word not in PUNCTUATIONS) for line in lines]


def meteor_statistics(candidates: Sequence[str], references: Sequence[str]) -> list[list[float]]:
    """Return the statistics of METEOR 1.5 (English, normalising) of each pair, which add up to a corpus's.

    Raises:
        Unavailable: Java or pycocoevalcap is missing, or the program failed.
    """
    package = _required()
    options = ["-Xmx2G", "-jar", str(package / METEOR_JAR), "-", "-", "-stdio", "-l", "en", "-norm"]
    pairs = zip(candidates, references, strict=True)
    asked = [f"SCORE ||| {_one_line(theirs)} ||| {_one_line(ours)}" for ours, theirs in pairs]
    return [[float(number) for number in line.split()] for line in _run("METEOR", options, asked)]


def _package() -> Path | None:
    found = importlib.util.find_spec("pycocoevalcap")
    return Path(next(iter(found.submodule_search_locations))) if found and found.submodule_search_locations else None


def _required() -> Path:
    reason, package = missing(), _package()
    if reason is not None or package is None:
        raise Unavailable(reason)
    return package


def _one_line(text: str) -> str:
    """A text without line breaks, and without the mark that separates METEOR's fields."""
    return " ".join(text.replace("|||", " ").split())


def _run(program: str, options: Sequence[str], lines: Sequence[str]) -> list[str]:
    """Return the line that a program answers to each line."""
    if not lines:
        return []
    command = ["java", "-Dfile.encoding=UTF-8", *options]
    allowed = _START_SECONDS + _SECONDS_PER_LINE * len(lines)
    try:
        # run() kills and reaps the program on a timeout and on any other exception
        done = subprocess.run(
            command, input="".join(f"{line}\n" for line in lines).encode(), capture_output=True, timeout=allowed
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{program} (Java) did not answer within {allowed:.0f} s") from error
    except OSError as error:
        raise Unavailable(f"{program} (Java) could not be started: {error.strerror}") from error
    answered = done.stdout.decode("utf-8", errors="replace").split("\n")[:-1]
    if done.returncode or len(answered) != len(lines):
        counted = f"{len(answered)} answers to {len(lines)} lines, exit status {done.returncode}"
        raise Unavailable(f"{program} (Java) failed: {counted}")
    return answered
