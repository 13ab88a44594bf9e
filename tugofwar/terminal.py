"""How every command of this project ends: results on stdout, one sentence and a status on stderr.

A mistake the user can mend ends with status 2, an interrupt with 130; anything else is a fault of ours
and keeps its traceback.
"""

import errno
import sys
from collections.abc import Callable, Iterable

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
        app()
    except tuple(user_errors) as error:
        fail(str(error))
    except OSError as error:
        if error.filename is None and error.errno != errno.ENOSPC:
            raise
        fail(_operating_system_sentence(error))
    except Exception as error:
        # Libraries written in Rust (safetensors, tokenizers) report a full disk in exceptions of their own.
        if f"os error {errno.ENOSPC}" not in str(error):
            raise
        fail(FULL_DISK.format(where=""))
    except KeyboardInterrupt:
        _say_interrupted()
        raise SystemExit(INTERRUPTED) from None
    except SystemExit as end:
        # Typer turns Ctrl-C into this status by itself, without a word.
        if end.code == INTERRUPTED:
            _say_interrupted()
        raise


def _say_interrupted() -> None:
    print("Interrupted; nothing half-written was left behind.", file=sys.stderr)


def fail(sentence: str) -> None:
    """Print ``Error: sentence`` on stderr and leave with status 2."""
    print(f"Error: {sentence}", file=sys.stderr)
    raise SystemExit(2)


def _operating_system_sentence(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename is not None else ""
    if error.errno == errno.ENOSPC:
        return FULL_DISK.format(where=where)
    return f"{error.strerror or error}{where}."
