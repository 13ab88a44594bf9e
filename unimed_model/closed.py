"""Settings that admit no unknown key: a misspelt one is an error that names the nearest valid one."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from unimed_model.errors import UserError


class Closed(BaseModel):
    """Base of all settings: frozen, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Model = TypeVar("Model", bound=Closed)


def validated(model: type[Model], values: Mapping[str, Any], where: str) -> Model:
    """Return `values` as an instance of `model`.

    Raises:
        UserError: an unknown key, a missing one or a bad value; the sentence starts with `where`.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise UserError(f"{where}: {_sentence(error, model)}") from error


def nearest(word: str, valid: Iterable[str]) -> str:
    """Return the valid word most like `word`."""
    return difflib.get_close_matches(word, list(valid), n=1, cutoff=0.0)[0]


def _sentence(error: ValidationError, model: type[Closed]) -> str:
    # A misspelt key also leaves the right one missing: say the former.
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    key = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        return _unknown(first["loc"], model)
    if first["type"] == "missing":
        return f"the key {key!r} is missing."
    reason = first["msg"].removeprefix("Value error, ")
    if isinstance(first["input"], Mapping):  # what does not fit together in a section, which need not be shown whole
        return f"{key!r}: {reason}." if key else f"{reason}."
    return f"{key!r}: {reason} (found {first['input']!r})."


def _unknown(location: tuple[int | str, ...], model: type[Closed]) -> str:
    key = ".".join(map(str, location))
    keys = _keys_at(location[:-1], model)
    if not keys:
        return f"unknown key {key!r}; there are no options here."
    right = ".".join(map(str, [*location[:-1], nearest(str(location[-1]), keys)]))
    return f"unknown key {key!r}; the nearest valid key is {right!r}."


def _keys_at(location: tuple[int | str, ...], model: type[BaseModel]) -> list[str]:
    """Valid keys of the section of `model` that a location leads to."""
    for part in location:
        annotation = model.model_fields[str(part)].annotation
        sections = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
        sections = [kind for kind in sections if issubclass(kind, BaseModel)]
        if not sections:
            return []
        model = sections[0]
    return list(model.model_fields)
