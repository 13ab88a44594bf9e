"""What a user's setup function may return, and that it is that."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from tugofwar.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

RETURNS = "return (model, datasets), (model, datasets, loss), or a mapping with the keys"


@dataclass(frozen=True, eq=False)
class Study:
    """What a setup function returned, checked.

    Attributes:
        model: the model to probe.
        datasets: name to an iterable of batches, each batch of that dataset only.
        loss: ``loss(model, batch)``, a scalar; None for ``model(**batch).loss``.
        tasks: task of each dataset; empty when the user groups none.
        preconditioner: what ``record`` takes under this name; None for the plain gradient.
        metadata: the function's name and the SHA-256 of its file, for the manifest.
    """

    model: nn.Module
    datasets: Mapping[str, Iterable[Any]]
    loss: Callable[[nn.Module, Any], Tensor] | None = None
    tasks: Mapping[str, str] = field(default_factory=dict)
    preconditioner: Any = None
    metadata: Mapping[str, str] = field(default_factory=dict)


KEYS = ("model", "datasets", "loss", "tasks", "preconditioner")


def check_study(returned: Any, where: str, metadata: Mapping[str, str]) -> Study:
    """What a setup function returned as a ``Study``.

    Args:
        returned: ``(model, datasets)``, ``(model, datasets, loss)``, or a mapping with some of ``KEYS``.
        where: the function, for error messages.
        metadata: for the manifest.

    Raises:
        UserError: anything else; an unknown key names the nearest.
    """
    parts = _parts(returned, where)
    from torch import nn

    if not isinstance(parts["model"], nn.Module):
        raise UserError(f"The model that {where} returned is no torch.nn.Module but a {_kind(parts['model'])}.")
    _check_datasets(parts["datasets"], where)
    if parts.get("loss") is not None and not callable(parts["loss"]):
        raise UserError(
            f"The loss that {where} returned is no function of (model, batch) but a {_kind(parts['loss'])}."
        )
    tasks = parts.get("tasks") or {}
    _check_tasks(tasks, parts["datasets"], where)
    return Study(**{**parts, "tasks": tasks}, metadata=metadata)


def _parts(returned: Any, where: str) -> dict[str, Any]:
    if isinstance(returned, tuple | list) and len(returned) in (2, 3):
        return dict(zip(KEYS, returned, strict=False))
    if not isinstance(returned, Mapping):
        size = f" of {len(returned)} items" if isinstance(returned, tuple | list) else ""
        raise UserError(f"{where} returned a {_kind(returned)}{size}; {RETURNS}: {', '.join(KEYS)}.")
    for key in returned:
        if key not in KEYS:
            raise UserError(f"{where} returned a mapping with the unknown key {key!r}; {_known_key(str(key))}.")
    for key in ("model", "datasets"):
        if key not in returned:
            raise UserError(f"{where} returned a mapping without the key {key!r}.")
    return dict(returned)


def _known_key(key: str) -> str:
    close = get_close_matches(key, KEYS, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}" if close else f"the keys are {', '.join(KEYS)}"


def _check_datasets(datasets: Any, where: str) -> None:
    from torch import Tensor

    if not isinstance(datasets, Mapping) or not datasets:
        what = "an empty mapping" if isinstance(datasets, Mapping) else f"a {_kind(datasets)}"
        raise UserError(f"The datasets that {where} returned must map names to iterables of batches, not be {what}.")
    for name, source in datasets.items():
        if not isinstance(name, str) or not name:
            raise UserError(f"A dataset that {where} returned has the name {name!r}; names are text.")
        if isinstance(source, Mapping | str | bytes | Tensor) or not isinstance(source, Iterable):
            raise UserError(
                f"Dataset {name!r} that {where} returned is a {_kind(source)}, not an iterable of batches; put "
                "batches into a list or a DataLoader."
            )


def _check_tasks(tasks: Any, datasets: Mapping[str, Any], where: str) -> None:
    if not isinstance(tasks, Mapping):
        raise UserError(f"The tasks that {where} returned must map dataset names to tasks, not be a {_kind(tasks)}.")
    if not tasks:
        return
    for name in tasks:
        if name not in datasets:
            raise UserError(f"The tasks that {where} returned name {name!r}, but the datasets are {_listed(datasets)}.")
    for name in datasets:
        if not isinstance(tasks.get(name), str):
            raise UserError(f"The tasks that {where} returned do not say, as text, which task dataset {name!r} is.")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(str, names))


def _kind(value: Any) -> str:
    return type(value).__name__
