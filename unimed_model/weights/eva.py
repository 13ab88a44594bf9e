"""EVA-CLIP ViT-g/14 from the file that LAVIS serves (``eva_vit_g.pth``) to a folder for ``Blip2VisionModel``.

The encoder that BLIP-2, MiniGPT-4 and Uni-Med use is EVA without its last block, its norm and its head: 39 of 40
blocks. Attention has biases for queries and values only; the class has one bias for all three, with zeros for keys.
The file's encoder ends without a norm, and the class has one: it is left at weight 1 and bias 0, for its owner to
replace.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from unimed_model.errors import UserError
from unimed_model.folders import replacing

from .model_folders import write_tensors
from .provenance import seal, sha256

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import Blip2VisionConfig

State = dict[str, "Tensor"]

_OUTSIDE_BLOCKS = {
    "cls_token": "embeddings.class_embedding",
    "patch_embed.proj.weight": "embeddings.patch_embedding.weight",
    "patch_embed.proj.bias": "embeddings.patch_embedding.bias",
}
_IN_BLOCKS = {
    "norm1.weight": "layer_norm1.weight",
    "norm1.bias": "layer_norm1.bias",
    "attn.qkv.weight": "self_attn.qkv.weight",
    "attn.proj.weight": "self_attn.projection.weight",
    "attn.proj.bias": "self_attn.projection.bias",
    "norm2.weight": "layer_norm2.weight",
    "norm2.bias": "layer_norm2.bias",
    "mlp.fc1.weight": "mlp.fc1.weight",
    "mlp.fc1.bias": "mlp.fc1.bias",
    "mlp.fc2.weight": "mlp.fc2.weight",
    "mlp.fc2.bias": "mlp.fc2.bias",
}
NOTES = (
    "EVA-CLIP ViT-g/14 without its last block, as BLIP-2 uses it",
    "post_layernorm is not in the file: weight 1, bias 0",
)


@dataclass(frozen=True, slots=True)
class EvaReport:
    """What became of a checkpoint.

    ``unused`` names every key of the file that is not in the folder, in the file's order; ``grid`` is the side of the
    file's grid of position embeddings in patches, ``interpolated`` whether another one was needed.
    """

    folder: Path
    blocks: int
    parameters: int
    unused: tuple[str, ...]
    grid: int
    interpolated: bool


def convert_eva(
    checkpoint: Path,
    out: Path,
    *,
    blocks: int = 39,
    head_width: int = 88,
    image_size: int = 224,
    origin: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> EvaReport:
    """Write a folder that ``Blip2VisionModel.from_pretrained`` and ``AutoImageProcessor.from_pretrained`` open.

    Widths, patch size and hidden size are read off the tensors, which keep the file's precision. The pixels are
    normalised with OpenAI-CLIP's mean and standard deviation, images resized to a square (bicubic, aspect ignored).

    Args:
        checkpoint: a flat dictionary of tensors with EVA's keys, as ``torch.save`` writes it; nothing else in the
            file is ever unpickled.
        out: folder to write; must not exist.
        blocks: how many blocks are kept, from the first; the others are named as unused.
        head_width: channels of an attention head, which no tensor tells.
        image_size: pixels of a side; where its grid of patches is not the file's, position embeddings are
            interpolated (bicubic).
        origin: what the folder's provenance says of the source, beside its digest.
        quiet: no progress bar.

    Raises:
        UserError: ``out`` is there already; the file is missing, damaged, or holds anything but tensors; it lacks a
            key or has fewer blocks; a tensor's shape does not fit the others.
    """
    if out.exists():
        raise UserError(f"{out} is there already; remove it or choose another folder.")
    state = _read(checkpoint)
    config = _config(state, checkpoint, blocks, head_width, image_size)
    used, converted = _converted(state, checkpoint, config)
    _require_shapes(converted, checkpoint, config)
    unused = tuple(key for key in state if key not in used)
    with replacing(out) as folder:
        _write(folder, config, converted)
        record = dict(origin or {}) | {"file": checkpoint.name, "sha256": sha256(checkpoint)}
        seal(folder, record | {"notes": list(NOTES), "unused": list(unused)}, quiet=quiet)
    grid = _side(state["pos_embed"], checkpoint)
    parameters = sum(tensor.numel() for tensor in converted.values())
    return EvaReport(out, blocks, parameters, unused, grid, grid != image_size // config.patch_size)


def _read(checkpoint: Path) -> State:
    import torch

    if not checkpoint.is_file():
        raise UserError(f"There is no checkpoint {checkpoint}.")
    # Only the zip format that torch.save writes since 1.6 can be mapped into memory instead of read. Opening the file
    # here tells one that may not be read from one that is damaged, for which torch has an OSError too.
    with checkpoint.open("rb") as stream:
        mapped = zipfile.is_zipfile(stream)
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=mapped)
    except (RuntimeError, UnpicklingError, EOFError, ValueError, KeyError, OSError) as error:
        raise UserError(
            f"{checkpoint} is damaged, or holds more than tensors and was not unpickled; fetch it again."
        ) from error
    if not isinstance(state, dict) or not isinstance(state.get("cls_token"), torch.Tensor):
        keys = ", ".join(map(str, list(state)[:3])) if isinstance(state, dict) else type(state).__name__
        raise UserError(
            f"{checkpoint} holds no tensor cls_token, so it is not EVA's encoder as LAVIS serves it (it holds {keys})."
        )
    return state


def _config(state: State, checkpoint: Path, blocks: int, head_width: int, image_size: int) -> Blip2VisionConfig:
    from transformers import Blip2VisionConfig

    found = {int(match[1]) for match in map(re.compile(r"blocks\.(\d+)\.").match, state) if match}
    if not 1 <= blocks <= len(found):
        raise UserError(f"{checkpoint} has {len(found)} blocks, so {blocks} of them cannot be kept.")
    width = state["cls_token"].shape[-1]
    patch = _tensor(state, "patch_embed.proj.weight", checkpoint).shape[-1]
    if head_width < 1 or width % head_width:
        raise UserError(f"{checkpoint} is {width} channels wide, which are no whole heads of {head_width}.")
    if image_size < patch or image_size % patch:
        raise UserError(f"An image of {image_size} pixels holds no whole patches of {patch} pixels.")
    return Blip2VisionConfig(
        hidden_size=width,
        intermediate_size=_tensor(state, "blocks.0.mlp.fc1.weight", checkpoint).shape[0],
        num_hidden_layers=blocks,
        num_attention_heads=width // head_width,
        image_size=image_size,
        patch_size=patch,
        hidden_act="gelu",
        layer_norm_eps=1e-6,
        qkv_bias=True,
        dtype=state["patch_embed.proj.weight"].dtype,
        architectures=["Blip2VisionModel"],
    )


def _converted(state: State, checkpoint: Path, config: Blip2VisionConfig) -> tuple[set[str], State]:
    """Return the keys used, and the tensors under their new names."""
    import torch

    used: set[str] = set()

    def take(key: str) -> Tensor:
        used.add(key)
        return _tensor(state, key, checkpoint)

    new = {name: take(key) for key, name in _OUTSIDE_BLOCKS.items()}
    grid = config.image_size // config.patch_size
    new["embeddings.position_embedding"] = _positions(take("pos_embed"), grid, checkpoint)
    for i in range(config.num_hidden_layers):
        old, layer = f"blocks.{i}.", f"encoder.layers.{i}."
        new |= {layer + name: take(old + key) for key, name in _IN_BLOCKS.items()}
        queries, values = take(f"{old}attn.q_bias"), take(f"{old}attn.v_bias")
        new[f"{layer}self_attn.qkv.bias"] = torch.cat([queries, torch.zeros_like(queries), values])
    kind = new["embeddings.class_embedding"].dtype
    new["post_layernorm.weight"] = torch.ones(config.hidden_size, dtype=kind)
    new["post_layernorm.bias"] = torch.zeros(config.hidden_size, dtype=kind)
    return used, new


def _tensor(state: State, key: str, checkpoint: Path) -> Tensor:
    import torch

    if not isinstance(state.get(key), torch.Tensor):
        raise UserError(f"{checkpoint} holds no tensor {key}.")
    return state[key]


def _side(positions: Tensor, checkpoint: Path) -> int:
    """Return the side, in patches, of the square grid that (1, 1 + side², width) position embeddings are for."""
    side = round(max(positions.shape[1] - 1, 0) ** 0.5) if positions.ndim == 3 else 0
    if side == 0 or positions.shape[1] != side * side + 1:
        raise UserError(f"{checkpoint}: pos_embed of shape {tuple(positions.shape)} is no square grid and one class.")
    return side


def _positions(positions: Tensor, grid: int, checkpoint: Path) -> Tensor:
    """Return position embeddings for a grid of that side, in their own precision."""
    import torch
    from torch.nn.functional import interpolate

    side = _side(positions, checkpoint)
    if side == grid:
        return positions
    first, patches = positions[:, :1], positions[:, 1:]
    plane = patches.reshape(1, side, side, -1).permute(0, 3, 1, 2).float()  # (1, width, rows, columns)
    plane = interpolate(plane, size=(grid, grid), mode="bicubic", align_corners=False)
    return torch.cat([first, plane.permute(0, 2, 3, 1).flatten(1, 2).to(positions.dtype)], dim=1)


def _require_shapes(converted: State, checkpoint: Path, config: Blip2VisionConfig) -> None:
    """Compare with the class itself, built without memory: every tensor, none left over, each of its shape."""
    import torch
    from transformers import Blip2VisionModel

    with torch.device("meta"):
        expected = {name: tuple(tensor.shape) for name, tensor in Blip2VisionModel(config).state_dict().items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in converted.items()}
    for name in expected.keys() | shapes.keys():
        if expected.get(name) != shapes.get(name):
            raise UserError(
                f"{checkpoint}: {name} would have the shape {shapes.get(name)}, where {expected.get(name)} is needed."
            )


def _write(folder: Path, config: Blip2VisionConfig, tensors: State) -> None:
    from transformers import BlipImageProcessorPil

    config.save_pretrained(folder)
    write_tensors(folder, tensors)
    side = {"height": config.image_size, "width": config.image_size}
    BlipImageProcessorPil(size=side).save_pretrained(folder)
