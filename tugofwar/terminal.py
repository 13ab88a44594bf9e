"""How every command of this project ends: results on stdout, one sentence and a status on stderr.

A mistake the user can mend ends with status 2, an interrupt with 130; anything else is a fault of ours
and keeps its traceback. What else is to be said stands in the exception's notes (``add_note``), such as what
an interrupted command has kept. Of several processes only the first speaks.
"""

import errno
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tugofwar.launch import is_first

INTERRUPTED = 130
FULL_DISK = "The disk is full{where}; free some room or choose another output folder."


def run(app: Callable[[], object], user_errors: Iterable[type[Exception]]) -> None:
    """Run a command-line application and turn the errors a user can cause into one sentence.

    Args:
        app: the Typer application, called without arguments.
        user_errors: exception classes whose message is already the sentence to show.

    Raises:
        SystemExit: status 2 for a user's mistake or a file that cannot be read or written, 130 for Ctrl-C.
    """
    try:
        _run_and_flush(app)
    except tuple(user_errors) as error:
        fail(str(error), _notes(error))
    except OSError as error:
        if error.filename is None and error.errno != errno.ENOSPC:
            raise
        fail(_operating_system_sentence(error), _notes(error))
    except Exception as error:
        # Libraries written in Rust (safetensors, tokenizers) report a full disk in exceptions of their own.
        if f"os error {errno.ENOSPC}" not in str(error):
            raise
        fail(FULL_DISK.format(where=""), _notes(error))
    except KeyboardInterrupt as interrupt:
        _say_interrupted(_notes(interrupt))
        raise SystemExit(INTERRUPTED) from None
    except SystemExit as end:
        # Typer turns Ctrl-C into this status by itself, without a word.
        if end.code == INTERRUPTED:
            _say_interrupted(_notes(end))
        raise


def _run_and_flush(app: Callable[[], object]) -> None:
    """Run an application and write what it left in the buffer: if that fails at exit, nothing can be said any more."""
    try:
        app()
    finally:
        _flush()


def _flush() -> None:
    try:
        sys.stdout.flush()
    except OSError as error:
        # what stays in the buffer is written once more at exit, and must not fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # whoever read has heard enough
            raise SystemExit(1) from None
        raise


def fail(sentence: str, notes: Iterable[str] = ()) -> None:
    """Print ``Error: sentence`` on stderr, the notes below it, and leave with status 2."""
    if is_first():
        print(f"Error: {sentence}", *notes, sep="\n", file=sys.stderr)
    raise SystemExit(2)


@contextmanager
def plain_warnings(package: str) -> Iterator[None]:
    """Inside, every UserWarning that a module of ``package`` gives is one line on stderr; others are as ever."""
    folder = Path(str(sys.modules[package].__file__)).parent
    with warnings.catch_warnings():
        warnings.filterwarnings("default", category=UserWarning, module=rf"{package}\.")
        shown_as_ever = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], filename: str, *place: Any, **more: Any) -> None:
            if category is not UserWarning or folder not in Path(filename).parents:
                shown_as_ever(message, category, filename, *place, **more)
            elif is_first():
                from tqdm import tqdm

                # Above a progress bar, if there is one, and not into it.
                tqdm.write(f"Warning: {message}", file=sys.stderr)

        warnings.showwarning = show
        yield


def _say_interrupted(notes: list[str]) -> None:
    if is_first():
        print(" ".join(["Interrupted.", *(notes or ["Nothing half-written was left behind."])]), file=sys.stderr)


def _notes(error: BaseException) -> list[str]:
    """Notes of an exception and of those that it came from."""
    chain: list[str] = []
    link: BaseException | None = error
    while link is not None:
        chain += getattr(link, "__notes__", [])
        link = link.__cause__ or link.__context__
    return chain


def _operating_system_sentence(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename is not None else ""
    if error.errno == errno.ENOSPC:
        return FULL_DISK.format(where=where)
    return f"{error.strerror or error}{where}."
