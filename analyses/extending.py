"""Whether a recording can be extended: its factors were kept, and nothing that its numbers depend on has changed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tugofwar.errors import UserError
from tugofwar.launch import world_size
from tugofwar.recording import Recording
from tugofwar.study import Study

# What differs between a recording and its extension.
_FREE = ("batches", "command")


def earlier_recording(out: Path) -> Recording:
    """The recording in ``out``, to be extended.

    Raises:
        UserError: none there, one without factors, or one that the command did not make.
    """
    from tugofwar.engine.archive import read_fingerprint

    recording = Recording.load(out)
    if read_fingerprint(out / "factors") is None:
        raise UserError(
            f"{out} holds no factors to add to; record it once more with --keep-factors, then --extend adds batches."
        )
    if not isinstance(recording.metadata.get("batches"), int):
        raise UserError(f"{out} was not written by `tugofwar gradients`, so that it cannot be extended.")
    return recording


def check_extendable(out: Path, earlier: Recording, study: Study, metadata: Mapping[str, Any]) -> None:
    """Raise a UserError that names what is not as it was when ``earlier`` was recorded.

    Args:
        out: folder of the recording.
        earlier: the recording.
        study: the model and its batches, now.
        metadata: settings and digests, now.
    """
    from tugofwar.engine.archive import read_fingerprint
    from tugofwar.engine.fingerprint import loss_digest, model_digest
    from tugofwar.probing import default_loss

    before = {key: value for key, value in earlier.metadata.items() if key not in _FREE}
    before["sketch"] = before.get("sketch", {}).get("dimension")
    for key in sorted(before.keys() | metadata.keys() - set(_FREE)):
        if before.get(key) != metadata.get(key):
            raise UserError(
                f"{out} cannot be extended: {key} was {_said(before.get(key))} and is {_said(metadata.get(key))} now; "
                "extend with the settings, files and versions that it was recorded with, or record anew."
            )
    recorded = [*earlier.rows, *earlier.untouched]
    if set(recorded) != set(study.datasets):
        raise UserError(
            f"{out} cannot be extended: its datasets are {', '.join(recorded)}, not {', '.join(study.datasets)}; give "
            "the same ones."
        )
    fingerprint = read_fingerprint(out / "factors") or {}
    digests = {"model": model_digest(study.model), "loss": loss_digest(study.loss or default_loss)}
    for what, digest in digests.items():
        if fingerprint.get(what) != digest:
            raise UserError(f"{out} cannot be extended: the {what} has changed since; record anew.")
    processes = int(fingerprint["settings"][-1])
    if processes != world_size():
        raise UserError(
            f"{out} cannot be extended: it was recorded by {processes} process{'es' if processes > 1 else ''}, not "
            f"{world_size()}; launch as many."
        )


def _said(value: Any) -> str:
    return "not given" if value is None else repr(value)
