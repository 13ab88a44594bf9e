"""Which checkpoints of a run are looked at, and what each is called."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tugofwar.errors import UserError

END = "final"
_RUN_FILE = "run.json"


@dataclass(frozen=True)
class Checkpoint:
    """A trained model of a run.

    Attributes:
        folder: where it is.
        name: what tables call it: ``final``, or its folder's name.
        label: what a picture calls it.
        step: steps of training behind it; None where its folder does not say.
    """

    folder: Path
    name: str
    label: str
    step: int | None


def chosen_checkpoints(folders: Sequence[Path]) -> list[Checkpoint]:
    """The checkpoints that were asked for; of one run its end, and before it the end of its warm-up if that was kept.

    Args:
        folders: run folders, or checkpoint folders in them.

    Raises:
        UserError: a folder that does not exist or is named twice.
    """
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"There is no checkpoint folder {folder}; name a folder that unimed-train wrote.")
    wanted = list(folders)
    if len(wanted) == 1:
        warm_up = wanted[0] / f"checkpoint-{_warmup_steps(wanted[0])}"
        wanted = [warm_up, *wanted] if warm_up.is_dir() else wanted
    if len({folder.resolve() for folder in wanted}) < len(wanted):
        raise UserError("One checkpoint is named twice; name each once.")
    found = [_checkpoint(folder) for folder in wanted]
    if len({each.name for each in found}) < len(found):
        found = [_with_run(each) for each in found]
    for name in (each.name for each in found):
        if [each.name for each in found].count(name) > 1:
            raise UserError(
                f"Two of the checkpoints would both be called {name}; rename a run folder, or look at one run at a "
                "time."
            )
    return found


def run_of(folders: Sequence[Path]) -> Path:
    """Where what is said of these folders belongs: in a single one itself, of several in the run of the last.

    Args:
        folders: run folders, or checkpoint folders in them, at least one.
    """
    last = folders[-1]
    inside = not (last / _RUN_FILE).is_file() and (last.resolve().parent / _RUN_FILE).is_file()
    return last.parent if len(folders) > 1 and inside else last


def _checkpoint(folder: Path) -> Checkpoint:
    run = _read(folder / _RUN_FILE)
    if run is not None:
        step = _setting(run, "steps")
        return Checkpoint(folder, END, "end" if step is None else f"end (step {step})", step)
    state = _read(folder / "trainer_state.json") or {}
    step = state.get("global_step") if isinstance(state.get("global_step"), int) else None
    name = folder.resolve().name
    if step is None:
        return Checkpoint(folder, name, name, None)
    when = "after warm-up" if step == _warmup_steps(folder.resolve().parent) else "during training"
    return Checkpoint(folder, name, f"{when} (step {step})", step)


def _with_run(checkpoint: Checkpoint) -> Checkpoint:
    """The same, told from checkpoints of other runs by its run's name."""
    folder = checkpoint.folder.resolve()
    run = folder.name if (folder / _RUN_FILE).is_file() else folder.parent.name
    return replace(checkpoint, name=f"{run}/{checkpoint.name}", label=f"{run}, {checkpoint.label}")


def _warmup_steps(run: Path) -> int | None:
    return _setting(_read(run / _RUN_FILE) or {}, "warmup_steps")


def _setting(run: dict[str, Any], key: str) -> int | None:
    value: Any = run
    for name in ("settings", "training", key):
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, int) else None


def _read(path: Path) -> dict[str, Any] | None:
    """A JSON object; None where there is none. What is damaged is said when the model is opened."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
