"""Presets: YAML files that ship with the package, arms of the paper's ablations, and ``a.b=c`` overrides of both."""

import copy
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from unimed_model.closed import nearest, validated
from unimed_model.errors import UserError
from unimed_model.settings import RunSettings

_ARMS = "arms.yaml"


def preset_names() -> list[str]:
    """Return the names of the presets that ship with the package."""
    entries = (entry.name for entry in files(__package__).iterdir())
    return sorted(Path(name).stem for name in entries if name.endswith(".yaml") and name != _ARMS)


def arms() -> dict[str, dict[str, Any]]:
    """Return the arms of the paper's Tables 2 and 5: name -> what they override, by section."""
    content: dict[str, dict[str, Any]] = yaml.safe_load(files(__package__).joinpath(_ARMS).read_text(encoding="utf-8"))
    return content


def resolve(preset: str, overrides: Iterable[str] = (), arm: str | None = None) -> RunSettings:
    """Return a preset with an arm's overrides and then ``a.b=c`` overrides applied.

    Args:
        preset: name of a shipped preset, or path of a YAML file.
        overrides: assignments whose right side is read as YAML.
        arm: name of an arm (see ``arms``).

    Raises:
        UserError: an unknown preset, arm or key (the nearest valid one is named), or a bad value.
    """
    values, where = _preset_values(preset)
    if arm is not None:
        known = arms()
        if arm not in known:
            raise UserError(f"There is no arm {arm!r}; the nearest is {nearest(arm, known)!r}.")
        values = _merged(values, known[arm])
    for override in overrides:
        _assign(values, override)
    return validated(RunSettings, values, where)


def _merged(values: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = copy.deepcopy(dict(values))
    for key, value in over.items():
        before = merged.get(key)
        merged[key] = _merged(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return merged


def _preset_values(preset: str) -> tuple[dict[str, Any], str]:
    if preset.endswith((".yaml", ".yml")):
        path = Path(preset)
        if not path.is_file():
            raise UserError(f"The preset file {preset} does not exist.")
        text, where = path.read_text(encoding="utf-8"), preset
    elif preset in preset_names():
        text, where = files(__package__).joinpath(f"{preset}.yaml").read_text(encoding="utf-8"), f"Preset {preset}"
    else:
        names = preset_names()
        raise UserError(
            f"There is no preset {preset!r}; the nearest is {nearest(preset, names)!r} (all: {', '.join(names)}; "
            "or the path of a .yaml file)."
        )
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{where} is not valid YAML ({' '.join(str(error).split())}).") from error
    if not isinstance(values, dict):
        raise UserError(f"{where} must hold sections such as vision, connector and training.")
    return values, where


def _assign(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise UserError(f"--set takes key=value, such as connector.kind=mlp, not {override!r}.")
    *sections, last = key.split(".")
    for section in sections:
        if values.get(section) is None:
            values[section] = {}
        values = values[section]
        if not isinstance(values, dict):
            raise UserError(f"--set {override}: {section!r} is a value, not a section.")
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"--set {override}: the value is not valid YAML.") from error
