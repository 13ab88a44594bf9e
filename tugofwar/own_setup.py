"""``--setup``: a function of the user's own that returns a model, its datasets and, if needed, a loss."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from tugofwar.errors import UserError
from tugofwar.study import Study, check_study

FORMS = "FILE.py:FUNCTION or package.module:function"


class SetupFailed(UserError):
    """The user's own code raised.

    Attributes:
        report: the traceback from the first line of that code on.
    """

    def __init__(self, sentence: str, report: str) -> None:
        super().__init__(sentence)
        self.report = report


@contextmanager
def open_study(target: str) -> Iterator[Study]:
    """Load the module that ``target`` names, call its function, and check what it returns.

    Inside, the file's folder (the current folder for a dotted module) is the first on ``sys.path``, as when
    Python runs the file, so that modules beside it can be imported, also by worker processes.

    Args:
        target: ``my_study.py:setup`` or ``package.module:function``.

    Raises:
        SetupFailed: the user's code raised.
        UserError: no such file, module or function, or a function that returns something else.
    """
    module_name, colon, function_name = target.rpartition(":")
    if not (module_name and colon and function_name):
        raise UserError(f"--setup is {target!r}; write {FORMS}.")
    path = Path(module_name) if module_name.endswith(".py") else None
    if path is not None and not path.is_file():
        raise UserError(f"There is no file {path}; --setup is written {FORMS}.")
    name = path.name if path else module_name
    folder = path.resolve().parent if path else Path.cwd()
    with _first_on_path(folder), _loaded(path, module_name) as module:
        where = f"{function_name} of {name}"
        function = _find(module, function_name, where)
        with _their_errors(where):
            returned = function()
        yield check_study(returned, where, _metadata(module, name, function_name))


@contextmanager
def _first_on_path(folder: Path) -> Iterator[None]:
    before = list(sys.path)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path[:] = before


@contextmanager
def _their_errors(where: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise SetupFailed(f"{where} raised {type(error).__name__}.", _their_traceback(error)) from error


def _their_traceback(error: Exception) -> str:
    frames = error.__traceback__
    while frames is not None and _is_machinery(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames))


def _is_machinery(filename: str) -> bool:
    return filename in (__file__, importlib.__file__) or filename.startswith("<frozen importlib")


@contextmanager
def _loaded(path: Path | None, name: str) -> Iterator[ModuleType]:
    if path is None:
        yield _load_module(name)
        return
    # A file may be called like a module that is in use (figures.py); that one must not be replaced.
    free_name = path.stem if path.stem not in sys.modules else f"_setup_{path.stem}"
    spec = importlib.util.spec_from_file_location(free_name, path.resolve())
    if spec is None or spec.loader is None:
        raise UserError(f"{path} cannot be loaded as a Python module.")
    module = importlib.util.module_from_spec(spec)
    # Registered as an import would, because pickle and dataclasses look modules up by name.
    sys.modules[free_name] = module
    try:
        with _their_errors(path.name):
            spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules[free_name]


def _load_module(name: str) -> ModuleType:
    importlib.invalidate_caches()
    if not all(part.isidentifier() for part in name.split(".")):
        raise UserError(f"{name!r} is neither a .py file nor a dotted module name; --setup is written {FORMS}.")
    with _their_errors(name):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and f"{name}.".startswith(f"{error.name}."):
                raise UserError(f"There is no module {error.name!r} here or installed; --setup is {FORMS}.") from None
            raise


def _find(module: ModuleType, name: str, where: str) -> Callable[[], Any]:
    if not hasattr(module, name):
        raise UserError(f"There is no {where}; {_nearest(name, _functions(module))}.")
    function = getattr(module, name)
    if not callable(function):
        raise UserError(f"{where} is not a function but a {type(function).__name__}.")
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise UserError(f"{where} is called without arguments, but {error}.") from None
    return function


def _functions(module: ModuleType) -> list[str]:
    """Names of what the module itself defines and can be called; not of what it imports."""
    return [
        name
        for name, value in vars(module).items()
        if callable(value) and getattr(value, "__module__", None) == module.__name__
    ]


def _nearest(name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, n=3, cutoff=0.5) or known[:3]
    return f"did you mean {' or '.join(close)}" if close else "the file defines no function"


def _metadata(module: ModuleType, name: str, function: str) -> dict[str, str]:
    metadata = {"setup": f"{name}:{function}"}
    if module.__file__ is not None:
        metadata["setup_sha256"] = hashlib.sha256(Path(module.__file__).read_bytes()).hexdigest()
    return metadata
