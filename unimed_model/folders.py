"""A folder that appears whole or not at all."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``folder`` that takes its place at the end, or vanishes on an exception.

    What stood there before is moved aside first and deleted last, so that it is never lost to a process that is
    killed in between. Whether it may be replaced is for the caller to check beforehand.
    """
    target = folder.resolve()
    created = [parent for parent in target.parents if not parent.exists()]
    partial, previous = (target.with_name(f"{target.name}.{word}") for word in ("partial", "previous"))
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        open_to_readers(partial)
        if target.exists():
            shutil.rmtree(previous, ignore_errors=True)
            target.rename(previous)
        partial.rename(target)
        shutil.rmtree(previous, ignore_errors=True)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        for parent in created:
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()
        raise


def open_to_readers(folder: Path) -> None:
    """Give weights the mode of other new files: safetensors leaves them to their owner alone."""
    for path in folder.rglob("*.safetensors"):
        path.chmod(folder.stat().st_mode & 0o666)
