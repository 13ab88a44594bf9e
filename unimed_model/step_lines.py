"""A file that grows by lines during training, and can be cut back to the step that training goes on from."""

import json
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path

from .whole_file import write_whole


class StepLines:
    """Lines of a file, each of a training step; a line reaches the system before the call that appends it returns.

    Args:
        path: the file; it is made with its first line.
        step_of: returns the step of a line, and raises ValueError for one that is damaged.
        head: first line of the file, if it has one that belongs to no step.
    """

    def __init__(self, path: Path, step_of: Callable[[str], int], head: str = "") -> None:
        self.path = path
        self._step_of = step_of
        self._head = head.encode()
        self._file: FileIO | None = None

    def append(self, lines: str) -> None:
        """Add lines, each with its end.

        Raises:
            OSError: they cannot be written; names the file.
        """
        left = lines.encode()
        try:
            if self._file is None:
                # Without a buffer, which would be written once more when a full disk has ended the run.
                self._file = FileIO(self.path, "a")
                if not self._file.tell():
                    left = self._head + left
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def lines(self) -> list[str]:
        """Return the lines in the file, up to the first that is torn or damaged."""
        return [line for _, line in self._whole()]

    def rewind(self, step: int) -> None:
        """Drop lines beyond a step, and whatever a process that was killed left half-written."""
        self.close()
        if not self.path.exists():
            return
        kept = "".join(line for number, line in self._whole() if number <= step).encode()
        if not kept:
            self.path.unlink()
        elif self._head + kept != self.path.read_bytes():
            write_whole(self.path, self._head + kept)

    def close(self) -> None:
        """Let go of the file; a later line opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _whole(self) -> Iterator[tuple[int, str]]:
        if not self.path.exists():
            return
        content = self.path.read_bytes()
        if not content.startswith(self._head):
            return
        for line in content[len(self._head) :].splitlines(keepends=True):
            if not line.endswith(b"\n"):  # torn, even if it reads well: 1 of 12
                return
            try:
                text = line.decode()
                step = self._step_of(text)
            except ValueError:
                return
            yield step, text


def step_of_json(line: str) -> int:
    """Return the step of a line that is a JSON object.

    Raises:
        ValueError: it is none, or has no step.
    """
    entry = json.loads(line)
    step = entry.get("step") if isinstance(entry, dict) else None
    if not isinstance(step, int):
        raise ValueError(f"no step in {line!r}")
    return step


def step_of_csv(line: str) -> int:
    """Return the step of a line whose first cell it is.

    Raises:
        ValueError: the cell is no whole number.
    """
    return int(line.partition(",")[0])
