"""A DINOv2-small-derived encoder from an ONNX file to a folder for ``AutoModel`` and ``AutoImageProcessor``.

The ONNX file is a saliency model: the encoder's tensors stand under ``backbone.``, named as on the model hub, and a
decoder's under ``decoder.``, which is left out. Weights of linear layers lost their names in the export and were
transposed; the name of the product that uses one says which layer it is. The position embeddings became constants,
the class token's and the patches' apart.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from unimed_model.errors import UserError

from .extras import extra
from .model_folders import open_strictly, write_tensors

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from transformers import Dinov2Config

HEADS = 6
PARAMETERS = 22_056_576
IMAGE_SIDE = 224
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
TOLERANCE = 1e-3
KNOWN = {
    (0, 0): -1.836222,
    (0, 100): -1.218298,
    (0, 200): -0.217983,
    (0, 383): 2.024495,
    (1, 0): -0.621146,
    (1, 100): 0.344738,
    (1, 200): -0.774837,
    (1, 383): 1.934096,
    (100, 0): -0.500183,
    (100, 100): -0.103121,
    (100, 200): -0.104463,
    (100, 383): 3.312773,
    (256, 0): -1.006307,
    (256, 100): -1.053787,
    (256, 200): -0.011284,
    (256, 383): 1.204579,
}
"""(token, channel) -> last hidden state on `known_image`, computed from the ONNX file by onnxruntime 1.32.0."""

_POSITIONS = ("onnx::Concat_1957", "onnx::Reshape_1962")
Arrays = dict[str, "np.ndarray"]


def write_dinov2(source: Path, folder: Path, quiet: bool) -> None:
    """Convert the package's ONNX file and require the encoder's known outputs.

    Raises:
        UserError: as `convert_dinov2_onnx`; or the folder's outputs are not the known ones.
    """
    convert_dinov2_onnx(source, folder, heads=HEADS)
    require_known_outputs(folder)


def convert_dinov2_onnx(source: Path, folder: Path, *, heads: int, side: int = IMAGE_SIDE) -> None:
    """Write configuration, float32 weights and image processor of the encoder inside an exported saliency model.

    The weights are written under the names of the model hub, which every version of transformers reads. Images are
    resized to a square without a crop, whatever their aspect, so that boxes keep their meaning, and normalised with
    ImageNet's mean and standard deviation, as DINOv2 was trained.

    Args:
        source: ONNX file.
        folder: empty folder.
        heads: attention heads, which no tensor tells.
        side: pixels of a side that images are resized to.

    Raises:
        UserError: onnx is not installed; a tensor is unknown, missing or of another shape.
    """
    import numpy as np
    import torch
    from transformers import ViTImageProcessorPil

    arrays = _encoder_arrays(source)
    config = _config(arrays, heads)
    # No tensor of the file: it stands for masked patches in pre-training, and zeros is what it is initialised with.
    arrays["embeddings.mask_token"] = np.zeros((1, config.hidden_size), dtype=np.float32)
    config.save_pretrained(folder)
    write_tensors(folder, {name: torch.from_numpy(np.array(array, order="C")) for name, array in arrays.items()})
    ViTImageProcessorPil(
        size={"height": side, "width": side}, resample=3, image_mean=IMAGENET_MEAN, image_std=IMAGENET_STD
    ).save_pretrained(folder)


def require_known_outputs(folder: Path) -> None:
    """Open the folder strictly and compare the last hidden state on a fixed image with onnxruntime's.

    Raises:
        UserError: a tensor does not fit, or a value differs by more than `TOLERANCE`.
    """
    import torch
    from transformers import AutoModel

    model = open_strictly(AutoModel, folder, PARAMETERS)
    with torch.no_grad():
        hidden = model(pixel_values=known_image()).last_hidden_state[0]
    for (token, channel), expected in KNOWN.items():
        found = float(hidden[token, channel])
        if not abs(found - expected) <= TOLERANCE:
            raise UserError(
                f"{folder.name} does not compute what it should: {found:.4f} at token {token}, channel {channel}, not "
                f"{expected:.4f}; the installed versions of torch and transformers may not fit each other."
            )


def known_image() -> Tensor:
    """Return the image that outputs are known for, already normalised: waves, (1, 3, 224, 224)."""
    import torch

    rows, columns = torch.meshgrid(*[torch.arange(IMAGE_SIDE, dtype=torch.float64)] * 2, indexing="ij")
    waves = [torch.sin(0.05 * (c + 1) * rows) * torch.cos(0.03 * columns) + 0.2 * c for c in range(3)]
    return torch.stack(waves)[None].float()


def _encoder_arrays(source: Path) -> Arrays:
    """Return the encoder's tensors by their names on the model hub; (out, in) for linear weights."""
    import numpy as np

    graph = extra("onnx", "Reading an ONNX file").load(source).graph
    to_array = extra("onnx.numpy_helper", "Reading an ONNX file").to_array
    layers = {node.input[1]: node.name for node in graph.node if node.op_type == "MatMul"}
    arrays, positions = {}, {}
    for tensor in graph.initializer:
        area, _, name = tensor.name.partition(".")
        if area == "decoder":
            continue
        if area == "backbone":
            arrays[name] = to_array(tensor)
        elif tensor.name in _POSITIONS:
            positions[tensor.name] = to_array(tensor)
        elif layers.get(tensor.name, "").startswith("/backbone/"):
            module = layers[tensor.name].removeprefix("/backbone/").removesuffix("/MatMul").replace("/", ".")
            arrays[f"{module}.weight"] = to_array(tensor).T
        else:
            raise UserError(f"{source.name} holds a tensor {tensor.name}, which has no place in a DINOv2 encoder.")
    if set(positions) != set(_POSITIONS):
        raise UserError(f"{source.name} holds no position embeddings ({' and '.join(_POSITIONS)}).")
    arrays["embeddings.position_embeddings"] = np.concatenate([positions[name] for name in _POSITIONS], axis=1)
    return arrays


def _config(arrays: Arrays, heads: int) -> Dinov2Config:
    import torch
    from transformers import Dinov2Config

    try:
        width, _, patch, _ = arrays["embeddings.patch_embeddings.projection.weight"].shape
        feedforward = arrays["encoder.layer.0.mlp.fc1.weight"].shape[0]
    except KeyError as error:
        raise UserError(f"The ONNX file holds no tensor backbone.{error.args[0]}.") from error
    return Dinov2Config(
        hidden_size=width,
        num_hidden_layers=len({name.split(".")[2] for name in arrays if name.startswith("encoder.layer.")}),
        num_attention_heads=heads,
        mlp_ratio=feedforward // width,
        patch_size=patch,
        image_size=patch * math.isqrt(arrays["embeddings.position_embeddings"].shape[1] - 1),
        layer_norm_eps=1e-6,
        dtype=torch.float32,
        architectures=["Dinov2Model"],
    )
