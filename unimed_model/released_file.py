"""The file that the authors' released code writes (``checkpoint_{epoch}.pth``), opened without running anything in it.

It is a dictionary: ``model`` holds the trained parameters and all buffers, ``config`` the settings in plain values;
``optimizer``, ``scaler`` and ``epoch`` stand beside them. It is mapped into memory, so that the optimizer's state,
three quarters of the file, is never read.
"""

import math
import shlex
import struct
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from .errors import UserError

# what the reading of a damaged pickle can end in
_UNPICKLING = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    UnpicklingError,
    ValueError,
    struct.error,
)
_ZIP = b"PK\x03\x04"


class ReleasedFile:
    """The tensors of a checkpoint by key, and which of them were used.

    Attributes:
        path: the file.
        tensors: key -> tensor, without the prefix ``module.`` that distributed training may have added to all.
        used: keys that were taken.
        model_config: the entry ``model`` of the config entry; empty where there is none.
        epoch: None where the file does not tell.
    """

    def __init__(self, path: Path, tensors: Mapping[str, Tensor], model_config: Mapping[str, Any], epoch: int | None):
        self.path, self.model_config, self.epoch = path, model_config, epoch
        self._wrapped = "module." if all(key.startswith("module.") for key in tensors) else ""
        self.tensors = {key.removeprefix(self._wrapped): tensor for key, tensor in tensors.items()}
        self.used: set[str] = set()

    def name(self, key: str) -> str:
        """Return a key as it stands in the file."""
        return self._wrapped + key

    def get(self, key: str) -> Tensor:
        """Return a tensor.

        Raises:
            UserError: it is not there.
        """
        if key not in self.tensors:
            raise UserError(f"{self.path} holds no {self.name(key)}; the conversion would leave a part untrained.")
        return self.tensors[key]

    def matrix_shape(self, key: str) -> tuple[int, int]:
        """Return the rows and columns of a linear layer's weight.

        Raises:
            UserError: it is not there, or no matrix.
        """
        shape = self.get(key).shape
        if len(shape) != 2 or 0 in shape:
            raise UserError(f"{self.path}: {self.name(key)} has the shape {tuple(shape)}, which is no weight's.")
        return shape[0], shape[1]

    def take(self, key: str, shape: Iterable[int]) -> Tensor:
        """Return a tensor that is used.

        Raises:
            UserError: it is not there, has another shape, or a value that is no finite number.
        """
        tensor, wanted = self.get(key), tuple(shape)
        if tuple(tensor.shape) != wanted:
            raise UserError(
                f"{self.path}: {self.name(key)} has the shape {tuple(tensor.shape)}, where {wanted} is needed."
            )
        # the smallest and the largest are NaN if any is; unlike isfinite() they need no memory
        if not tensor.is_floating_point() or not all(math.isfinite(value) for value in map(float, tensor.aminmax())):
            raise UserError(f"{self.path}: {self.name(key)} holds values that are no finite numbers (NaN or infinite).")
        self.used.add(key)
        return tensor


def open_released(path: Path) -> ReleasedFile:
    """Open a checkpoint; nothing but tensors and plain values is unpickled.

    Raises:
        UserError: the file is missing, truncated or damaged, holds objects of other classes, or is no such checkpoint.
    """
    if not path.is_file():
        raise UserError(f"There is no checkpoint {path}.")
    try:
        whole = zipfile.is_zipfile(path)
    except zipfile.BadZipFile as error:
        raise UserError(f"{path} is damaged; copy it again.") from error
    if not whole:
        with path.open("rb") as stream:
            begun = stream.read(len(_ZIP)) == _ZIP
        raise UserError(f"{path} is {'truncated; copy it again' if begun else 'no file that torch.save writes'}.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except _UNPICKLING as error:
        raise UserError(_why_not(path)) from error
    tensors = content.get("model") if isinstance(content, dict) else None
    if not isinstance(tensors, dict) or not tensors:
        raise UserError(f"{path} has no entry 'model' with tensors, so it is no checkpoint of the released code.")
    for key, value in tensors.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise UserError(
                f"{path}: the entry {key!r} of 'model' is no tensor, so it is no checkpoint of the released code."
            )
    config, epoch = content.get("config"), content.get("epoch")
    model_config = config.get("model") if isinstance(config, dict) else None
    return ReleasedFile(
        path,
        tensors,
        model_config if isinstance(model_config, dict) else {},
        epoch if isinstance(epoch, int) else None,
    )


def _why_not(path: Path) -> str:
    """Say why a file cannot be unpickled: it names classes of its own, or it is damaged."""
    try:
        classes = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except _UNPICKLING:
        classes = []
    if not classes:
        return f"{path} is damaged, or no file that torch.save writes."
    alone = path.with_name(f"{path.stem}_model.pth")
    loaded = f"torch.load({str(path)!r}, map_location='cpu', weights_only=False, mmap=True)"
    program = f"import torch; torch.save({{'model': {loaded}['model']}}, {str(alone)!r})"
    return (
        f"{path} holds objects of {', '.join(classes)}, and making them would run code; if you trust the file, save "
        "its 'model' alone with a Python that has these classes, and convert that file: "
        f"python -c {shlex.quote(program)}"
    )
