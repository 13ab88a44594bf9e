"""The vision encoder: any transformers vision transformer, cut at a layer, without CLS token, frozen or not."""

import inspect
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, Blip2VisionModel, PreTrainedConfig

from .errors import UserError
from .settings import EncoderUse

_NORMS = ("post_layernorm", "layernorm", "norm", "final_layer_norm")
POOLERS = ("pooler", "head")
"""Modules of encoders that make pooled tokens, which are never used."""
# their last hidden state, which is what ``final_norm="model"`` takes, is not normalised
_NORM_OF_POOLED_TOKEN = ("clip_vision_model",)
_RELEASED_EPSILON = 1e-5
_NOT_IN_AUTO_MODEL = {"blip_2_vision_model": Blip2VisionModel}


def encoder_class(config: PreTrainedConfig) -> Any:
    """Return the transformers class, or Auto class, of a vision encoder's configuration."""
    return _NOT_IN_AUTO_MODEL.get(config.model_type, AutoModel)


def fresh_encoder(config: PreTrainedConfig) -> nn.Module:
    """Return a vision encoder with fresh weights."""
    kind = encoder_class(config)
    model: nn.Module = kind.from_config(config) if kind is AutoModel else kind(config)
    return model


class VisionEncoder(nn.Module):
    """Images to patch tokens.

    Layers after the one that is read are not kept. Tokens that are no patches (CLS, registers) come first in all of
    transformers' encoders and are dropped.

    A frozen encoder stays in evaluation mode, builds no graph, keeps to its own precision under autocast, and encodes
    one image at a time. So an image's tokens depend on the image alone: a product over the tokens of several images
    is rounded otherwise than over those of one (by up to 2.4e-7 in float32 on two threads of a CPU), and tokens from a
    ``FeatureCache`` would differ from those of a batch.

    The released code's encoder is EVA-CLIP ViT-g/14 without its last block and without final norm, followed by a
    LayerNorm that was never loaded nor trained: ``final_norm="parameter_free"``.

    Args:
        config: the encoder's configuration.
        use: layer, norm, precision, frozen or not.
        model: the encoder with its weights; None: fresh weights.

    Raises:
        UserError: a layer that the encoder does not have, or an encoder whose layers or final norm are not found.
    """

    def __init__(self, config: PreTrainedConfig, use: EncoderUse, model: nn.Module | None = None) -> None:
        super().__init__()
        self.model = fresh_encoder(config) if model is None else model
        self.frozen = not use.trainable
        self.patches = (use.image_size // int(config.patch_size)) ** 2
        self._keep_layers(use.layer)
        self._drop_poolers()
        if use.final_norm != "model":
            self._drop_norm()
        self.norm = (
            nn.LayerNorm(int(config.hidden_size), eps=_RELEASED_EPSILON, elementwise_affine=False)
            if use.final_norm == "parameter_free"
            else None
        )
        self.model.to(getattr(torch, use.precision))
        self.model.requires_grad_(use.trainable)
        self._options = self._interpolation(config, use)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Encode normalised images (images, 3, height, width) into float32 tokens (images, patches, width)."""
        return self.finish(self.encode(pixel_values))

    def encode(self, pixel_values: Tensor) -> Tensor:
        """Return the encoder's own tokens (images, patches, width), in its precision, which a cache may keep.

        Args:
            pixel_values: normalised images (images, 3, height, width).
        """
        pixels = pixel_values.to(next(self.model.parameters()).dtype)
        if not self.frozen:
            return self._tokens(pixels)
        with torch.no_grad(), _without_autocast(pixels.device.type):
            return torch.cat([self._tokens(image) for image in pixels.split(1)])

    def finish(self, tokens: Tensor) -> Tensor:
        """Return the encoder's own tokens in float32, through the norm without parameters if there is one."""
        tokens = tokens.float()
        return tokens if self.norm is None else self.norm(tokens)

    def _tokens(self, pixels: Tensor) -> Tensor:
        hidden: Tensor = self.model(pixel_values=pixels, **self._options).last_hidden_state
        return hidden[:, hidden.shape[1] - self.patches :]

    def train(self, mode: bool = True) -> "VisionEncoder":
        """Set training mode, which a frozen encoder never takes."""
        return super().train(mode and not self.frozen)

    def _keep_layers(self, layer: int) -> None:
        layers = self._layers()
        if not -len(layers) <= layer <= len(layers):
            raise UserError(f"vision.layer: the encoder has {len(layers)} layers, there is no layer {layer}.")
        del layers[len(layers) + 1 + layer if layer < 0 else layer :]

    def _layers(self) -> nn.ModuleList:
        config: Any = self.model.config
        wanted = config.num_hidden_layers
        for module in self.model.modules():
            if isinstance(module, nn.ModuleList) and len(module) == wanted:
                return module
        raise UserError(f"vision: the {wanted} layers of {type(self.model).__name__} are not found.")

    def _drop_poolers(self) -> None:
        """Pooled tokens are never used, so that what makes them must not stand among the parameters."""
        for name in POOLERS:
            if isinstance(getattr(self.model, name, None), nn.Module):
                setattr(self.model, name, None)
        if getattr(self.model.config, "model_type", None) in _NORM_OF_POOLED_TOKEN:
            self._drop_norm()
        if hasattr(self.model, "use_head"):
            setattr(self.model, "use_head", False)  # noqa: B010 - a Module's attributes are modules to mypy

    def _drop_norm(self) -> None:
        for name in _NORMS:
            if isinstance(getattr(self.model, name, None), nn.Module):
                setattr(self.model, name, nn.Identity())
                return
        raise UserError(f"vision.final_norm: the final norm of {type(self.model).__name__} is not found.")

    def _interpolation(self, config: PreTrainedConfig, use: EncoderUse) -> dict[str, bool]:
        """How the encoder is told to interpolate its position embeddings, if the images' size needs it."""
        known = inspect.signature(self.model.forward).parameters
        other_size = getattr(config, "image_size", use.image_size) != use.image_size
        return {"interpolate_pos_encoding": True} if other_size and "interpolate_pos_encoding" in known else {}


def _without_autocast(device: str) -> AbstractContextManager[Any]:
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()
