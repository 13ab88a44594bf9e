"""An evaluation under way: a private folder beside its output, from which the same command goes on.

Answers are added a batch at a time and reach the disk before the next batch begins, so that a process that is killed
loses one batch at most. The folder is its owner's alone: it has the text of datasets that may not be passed on.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from .errors import UserError
from .locking import take_lock
from .predictions import line_of, parsed_line

Key = tuple[str, str]
"""Dataset and id of a sample."""

PLAN, LINES, LOCK = "plan.json", "predictions.jsonl", "lock"


class Journal:
    """The answers of an evaluation under way.

    Attributes:
        folder: where they are kept.
        predictions: what was answered so far, in the order of the samples.
    """

    def __init__(self, folder: Path, keys: Sequence[Key]) -> None:
        self.folder = folder
        self.predictions = _read(folder / LINES, keys)
        self._file = os.open(folder / LINES, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Add the lines of one batch, and return when the disk has them.

        Raises:
            OSError: they cannot be written; names the file.
        """
        lines = list(records)
        left = memoryview("".join(map(line_of, lines)).encode())
        try:
            while left:
                left = left[os.write(self._file, left) :]
            os.fsync(self._file)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.folder / LINES)) from error
        self.predictions += [record["prediction"] for record in lines]

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)


@contextmanager
def unfinished(
    out: Path, plan: Mapping[str, Any], keys: Sequence[Key], say: Callable[[str], None]
) -> Iterator[Journal]:
    """Yield the journal of the evaluation that is to become ``out``; it vanishes at the end, and without answers.

    Args:
        out: output folder.
        plan: what the answers depend on: ``run`` (file -> digest), ``settings`` and ``datasets``. Answers of another
            model are thrown away; answers of this model to other samples are kept.
        keys: all samples, in the order in which they are answered.
        say: is told, in one sentence, what was found.

    Raises:
        UserError: another process is at work on it, or it holds answers to other samples, or it is damaged.
    """
    target = out.resolve()
    folder = target.with_name(f".{target.name}.partial")
    created = [parent for parent in folder.parents if not parent.exists()]
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    with _locked(folder / LOCK, out):
        _begin(folder, plan, say)
        journal = Journal(folder, keys)
        if journal.predictions:
            say(f"Going on after {len(journal.predictions)} of {len(keys)} answers, kept in {folder}.")
        try:
            yield journal
        except BaseException as error:
            if journal.predictions:
                count = "1 answer is" if len(journal.predictions) == 1 else f"{len(journal.predictions)} answers are"
                error.add_note(f"{count} kept in {folder}; the same command goes on from there.")
            else:
                _remove(folder, created)
            raise
        finally:
            journal.close()
    shutil.rmtree(folder)


def _begin(folder: Path, plan: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """Leave in the folder a plan that is this one, and answers only if they were given to it."""
    path = folder / PLAN
    found = _plan_in(path)
    if found == plan:
        return
    if found is not None and found["run"] == plan["run"] and (folder / LINES).is_file():
        raise UserError(
            f"{folder} holds an unfinished evaluation with {_difference(found, plan)}; finish it with its own command, "
            "choose another --out, or remove that folder."
        )
    if (folder / LINES).is_file():
        say(f"The answers kept in {folder} are of other weights; the evaluation starts anew.")
        (folder / LINES).unlink()
    temporary = path.with_name(f"{path.name}.new")
    with _private(temporary) as file:
        json.dump(plan, file, indent=2)
    temporary.replace(path)


def _private(path: Path) -> IO[str]:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8")


def _plan_in(path: Path) -> dict[str, Any] | None:
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f"{path} is damaged; remove {path.parent} to start the evaluation anew.") from error
    if not isinstance(plan, dict) or set(plan) != {"run", "settings", "datasets"}:
        raise UserError(f"{path} was written by another version; remove {path.parent} to start the evaluation anew.")
    return plan


def _difference(found: Mapping[str, Any], plan: Mapping[str, Any]) -> str:
    """What sets two plans of one model apart, the first thing only."""
    for name, value in plan["settings"].items():
        if (old := found["settings"].get(name)) != value:
            return f"the {name} {old!r}, not {value!r}"
    if list(found["datasets"]) != list(plan["datasets"]):
        return f"the datasets {', '.join(found['datasets'])}, not {', '.join(plan['datasets'])}"
    for name, wanted in plan["datasets"].items():
        old = found["datasets"][name]
        if old["samples"] != wanted["samples"]:
            return f"{old['samples']} samples of {name}, not {wanted['samples']}"
        if old != wanted:
            return f"other samples, prompts or references of {name}"
    return "other settings"


def _read(path: Path, keys: Sequence[Key]) -> list[str]:
    """Return the predictions in a journal; a last line that was torn is cut off the file.

    Raises:
        UserError: another line is damaged, or is not the answer to the sample whose turn it was.
    """
    if not path.is_file():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    lines = whole.splitlines(keepends=True)
    predictions: list[str] = []
    for number, line in enumerate(lines, start=1):
        where = f"{path}, line {number}"
        try:
            record = parsed_line(line, where)
        except UserError:
            if number < len(lines):
                raise
            whole = whole[: -len(line)]
            break
        expected = keys[number - 1] if number <= len(keys) else None
        if (record.get("dataset"), record.get("id")) != expected or not isinstance(record.get("prediction"), str):
            raise UserError(f"{where} is not the answer expected there; remove {path.parent} to start anew.")
        predictions.append(record["prediction"])
    if len(whole) < len(content):
        os.truncate(path, len(whole))
    return predictions


@contextmanager
def _locked(path: Path, out: Path) -> Iterator[None]:
    with _private(path) as file:
        take_lock(file.fileno(), f"Another process is evaluating into {out}; wait for it, or choose another --out.")
        yield


def _remove(folder: Path, created: Iterable[Path]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for parent in created:
        if parent.is_dir() and not any(parent.iterdir()):
            parent.rmdir()
