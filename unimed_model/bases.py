"""Pretrained bases by name: where their files are, and which ones they were."""

import hashlib
import os
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

from .errors import UserError

_WEIGHT_FILES = ("*.safetensors", "*.bin")


@dataclass(frozen=True)
class Base:
    """A pretrained part of a model.

    Attributes:
        name: hub name or folder, as the settings say it.
        folder: where its files were found.
        digest: SHA-256 of its weight files; empty where it is not known.
    """

    name: str
    folder: str
    digest: str

    def to_dict(self) -> dict[str, str]:
        """The same as a dictionary."""
        return asdict(self)


def find_base(name: str, weights: Path | None = None, recorded: str | None = None) -> Path:
    """Return the folder that holds the files of a pretrained part.

    Looked for, in this order: ``name`` as a folder, its last part in ``weights``, the folder ``recorded`` when the
    model was trained, and the hub's cache or the hub. Commands of other packages, which know no weights, name the
    folder by the environment variable UNIMED_WEIGHTS.

    Args:
        name: hub name or folder.
        weights: folder that ``unimed-data weights`` wrote; None: what UNIMED_WEIGHTS names, if anything.
        recorded: folder that a trained model's configuration names.

    Raises:
        UserError: it is nowhere.
    """
    if weights is None and os.environ.get("UNIMED_WEIGHTS"):
        weights = Path(os.environ["UNIMED_WEIGHTS"])
    candidates = [
        Path(name),
        *([weights / Path(name).name] if weights else []),
        *([Path(recorded)] if recorded else []),
    ]
    for folder in candidates:
        if (folder / "config.json").is_file():
            return folder
    if weights is not None and not weights.is_dir():
        raise UserError(f"There is no folder {weights}; unimed-data weights writes one.")
    return _from_hub(name, candidates)


def _from_hub(name: str, candidates: list[Path]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

    patterns = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except (HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError, OSError) as error:
        looked = ", ".join(str(folder) for folder in candidates)
        raise UserError(
            f"The weights {name!r} are neither in {looked} nor to be had from the hub; unimed-data weights says where "
            "they come from, --weights or UNIMED_WEIGHTS names the folder that holds them."
        ) from error


def digest_of(folder: Path) -> str:
    """Return the SHA-256 over the weight files of a folder, in the order of their names.

    Raises:
        UserError: there are none.
    """
    files = sorted(path for pattern in _WEIGHT_FILES for path in folder.glob(pattern))
    if not files:
        raise UserError(f"{folder} holds no weights (.safetensors or .bin).")
    whole = hashlib.sha256()
    for path in files:
        with path.open("rb") as stream:
            whole.update(path.name.encode() + hashlib.file_digest(stream, "sha256").digest())
    return whole.hexdigest()


def same_base(recorded: Base, weights: Path | None = None) -> Path:
    """Return the folder of the base that a model was trained on.

    Warns:
        UserWarning: which weights it was is not recorded.

    Raises:
        UserError: it is nowhere, or its weights are others.
    """
    folder = find_base(recorded.name, weights, recorded.folder)
    if not recorded.digest:
        # a converted checkpoint does not tell which weights it was trained on
        warnings.warn(
            f"Which weights of {recorded.name} the model was trained on is unknown; {folder} is taken.", stacklevel=2
        )
        return folder
    found = digest_of(folder)
    if found != recorded.digest:
        raise UserError(
            f"The weights of {recorded.name} in {folder} (SHA-256 {found[:12]}…) are not those that the model was "
            f"trained on ({recorded.digest[:12]}…)."
        )
    return folder
