"""Progress bars of readers, many calls below the command that may have been told to be quiet."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_QUIET: ContextVar[bool] = ContextVar("quiet", default=False)


@contextmanager
def reading_quietly(quiet: bool = True) -> Iterator[None]:
    """Inside, readers show no progress bar.

    Args:
        quiet: False for nothing but what holds outside.
    """
    outside = _QUIET.set(_QUIET.get() or quiet)
    try:
        yield
    finally:
        _QUIET.reset(outside)


def progress_bar(items: Iterable[Any] | None = None, **options: Any) -> Any:
    """A tqdm bar on stderr that appears once reading takes over two seconds, and goes away at its end.

    Args:
        items: what is gone through; None for a bar that is moved by its ``update``.
        options: tqdm's own.
    """
    from tqdm import tqdm

    return tqdm(items, delay=2, leave=False, file=sys.stderr, disable=_QUIET.get(), **options)
