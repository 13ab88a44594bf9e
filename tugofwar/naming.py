"""Matching dotted names against globs, and naming the closest ones when nothing matches."""

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from fnmatch import fnmatchcase


def matches(name: str, pattern: str) -> bool:
    """Whether a glob or exact name matches the dotted ``name`` or any dotted suffix of it.

    A suffix is enough so that ``connector.*`` works behind wrappers (``module.model.connector.weight``);
    ``*`` also matches dots.
    """
    return any(suffix == pattern or fnmatchcase(suffix, pattern) for suffix in _suffixes(name))


def closest(pattern: str, names: Iterable[str]) -> str:
    """A phrase that lists the modules and names most like ``pattern``, for the end of an error message."""
    every_name = list(names)
    candidates = {suffix for name in every_name for prefix in _prefixes(name) for suffix in _suffixes(prefix)}
    wanted = pattern.strip("*.")
    similar = get_close_matches(wanted, sorted(candidates), n=3, cutoff=0.6)
    if similar:
        return f"the closest names are {', '.join(similar)}"
    shown = ", ".join(every_name[:3])
    return f"there are {len(every_name)} names, such as {shown}" if shown else "there are no names at all"


def _suffixes(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[start:]) for start in range(len(parts)))


def _prefixes(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[:stop]) for stop in range(1, len(parts) + 1))
