"""A checkpoint that the authors' released code trained, to a folder that ``from_pretrained`` opens.

``released_file`` opens the file, ``released_settings`` reads off it what was trained, this module gives every tensor
its place in the model and names those that have none.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig

from .bases import Base, digest_of
from .building import image_processor_for, text_config_of, vision_config_of
from .checkpoint import WEIGHTS, trained_state
from .configuration import UniMedConfig
from .data.sample import IDENTIFIERS, IMAGE_TASKS
from .errors import UserError
from .folders import replacing
from .loading import transformers_in_silence
from .modeling import UniMedForConditionalGeneration
from .presets import resolve
from .processing import UniMedProcessor
from .released_file import ReleasedFile, open_released
from .released_settings import Facts, is_own_weight, read_settings
from .settings import RunSettings, VisionArchitecture

_TASK_TOKENS = "connector.task_tokens"
_OWN_SIZE = {"vision": "patch_size", "llm": "vocab_size"}
_LORA = re.compile(r"([^.]+)\.lora_[AB]\.")
_SHARD = re.compile(r"-of-(\d+)$")
_EXPERT_AGAIN = re.compile(r"llm_proj\.(\d+\.\d+\.\w+)")


@dataclass(frozen=True, slots=True)
class Conversion:
    """What became of a checkpoint.

    Attributes:
        folder: what was written.
        source: name of the file.
        epoch: as the file says; None where it does not.
        resampler: settings as read off the file.
        connector: settings as read off the file.
        llm: how the LLM was trained: whether its own weights were, and the adapter.
        bases: ``vision`` and ``llm``; folder and digest are empty where the files are not at hand. A digest is that of
            the files at hand: the checkpoint does not tell which ones it was trained on.
        tensors: how many keys of the file were used.
        parameters: how many parameters they hold.
        duplicates: keys that repeat others (``llm_proj.*`` the experts in ``moe_layers.*``): compared, then left out.
        unused: all other keys of the file that were not used.
        absent: parameters that the file lacks: LoRA on kinds of layers that were not adapted. They hold what a new
            LoRA holds, B zero, so that they change nothing. No other parameter may be absent.
        assumed: settings that neither the file nor an argument tells, such as ``router=soft``.
        without_processor: why no processor was saved; empty if one was.
    """

    folder: Path
    source: str
    epoch: int | None
    resampler: dict[str, Any]
    connector: dict[str, Any]
    llm: dict[str, Any]
    bases: dict[str, Base]
    tensors: int
    parameters: int
    duplicates: tuple[str, ...]
    unused: tuple[str, ...]
    absent: tuple[str, ...]
    assumed: tuple[str, ...]
    without_processor: str

    def to_dict(self) -> dict[str, Any]:
        """The same in plain values, as JSON has them."""
        return asdict(self) | {"folder": str(self.folder)}

    def text(self) -> str:
        """The same for people, every key that was not used or not found by name; no line break at the end."""
        epoch = "" if self.epoch is None else f", epoch {self.epoch}"
        rows = {
            "resampler": _said(self.resampler),
            "connector": _said(self.connector),
            "llm": _said(self.llm),
            "written": f"{self.parameters:,} parameters from {self.tensors} tensors",
            "processor": f"not saved: {self.without_processor}" if self.without_processor else "saved",
        }
        for part, base in self.bases.items():
            found = (
                f"{base.folder}, SHA-256 {base.digest[:12]}…" if base.digest else "not at hand, its digest is unknown"
            )
            rows[f"{part} base"] = f"{base.name}: {found}"
        if self.assumed:
            rows["assumed"] = f"{', '.join(self.assumed)}; the file does not tell"
        lines = [f"{self.folder}: converted from {self.source}{epoch}"]
        lines += [f"  {name:<11} {what}" for name, what in rows.items()]
        lines.append(f"duplicates, equal to the keys they repeat: {len(self.duplicates)}")
        for title, keys in (("keys not used", self.unused), ("parameters not found, new", self.absent)):
            lines += [f"{title}: {len(keys)}", *(f"  {key}" for key in keys)]
        return "\n".join(lines)


def _said(fields: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} ({_said(value)})" if isinstance(value, dict) else f"{name}={value}"
        for name, value in fields.items()
        if value is not None
    )


def convert(
    checkpoint: Path,
    out: Path,
    *,
    weights: Path | None = None,
    preset: str = "released",
    router: str | None = None,
    strategy: str | None = None,
    top_k: int | None = None,
    resampler: str | None = None,
    alpha: float | None = None,
    quiet: bool = False,
) -> Conversion:
    """Write the folder that ``UniMedForConditionalGeneration.from_pretrained(out, weights=…)`` opens.

    Nothing is fetched: the pretrained bases are looked for in ``weights`` and in the hub's cache. Where one is not at
    hand, its sizes are the preset's and its digest stays empty. The processor is saved if both are at hand.

    Args:
        checkpoint: ``checkpoint_{epoch}.pth``.
        out: folder to write; must not exist.
        weights: folder with the pretrained bases, as ``unimed-data weights`` writes it.
        preset: names the bases, how they are used, and the prompt's profile; a shipped preset or a YAML file's path.
        router: soft, sparse, hard or constant; soft where neither this nor the config entry tells.
        strategy: token, task or token_task; needed where shapes and config entry leave it open.
        top_k: experts that a sparse router keeps; 2 where neither this nor the config entry tells.
        resampler: projection, average or max; needed where shapes and config entry leave it open.
        alpha: LoRA's; 16 where neither this nor the config entry tells.
        quiet: no progress bar.

    Raises:
        UserError: ``out`` is there; the file is missing, truncated, or no such checkpoint; a tensor is missing, has
            another shape or a value that is no finite number, or belongs to a part that cannot be converted; an
            argument is unknown, needed and not given, or contradicts the file.
    """
    if out.exists():
        raise UserError(f"{out} is there already; remove it or choose another folder.")
    file = open_released(checkpoint)
    facts = Facts(
        file, {"router": router, "strategy": strategy, "top_k": top_k, "resampler": resampler, "alpha": alpha}
    )
    with transformers_in_silence():
        asked = resolve(preset)
        bases = {part: _base(part, asked, preset, weights) for part in ("vision", "llm")}
        settings = read_settings(file, facts, asked, int(bases["vision"].config.hidden_size))
        config = _config(file, settings, bases)
        tensors, absent = _trained(file, config, settings, quiet=quiet)
        duplicates, unused = _left_over(file, settings)
        processor = _processor(settings, config, bases)
        with replacing(out) as folder:
            _write(folder, config, tensors, processor)
    return Conversion(
        folder=out,
        source=checkpoint.name,
        epoch=file.epoch,
        resampler=settings.resampler.model_dump(exclude_unset=True),
        connector=settings.connector.model_dump(exclude_unset=True),
        llm=settings.llm.model_dump(include={"trainable", "adapter"}, exclude_unset=True),
        bases={part: base.record for part, base in bases.items()},
        tensors=len(file.used),
        parameters=sum(tensor.numel() for name, tensor in tensors.items() if name not in absent),
        duplicates=duplicates,
        unused=unused,
        absent=absent,
        assumed=tuple(facts.assumed),
        without_processor=processor if isinstance(processor, str) else "",
    )


@dataclass(frozen=True, slots=True)
class _Base:
    """A pretrained base: what is recorded of it, its configuration, and its folder if it is at hand."""

    record: Base
    config: PreTrainedConfig
    folder: Path | None


def _base(part: str, asked: RunSettings, preset: str, weights: Path | None) -> _Base:
    section = asked.vision if part == "vision" else asked.llm
    name = section.pretrained
    if name is None:
        raise UserError(f"Preset {preset} has no {part}.pretrained; choose one that is built on pretrained parts.")
    folder = _at_hand(name, weights)
    if folder is not None:
        try:
            config: Any = AutoConfig.from_pretrained(folder)
        except (OSError, ValueError) as error:
            raise UserError(f"{folder} holds no usable configuration: {' '.join(str(error).split())}") from error
        config = getattr(config, "vision_config", config) if part == "vision" else config
        if not hasattr(config, _OWN_SIZE[part]):
            raise UserError(f"{folder} holds a {config.model_type} model, which cannot be {part}.pretrained.")
        return _Base(Base(name, str(folder.resolve()), digest_of(folder)), config, folder)
    architecture = section.architecture
    if architecture is None:
        raise UserError(f"{name} is not at hand, and preset {preset} gives no {part}.architecture.")
    if isinstance(architecture, VisionArchitecture):
        config = vision_config_of(architecture)
    else:
        config = text_config_of(architecture, asked.tokenizer.vocabulary)
    return _Base(Base(name, "", ""), config, None)


def _at_hand(name: str, weights: Path | None) -> Path | None:
    """Return the folder of a base that is on this machine, whole; None: there is none."""
    if weights is not None and not weights.is_dir():
        raise UserError(f"There is no folder {weights}; unimed-data weights writes one.")
    candidates = [Path(name), *([weights / Path(name).name] if weights else [])]
    try:
        cached = try_to_load_from_cache(name, "config.json")
    except HFValidationError:  # a folder's path is no name on the hub
        cached = None
    if isinstance(cached, str):
        candidates.append(Path(cached).parent)
    return next((folder for folder in candidates if _is_whole(folder)), None)


def _is_whole(folder: Path) -> bool:
    files = [*folder.glob("*.safetensors"), *folder.glob("*.bin")]
    for file in files:
        part = _SHARD.search(file.stem)
        if part and len(list(folder.glob(f"*-of-{part[1]}{file.suffix}"))) < int(part[1]):
            return False
    return bool(files) and (folder / "config.json").is_file()


def _config(file: ReleasedFile, settings: RunSettings, bases: Mapping[str, _Base]) -> UniMedConfig:
    llm = bases["llm"]
    if settings.llm.trainable and llm.folder is None:
        raise UserError(
            f"{file.path} holds the LLM's own weights, trained; they need the configuration of {llm.record.name}: name "
            "the folder that holds it with --weights."
        )
    text: Any = llm.config
    try:
        return UniMedConfig(
            vision_config=bases["vision"].config,
            text_config=text,
            vision=settings.vision.model_dump(exclude={"pretrained", "architecture"}),
            resampler=settings.resampler.model_dump(),
            connector=settings.connector.model_dump(),
            llm=settings.llm.model_dump(exclude={"pretrained", "architecture"}),
            # what a tokenizer of this vocabulary gives the placeholder when it is added
            image_token_id=text.vocab_size,
            bases={part: base.record.to_dict() for part, base in bases.items()},
            holds_bases=False,
            architectures=[UniMedForConditionalGeneration.__name__],
        )
    except ValueError as error:  # sizes known only from the bases' own configurations
        raise UserError(f"{file.path} does not fit the pretrained bases: {error}") from error


def _trained(
    file: ReleasedFile, config: UniMedConfig, settings: RunSettings, *, quiet: bool
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return what was trained under the model's names, in the file's precision, and the names that the file lacks."""
    state = _untrained(file, config)
    adapted = {_adapted(key) for key in file.tensors}
    generator = torch.Generator().manual_seed(0)
    places = _places(settings)
    tensors: dict[str, Tensor] = {}
    absent = []
    for name, wanted in tqdm(state.items(), desc=file.path.name, unit="tensor", disable=quiet, leave=False):
        if name == _TASK_TOKENS:
            tensors[name] = _task_tokens(file, wanted.shape[1])
        elif _adapted(name) not in adapted:
            tensors[name] = _new_lora(name, wanted.shape, generator)
            absent.append(name)
        else:
            prefix = next(prefix for prefix in places if name.startswith(prefix))
            tensors[name] = file.take(places[prefix] + name.removeprefix(prefix), wanted.shape).contiguous()
    return tensors, tuple(absent)


def _untrained(file: ReleasedFile, config: UniMedConfig) -> dict[str, Tensor]:
    """Return what a checkpoint of this configuration holds, shapes without values."""
    try:
        with torch.device("meta"):
            return trained_state(UniMedForConditionalGeneration(config).state_dict(), config)
    except ValueError as error:
        reason = str(error).partition("\n")[0]  # transformers goes on to list all classes that it has
        raise UserError(f"{file.path} does not fit the pretrained bases: {reason}") from error


def _places(settings: RunSettings) -> dict[str, str]:
    """Return how names in the model begin -> how the keys of the same tensors in the file do; the first that fits."""
    return {
        "connector.experts.": "moe_layers.",
        "connector.router.layers.0.": "router.fc1.",
        "connector.router.layers.2.": "router.fc2.",
        "connector.layers.0." if settings.connector.kind == "linear" else "connector.layers.": "llm_proj.",
        "language_model.": "llm_model." if settings.llm.trainable else "llm_model.base_model.model.",
    }


def _adapted(name: str) -> str | None:
    """Return the kind of layer, such as ``q_proj``, that a LoRA's parameter belongs to; None for other parameters."""
    match = _LORA.search(name)
    return match[1] if match else None


def _task_tokens(file: ReleasedFile, width: int) -> Tensor:
    """Return the task tokens (tasks, width) in the order of ``IMAGE_TASKS``."""
    keys = (f"task_tokens.{IDENTIFIERS[task]}" for task in IMAGE_TASKS)
    return torch.cat([file.take(key, (1, 1, width)) for key in keys]).squeeze(1)


def _new_lora(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Return what a new LoRA holds: B zero, and A as torch starts a linear layer."""
    tensor = torch.zeros(shape)
    if "lora_A" in name:
        nn.init.kaiming_uniform_(tensor, a=math.sqrt(5), generator=generator)
    return tensor


def _left_over(file: ReleasedFile, settings: RunSettings) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the keys that repeat others and those not used, as they stand in the file."""
    duplicates, unused = [], []
    for key in file.tensors:
        if key in file.used:
            continue
        repeated = _EXPERT_AGAIN.sub(r"moe_layers.\1", key)
        if repeated in file.used:
            _require_equal(file, key, repeated)
            duplicates.append(file.name(key))
            continue
        if key.startswith(("visual_encoder.", "ln_vision.")):
            raise UserError(
                f"{file.path} holds {file.name(key)}, so its vision encoder was trained (freeze_vit: False), norm "
                "included; such an encoder cannot be converted."
            )
        if ".lora_" in key or (settings.llm.trainable and is_own_weight(key)):
            raise UserError(f"{file.path}: {file.name(key)} was trained, and the LLM has no place for it.")
        unused.append(file.name(key))
    return tuple(duplicates), tuple(unused)


def _require_equal(file: ReleasedFile, key: str, other: str) -> None:
    first, second = file.tensors[key], file.tensors[other]
    if first.dtype != second.dtype or not torch.equal(first, second):
        raise UserError(
            f"{file.path}: {file.name(key)} and {file.name(other)} are one tensor in the released code but differ here."
        )


def _processor(settings: RunSettings, config: UniMedConfig, bases: Mapping[str, _Base]) -> UniMedProcessor | str:
    """Return the processor, or why there is none."""
    vision, llm = bases["vision"], bases["llm"]
    if vision.folder is None or llm.folder is None:
        names = " and ".join(base.record.name for base in (vision, llm) if base.folder is None)
        return f"{names} not at hand; with them, convert again"
    text: Any = config.text_config
    try:
        return UniMedProcessor(
            image_processor_for(settings.vision.image_size, vision.folder),
            AutoTokenizer.from_pretrained(llm.folder),
            image_tokens=config.image_tokens,
            profile=settings.prompt.profile,
            identifiers=settings.prompt.identifiers,
            context=text.max_position_embeddings,
        )
    except (OSError, ValueError, UserError) as error:
        return " ".join(str(error).split())


def _write(folder: Path, config: UniMedConfig, tensors: dict[str, Tensor], processor: UniMedProcessor | str) -> None:
    if not isinstance(processor, str):
        config.image_token_id = processor.image_token_id
        processor.save_pretrained(folder)
    config.save_pretrained(folder)
    save_file(_apart(tensors), folder / WEIGHTS, metadata={"format": "pt"})


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors each in memory of its own, as safetensors wants: tied weights are one in the file."""
    apart, taken = {}, set()
    for name, tensor in tensors.items():
        memory = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if memory in taken else tensor
        taken.add(memory)
    return apart
