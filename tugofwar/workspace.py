"""A hidden folder beside the output in which long work is done, and what is left of it when it is cut short.

``.gradients.partial`` beside ``gradients`` holds the factors of the datasets that are finished, so that the same
command goes on after them. It is gone when the output is complete.
"""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tugofwar.errors import UserError
from tugofwar.folders import check_replaceable, missing_parents, remove_empty
from tugofwar.launch import is_first

_OUTPUT, _PREVIOUS, _FACTORS, _LINKED, _LOCK = "output", "previous", "factors", "linked", "lock"


@dataclass(frozen=True)
class Workspace:
    """Where to work (``folder``, also for ``record``), and what becomes the output (``output``)."""

    folder: Path

    @property
    def output(self) -> Path:
        """The folder that takes the output's place when all is done."""
        return self.folder / _OUTPUT

    @property
    def factors(self) -> Path:
        """Factors of finished datasets."""
        return self.folder / _FACTORS

    def seed_factors(self, source: Path) -> None:
        """Begin with the factors in ``source``, hard-linked where the file system can, unless they are there already.

        An archive's files are never changed, only added to, so that links are as safe as copies.
        """
        files = sorted(source.iterdir())
        if all(_same(file, self.factors / file.name) for file in files):
            return
        linked = self.folder / _LINKED
        linked.mkdir()
        for file in files:
            try:
                (linked / file.name).hardlink_to(file)
            except OSError:
                shutil.copy2(file, linked / file.name)
        shutil.rmtree(self.factors, ignore_errors=True)
        linked.rename(self.factors)


def workspace_of(output: Path) -> Path:
    """The workspace of an output folder: ``.gradients.partial`` for ``gradients``."""
    target = output.resolve()
    return target.with_name(f".{target.name}.partial")


@contextmanager
def working(output: Path, resume: bool = True) -> Iterator[Workspace]:
    """Yield a workspace whose ``output`` takes the place of the folder ``output`` at the end.

    On an exception, also Ctrl-C, the workspace is kept if a dataset was finished in it, and a note on the exception
    says so; otherwise nothing is left. Of several processes the first one alone touches the folders.

    Args:
        output: the folder to make; the output of an earlier run there is replaced.
        resume: go on from what an interrupted run has left, and leave the same.

    Raises:
        UserError: ``output`` is a file or holds something other than a recording, or another process is writing it.
    """
    room = workspace_of(output)
    if not is_first():
        yield Workspace(room)
        return
    target = output.resolve()
    check_replaceable(target)
    created = missing_parents(target)
    room.mkdir(parents=True, exist_ok=True)
    try:
        with _locked(room / _LOCK, output):
            _tidy(room, target, resume)
            (room / _OUTPUT).mkdir()
            yield Workspace(room)
            _swap(room, target)
    except Busy:
        raise
    except BaseException as error:
        _put_back(room, target)
        finished = _finished(room / _FACTORS) if resume else 0
        if finished:
            what = "1 finished dataset is" if finished == 1 else f"{finished} finished datasets are"
            error.add_note(
                f"{what} kept in {room.name} beside the output: the same command, also with more --batches, resumes "
                "there; with --no-resume it starts afresh."
            )
        else:
            shutil.rmtree(room, ignore_errors=True)
            remove_empty(created)
        raise
    shutil.rmtree(room, ignore_errors=True)


class Busy(UserError):
    """Somebody else's workspace, to be left alone."""


@contextmanager
def _locked(path: Path, output: Path) -> Iterator[None]:
    """Hold a lock that the system drops when the process ends, however it ends."""
    with path.open("w") as file:
        if sys.platform != "win32":
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Busy(
                    f"Another process is measuring into {output}; wait for it, or choose another --out."
                ) from None
            except OSError:
                # Some network file systems know no locks; a run there is none the worse for it.
                pass
        yield


def _tidy(room: Path, target: Path, resume: bool) -> None:
    """Leave only the factors of an interrupted run."""
    _put_back(room, target)
    kept = {_LOCK, _FACTORS} if resume else {_LOCK}
    for path in room.iterdir():
        if path.name not in kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _swap(room: Path, target: Path) -> None:
    # Two renames, so that there is no moment in which the old output is half gone.
    if target.exists():
        target.rename(room / _PREVIOUS)
    (room / _OUTPUT).rename(target)


def _put_back(room: Path, target: Path) -> None:
    """Undo a swap that was cut short."""
    if (room / _PREVIOUS).exists() and not target.exists():
        (room / _PREVIOUS).rename(target)


def _finished(factors: Path) -> int:
    """Datasets that left factors of theirs and were noted as finished."""
    notes = [path for path in factors.glob("*.json") if path.with_suffix(".bin").exists()]
    return len({path.name.split(".")[0] for path in notes if path.with_suffix(".bin").stat().st_size})


def _same(file: Path, other: Path) -> bool:
    if not other.exists():
        return False
    mine, theirs = file.stat(), other.stat()
    return (mine.st_size, mine.st_mtime_ns) == (theirs.st_size, theirs.st_mtime_ns)
