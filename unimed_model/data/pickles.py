"""Pickles of a third party, read as data alone: lists, dictionaries, texts, bytes, numbers, truth values and None.

A pickle is a program, which can name any function and call it. Here it is read twice. The first reading only looks
at its steps: one that could do more than build the data above is refused before anything is built, and so is what
would take memory or time out of proportion to the file. The second builds, with an unpickler that looks up no global.
Tuples and sets are not among the data: hashing nested ones can take for ever, or end the process.
"""

import codecs
import io
import pickle
import pickletools
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from unimed_model.data.files import note
from unimed_model.errors import UserError

MOST_BYTES = 256 * 2**20
"""A larger file is refused; the published ones have a few million bytes."""

MOST_STEPS = 10_000_000
"""A pickle with more steps is refused. The largest that is published takes about 500,000, and a step that builds
something costs up to a hundred bytes."""

# fmt: off
_BUILDING = frozenset((
    "PROTO", "FRAME", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE",
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
    "EMPTY_LIST", "LIST", "APPEND", "APPENDS", "EMPTY_DICT", "DICT", "SETITEM", "SETITEMS",
    "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET",
))
_CALLING = frozenset((
    "GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "REDUCE", "BUILD",
    "EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID",
))
# fmt: on
_CODES = {code.code: code for code in pickletools.opcodes}
_REMEMBERING = frozenset(("PUT", "BINPUT", "LONG_BINPUT"))
_DAMAGE = (pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError)


class _DataUnpickler(pickle.Unpickler):
    """Builds what needs no global."""

    def __init__(self, content: bytes, path: Path) -> None:
        # Texts of protocols 0 to 2 may be the bytes of Python 2.
        super().__init__(io.BytesIO(content), encoding="utf-8")
        self._path = path

    def find_class(self, module: str, name: str) -> NoReturn:
        raise _asks_for_code(self._path, f"{module}.{name}")

    def persistent_load(self, pid: object) -> NoReturn:
        raise _asks_for_code(self._path, "")


def read_pickle(path: Path) -> Any:
    """Return the data in a pickle of any protocol; nothing that it names is looked up or called.

    Raises:
        UserError: missing, damaged, too large, or asks for anything but data; names the file.
    """
    content = _content(path)
    try:
        _require_data_alone(content, path)
        return _DataUnpickler(content, path).load()
    except (*_DAMAGE, MemoryError, RecursionError) as error:
        raise UserError(f"{path} is not a complete, valid pickle ({_reason(error)}); download it again.") from error


def _content(path: Path) -> bytes:
    note(path)
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise UserError(f"{path} is refused: it has {size:,} bytes, over {MOST_BYTES:,}.")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; complete the download.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from error


def _require_data_alone(content: bytes, path: Path) -> None:
    texts: deque[str] = deque(maxlen=2)
    for step, (code, argument) in enumerate(_steps(content)):
        if code.name in _CALLING:
            raise _asks_for_code(path, _named(code.name, argument, texts))
        if code.name not in _BUILDING:
            raise UserError(
                f"{path} is refused: it holds more than lists, dictionaries, texts and numbers (step {code.name})."
            )
        # The memo is a table as long as its largest number: an honest pickle numbers the things that it has built.
        beyond = code.name in _REMEMBERING and isinstance(argument, int) and not 0 <= argument <= step
        if beyond or step > MOST_STEPS:
            raise UserError(f"{path} is refused: it would take far more memory than the data it could hold.")
        if isinstance(argument, str):
            texts.append(argument)


def _steps(content: bytes) -> Iterator[tuple[pickletools.OpcodeInfo, Any]]:
    """Yield the steps of a pickle with their arguments, as `pickletools.genops`, which takes texts for ASCII."""
    stream = io.BytesIO(content)
    while True:
        byte = stream.read(1)
        if not byte:
            raise ValueError("it ends before its end")
        code = _CODES.get(byte.decode("latin-1"))
        if code is None:
            raise ValueError(f"step {byte!r} is unknown")
        if code.name == "STRING":
            yield code, codecs.escape_decode(stream.readline().strip()[1:-1])[0].decode()
        else:
            yield code, None if code.arg is None else code.arg.reader(stream)
        if code.name == "STOP":
            return


def _named(code: str, argument: object, texts: deque[str]) -> str:
    if code in ("GLOBAL", "INST"):
        return str(argument).replace(" ", ".")
    # The name that stands on the stack is most often written out just before.
    return ".".join(texts) if code == "STACK_GLOBAL" and len(texts) == 2 else ""


def _asks_for_code(path: Path, name: str) -> UserError:
    # The name is of the file's own making: what is no name is not shown.
    shown = f" ({name})" if len(name) < 100 and all(part.isidentifier() for part in name.split(".")) else ""
    return UserError(
        f"{path} is refused: it asks for code to be run{shown}, where only lists, dictionaries, texts and numbers "
        "belong; download it again from its publisher."
    )


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
