"""What a checkpoint of the released code was trained with, read off its tensors.

Sizes are in the shapes. What these leave open is an argument's, else the config entry's if the file has one, else an
assumption that is reported; an argument or entry that contradicts the file is an error.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from .closed import validated
from .data.sample import IDENTIFIERS, IMAGE_TASKS
from .errors import UserError
from .released_file import ReleasedFile
from .settings import RunSettings

_POOLED = 4
"""Patches that the released code pools into one, whatever its ``resample_rate``."""

_DROPOUT = 0.05
"""LoRA's in the released code, where no setting reaches it."""

_DECLARED = {
    "router": ("router_type", "soft"),
    "strategy": ("router_method", "router_task_token"),
    "top_k": ("sparse_topk", 2),
    "resampler": ("resample_method", "projection"),
    "training": ("sft_type", "lora"),
    "alpha": ("lora_alpha", 16),
    "image_size": ("image_size", None),
}
"""What is asked -> its key in the config entry, and what the released code takes where the key is not there."""

_OURS = {
    "router_task_token": "token_task",
    "router_token": "token",
    "router_task": "task",
    "avgpool": "average",
    "maxpool": "max",
}


class Facts:
    """What the tensors do not tell.

    Args:
        file: the checkpoint.
        arguments: name -> what the caller says; None: nothing.

    Attributes:
        assumed: what neither argument nor file tells, such as ``router=soft``.

    Raises:
        UserError: a config entry that the released code could not have used.
    """

    def __init__(self, file: ReleasedFile, arguments: Mapping[str, Any]) -> None:
        self._path, self._arguments = file.path, arguments
        self._declared = (
            {name: _declared(file, *where) for name, where in _DECLARED.items()} if file.model_config else {}
        )
        self._asked: set[str] = set()
        self.assumed: list[str] = []

    def known(self, name: str) -> Any:
        """Return what the argument or the config entry says; None if neither does.

        Raises:
            UserError: they contradict each other.
        """
        self._asked.add(name)
        declared, given = self._declared.get(name), self._arguments.get(name)
        if declared is not None and given is not None and declared != given:
            raise UserError(f"{self._path} was trained with {name} {declared}, as its config entry says, not {given}.")
        return given if declared is None else declared

    def known_or(self, name: str, default: Any) -> Any:
        """Return the same, or a default that is then among ``assumed``."""
        value = self.known(name)
        if value is None:
            self.assumed.append(f"{name}={default}")
            return default
        return value

    def require_all_asked(self) -> None:
        """Raise a UserError for an argument that made no difference, such as ``top_k`` of a soft router."""
        for name, given in self._arguments.items():
            if given is not None and name not in self._asked:
                raise UserError(f"{self._path} holds a model without {name}, so {given} has no meaning there.")


def _declared(file: ReleasedFile, key: str, default: Any) -> Any:
    value = file.model_config.get(key, default)
    if not isinstance(value, str | int | float | None):
        raise UserError(
            f"{file.path}: model.{key} of its config entry is {value!r}, which is no setting of the released code."
        )
    return _OURS.get(value, value) if isinstance(value, str) else value


def read_settings(file: ReleasedFile, facts: Facts, asked: RunSettings, encoder_width: int) -> RunSettings:
    """Return the settings asked for, with all that the checkpoint tells in their stead.

    Args:
        file: the checkpoint.
        facts: what its tensors do not tell.
        asked: a preset's settings.
        encoder_width: hidden size of the vision encoder.

    Raises:
        UserError: the tensors are not those of a Uni-Med model, leave open what nothing else tells, or contradict it.
    """
    connector, reads_tokens = _connector(file, facts)
    values = asked.model_dump()
    values["vision"] |= {"trainable": False, "image_size": facts.known("image_size") or asked.vision.image_size}
    values["resampler"] = _resampler(file, facts, reads_tokens, encoder_width)
    values["connector"] = connector
    values["llm"] |= _training(file, facts)
    facts.require_all_asked()
    return validated(RunSettings, values, str(file.path))


def _connector(file: ReleasedFile, facts: Facts) -> tuple[dict[str, Any], str]:
    """Return the connector's settings, and the key of a weight that reads visual tokens."""
    experts = _indices(r"moe_layers\.(\d+)\.(\d+)\.weight", file.tensors)
    layers = {found[-1] for found in experts or _indices(r"llm_proj\.(\d+)\.weight", file.tensors)}
    if not layers:
        if "llm_proj.weight" not in file.tensors:
            raise UserError(f"{file.path} holds neither experts (moe_layers) nor a projection (llm_proj) of Uni-Med.")
        return {"kind": "linear"}, "llm_proj.weight"
    one = "moe_layers.0" if experts else "llm_proj"
    hidden, width = file.matrix_shape(f"{one}.0.weight")
    width_out, _ = file.matrix_shape(f"{one}.{2 * len(layers) - 2}.weight")
    values = {"kind": "mlp", "layers": len(layers), "hidden": None if hidden == width_out else hidden}
    if experts:
        number = len({found[0] for found in experts})
        values |= {"kind": "cmoe", "num_experts": number, **_router(file, facts, width)}
    return values, f"{one}.0.weight"


def _indices(pattern: str, keys: Iterable[str]) -> set[tuple[str, ...]]:
    return {match.groups() for match in map(re.compile(pattern).fullmatch, keys) if match}


def _router(file: ReleasedFile, facts: Facts, width: int) -> dict[str, Any]:
    kind = facts.known_or("router", "soft")
    if kind not in ("soft", "sparse"):
        return {"router": kind}
    hidden, _ = file.matrix_shape("router.fc1.weight")
    values = {"router": kind, "strategy": _strategy(file, facts, width), "router_hidden": hidden}
    if kind == "soft":
        return values | {"normalisation": "sigmoid"}
    return values | {"normalisation": "softmax", "top_k": facts.known_or("top_k", 2), "masking": "infinity"}


def _strategy(file: ReleasedFile, facts: Facts, width: int) -> str:
    """Return what the router reads. Its columns tell, but tokens and task tokens of one width are not told apart."""
    _, reads = file.matrix_shape("router.fc1.weight")
    widths = {"token": width}
    task_token = file.tensors.get(f"task_tokens.{IDENTIFIERS[IMAGE_TASKS[0]]}")
    if task_token is not None and task_token.ndim:
        widths |= {"task": task_token.shape[-1], "token_task": width + task_token.shape[-1]}
    fits = [strategy for strategy, wanted in widths.items() if wanted == reads]
    known = facts.known("strategy")
    where = f"{file.path}: {file.name('router.fc1.weight')} has {reads} columns"
    if not fits or known not in (None, *fits):
        needed = ", ".join(f"{wanted} for {strategy}" for strategy, wanted in widths.items())
        raise UserError(f"{where}, which does not fit {_any(known, 'any strategy')} ({needed}).")
    if known is None and len(fits) > 1:
        raise UserError(
            f"{where}, for visual tokens or for task tokens; say which with --strategy {' or '.join(fits)}."
        )
    return str(known or fits[0])


def _resampler(file: ReleasedFile, facts: Facts, reads_tokens: str, encoder_width: int) -> dict[str, Any]:
    _, width = file.matrix_shape(reads_tokens)
    kind = facts.known("resampler")
    where = f"{file.path}: {file.name(reads_tokens)} has {width} columns"
    if width % encoder_width or (width > encoder_width and kind not in (None, "projection")):
        raise UserError(
            f"{where}, which does not fit {_any(kind, 'any resampler')} behind an encoder of width {encoder_width}."
        )
    if kind is None and width == encoder_width:
        raise UserError(
            f"{where}, the encoder's width, for tokens that were pooled or left as they are; say which with "
            "--resampler average, max or projection."
        )
    if kind in (None, "projection"):
        return {"kind": "projection", "rate": width // encoder_width, "shape": "strip"}
    return {"kind": kind, "rate": _POOLED, "shape": "block"}


def _any(known: Any, otherwise: str) -> str:
    return otherwise if known is None else str(known)


def _training(file: ReleasedFile, facts: Facts) -> dict[str, Any]:
    """Return how the LLM was trained: by LoRA, by its own weights, or not at all."""
    adapters = [key for key in file.tensors if key.startswith("llm_model.") and ".lora_A." in key]
    own = not adapters and any(is_own_weight(key) for key in file.tensors)
    found, declared = "lora" if adapters else "full" if own else "none", facts.known("training")
    if declared not in (None, found):
        raise UserError(
            f"{file.path} was trained with sft_type {declared}, as its config entry says, but its tensors are those of "
            f"sft_type {found}."
        )
    if adapters:
        rank, _ = file.matrix_shape(adapters[0])
        alpha = facts.known_or("alpha", 16.0)
        return {"trainable": False, "adapter": {"kind": "lora", "rank": rank, "alpha": alpha, "dropout": _DROPOUT}}
    if own:
        # the file's float16 cannot be trained further; float32 holds the same values
        return {"trainable": True, "adapter": None, "precision": "float32", "quantisation": None}
    return {"trainable": False, "adapter": None}


def is_own_weight(key: str) -> bool:
    """Whether a key is one of the LLM's own weights, saved where they were trained; buffers are saved always."""
    return key.startswith("llm_model.") and ".lora_" not in key and not key.endswith(".inv_freq")
