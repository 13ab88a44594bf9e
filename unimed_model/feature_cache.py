"""What a frozen vision encoder makes of each image, kept on disk so that it is computed once.

    cache = FeatureCache(folder, model, processor, device)
    collator = Collator(processor, cache)       # images whose tokens are there are not opened
    inputs = cache.complete(model, inputs)      # in the training process, as the loader gave them

A file holds one image's tokens as ``VisionEncoder.encode`` gives them, bit for bit: in the encoder's precision, before
the norm without parameters. They are found by two digests. That of the encoder is over its weights, configuration and
precision, the image processor's settings, and all that its rounding depends on: versions, device, and threads of a CPU.
That of the image is over its content. So a step with the cache has the loss and the gradients of a step without it, to
the last bit; a frozen encoder takes one image at a time for that (see ``VisionEncoder``).

    FOLDER/<encoder>/encoder.json                  what the encoder's digest is over, to read
    FOLDER/<encoder>/<two digits>/<image>.safetensors

Several processes may share a folder: files appear whole, and all would write the same.
"""

import errno
import hashlib
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from .data.files import State
from .data.images import ImageSource
from .errors import UserError
from .modeling import UniMedForConditionalGeneration
from .processing import UniMedProcessor
from .vision import VisionEncoder

_FULL = (errno.ENOSPC, errno.EDQUOT)
_DIGESTS = "image_digests"


class FeatureCache:
    """Tokens of a frozen vision encoder on disk, one file per image.

    It can be pickled, and so be sent to the workers of a ``DataLoader``; it holds no model.

    Args:
        folder: where the files are, of any number of encoders; made where it is missing.
        model: the model whose encoder it is.
        processor: makes pixels of images.
        device: where the encoder will run; None: where the model is.

    Raises:
        UserError: the encoder is trained, or the folder cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        model: UniMedForConditionalGeneration,
        processor: UniMedProcessor,
        device: torch.device | None = None,
    ) -> None:
        encoder = model.vision_model
        if not encoder.frozen:
            raise UserError(
                "A feature cache is for a frozen vision encoder, and vision.trainable=true changes it at every step; "
                "set vision.trainable=false or leave out --feature-cache."
            )
        identity = _identity(model, processor, device or model.device)
        self.folder = folder / _digest(json.dumps(identity, sort_keys=True).encode())
        self._shape = (encoder.patches, int(model.config.vision_config.hidden_size))  # type: ignore[union-attr]
        self._dtype = getattr(torch, model.config.encoder_use.precision)
        self._known: dict[tuple[Path, tuple[str, int]], tuple[State | None, str]] = {}
        self._write(self.folder / "encoder.json", (json.dumps(identity, indent=2) + "\n").encode())

    def look_up(self, sources: Sequence[ImageSource], processor: UniMedProcessor) -> dict[str, Any]:
        """Return what a batch holds of its images; images whose tokens are there are not opened.

        Args:
            sources: the images.
            processor: makes pixels of those whose tokens are missing.

        Returns:
            ``vision_tokens`` (found, patches, width) and ``pixel_values`` (missing, 3, height, width), each only if
            there are any, and ``image_digests``: for each image its digest if it is missing, else None.

        Raises:
            UserError: an image that is needed cannot be used.
        """
        digests = [self._digest_of(source) for source in sources]
        found = [self._read(digest) for digest in digests]
        missing = [source for source, tokens in zip(sources, found, strict=True) if tokens is None]
        there = [tokens for tokens in found if tokens is not None]
        batch: dict[str, Any] = {
            _DIGESTS: [d if tokens is None else None for d, tokens in zip(digests, found, strict=True)]
        }
        if there:
            batch["vision_tokens"] = torch.stack(there)
        if missing:
            batch["pixel_values"] = processor.pixels([source.open() for source in missing])
        return batch

    def complete(self, model: nn.Module, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return a batch whose missing tokens are there: encoded, kept, and put beside those that were found.

        Args:
            model: the model, or what ``accelerate`` wrapped around it.
            inputs: a batch of a ``Collator`` with this cache, as the loader gave it: DeepSpeed rounds a batch that
                goes to its device. One without images comes back as it is.

        Returns:
            The batch with ``vision_tokens`` (images, patches, width) instead of ``pixel_values``.

        Raises:
            UserError: the disk is full or cannot be written, or the encoder's weights are spread over processes.
            ValueError: pixels that were rounded.
        """
        batch = dict(inputs)
        digests: list[str | None] = batch.pop(_DIGESTS, [])
        if not any(digests):
            return batch
        pixels: Tensor = batch.pop("pixel_values")
        if pixels.dtype != torch.float32:
            raise ValueError(f"the cache takes pixels as the collator made them, in float32, not in {pixels.dtype}")
        encoder = _encoder_of(model)
        fresh = encoder.encode(pixels.to(next(encoder.parameters()).device))
        for digest, tokens in zip(filter(None, digests), fresh.cpu(), strict=True):
            self._write(self._path(digest), _content(tokens))
        found, encoded = iter(batch.get("vision_tokens", fresh[:0]).to(fresh.device)), iter(fresh)
        batch["vision_tokens"] = torch.stack([next(encoded) if digest else next(found) for digest in digests])
        return batch

    def _digest_of(self, source: ImageSource) -> str:
        """Digest of an image's content; an unchanged file is read for it once in a process."""
        key = (source.path, source.place)
        state = State.of(source.path)
        known = self._known.get(key)
        if known is None or state is None or known[0] != state:
            known = self._known[key] = (state, _digest(source.content()))
        return known[1]

    def _path(self, digest: str) -> Path:
        return self.folder / digest[:2] / f"{digest}.safetensors"

    def _read(self, digest: str) -> Tensor | None:
        """Tokens of an image; None, with a warning where a file is damaged, if they must be made."""
        path = self._path(digest)
        try:
            return self._checked(load(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())
            warnings.warn(f"{path} is damaged ({reason}); the image is encoded again.", stacklevel=2)
            return None

    def _checked(self, stored: dict[str, Tensor]) -> Tensor:
        tokens = stored["tokens"]
        if (tuple(tokens.shape), tokens.dtype) != (self._shape, self._dtype):
            raise ValueError(f"tokens of shape {tuple(tokens.shape)} and type {tokens.dtype}")
        if not torch.equal(stored["digest"], _digest_of_tokens(tokens)):
            raise ValueError("tokens that are not those that were written")
        return tokens

    def _write(self, path: Path, content: bytes) -> None:
        partial = path.with_name(f".{path.name}.{os.getpid()}.{uuid4().hex}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(content)
            partial.replace(path)
        except OSError as error:
            what = "its disk is full" if error.errno in _FULL else f"{path} cannot be written ({error.strerror})"
            raise UserError(
                f"The feature cache {self.folder.parent} takes no more: {what}; choose another --feature-cache or "
                "leave it out."
            ) from error
        finally:
            if path.parent.is_dir():
                partial.unlink(missing_ok=True)


def _identity(
    model: UniMedForConditionalGeneration, processor: UniMedProcessor, device: torch.device
) -> dict[str, Any]:
    """All that an encoder's tokens of an image depend on, as JSON keeps it."""
    vision: Any = model.config.vision_config
    use = model.config.encoder_use
    return {
        "weights": _digest_of_weights(model.vision_model.model),
        "architecture": vision.to_dict(),
        "attention": vision._attn_implementation,
        "layer": use.layer,
        "norm": use.final_norm == "model",
        "precision": use.precision,
        "image_size": use.image_size,
        "image_processor": processor.image_processor.to_dict(),
        "arithmetic": _arithmetic(device),
        "versions": {name: version(name) for name in ("torch", "transformers", "pillow")},
    }


def _arithmetic(device: torch.device) -> dict[str, Any]:
    """What the rounding of one and the same product depends on."""
    if device.type == "cuda":
        return {
            "device": torch.cuda.get_device_name(device),
            "matmul": torch.get_float32_matmul_precision(),
            "convolution": torch.backends.cudnn.allow_tf32,
        }
    if device.type == "cpu":
        return {"device": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads()}
    return {"device": device.type}


def _digest_of_weights(encoder: nn.Module) -> str:
    whole = hashlib.sha256()
    for name, tensor in sorted(encoder.state_dict().items()):
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        whole.update(_bytes(tensor))
    return whole.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data


def _digest(content: bytes | memoryview) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _digest_of_tokens(tokens: Tensor) -> Tensor:
    return torch.tensor(list(bytes.fromhex(_digest(_bytes(tokens)))), dtype=torch.uint8)


def _content(tokens: Tensor) -> bytes:
    # a row of a batch would be written with the whole batch's storage
    tokens = tokens.contiguous().clone()
    return save({"tokens": tokens, "digest": _digest_of_tokens(tokens)})


def _encoder_of(model: nn.Module) -> VisionEncoder:
    """The vision encoder behind the wrappers of data parallel training and compilation.

    Raises:
        UserError: its weights are not whole in this process.
    """
    from accelerate.utils import extract_model_from_parallel

    encoder: VisionEncoder = extract_model_from_parallel(model).vision_model
    # DTensors of FSDP2, and what ZeRO-3 leaves of a parameter
    if any(hasattr(parameter, "device_mesh") or hasattr(parameter, "ds_id") for parameter in encoder.parameters()):
        raise UserError(
            "--feature-cache needs the whole vision encoder in every process, and its weights are spread over them; "
            "launch with ddp.yaml or deepspeed_zero2.yaml, set FSDP_IGNORED_MODULES=vision_model for fsdp2.yaml, or "
            "leave it out."
        )
    return encoder
