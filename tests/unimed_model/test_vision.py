"""The encoder's tokens against what transformers' own models give."""

import pytest
import torch
from transformers import AutoConfig, AutoModel, Blip2VisionModel

from unimed_model.errors import UserError
from unimed_model.settings import EncoderUse
from unimed_model.vision import VisionEncoder

SIZES = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
FAMILIES = {
    "vit": {**SIZES, "intermediate_size": 20},
    "dinov2": {**SIZES, "mlp_ratio": 2},
    "dinov2_with_registers": {**SIZES, "mlp_ratio": 2, "num_register_tokens": 3},
    "clip_vision_model": {**SIZES, "intermediate_size": 20},
    "siglip_vision_model": {**SIZES, "intermediate_size": 20},
    "blip_2_vision_model": {**SIZES, "intermediate_size": 20, "qkv_bias": True},
}


def plain(family):
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **FAMILIES[family])
    return (Blip2VisionModel(config) if family.startswith("blip") else AutoModel.from_config(config)).eval()


def encoder(family, **use):
    model = plain(family)
    return VisionEncoder(model.config, EncoderUse(**{"image_size": 32, **use}), model).eval()


PIXELS = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("family", FAMILIES)
def test_patch_tokens_of_the_last_layer(family):
    wanted = plain(family)(pixel_values=PIXELS).last_hidden_state[:, -16:]
    # a frozen encoder takes one image at a time, whose products are rounded otherwise than a batch's
    torch.testing.assert_close(encoder(family)(PIXELS), wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layer", [1, 2, -2, -1, 3])
def test_any_layer_without_norm_is_that_hidden_state(family, layer):
    states = plain(family)(pixel_values=PIXELS, output_hidden_states=True).hidden_states
    if family in ("vit", "dinov2", "dinov2_with_registers", "siglip_vision_model") and layer in (-1, 3):
        # there the last hidden state is given with the norm: ask the last layer itself
        model, seen = plain(family), []
        last = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == 3)[-1]
        last.register_forward_hook(lambda module, args, output: seen.append(output))
        model(pixel_values=PIXELS)
        wanted = seen[0][0] if isinstance(seen[0], tuple) else seen[0]
    else:
        wanted = states[layer]
    got = encoder(family, layer=layer, final_norm="none")(PIXELS)
    torch.testing.assert_close(got, wanted[:, -16:], atol=1e-6, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_released_norm_has_no_parameters(family):
    bare, normed = encoder(family, final_norm="none"), encoder(family, final_norm="parameter_free")
    wanted = torch.nn.functional.layer_norm(bare(PIXELS), (16,), eps=1e-5)
    torch.testing.assert_close(normed(PIXELS), wanted, atol=1e-6, rtol=0)
    assert {n for n, _ in normed.named_parameters()} == {n for n, _ in bare.named_parameters()}


@pytest.mark.parametrize("family", ["vit", "dinov2", "siglip_vision_model", "blip_2_vision_model"])
def test_every_parameter_of_a_trained_encoder_has_a_gradient(family):
    module = encoder(family, trainable=True)
    (module(PIXELS) ** 2).sum().backward()
    without = [name for name, p in module.named_parameters() if p.grad is None and "mask_token" not in name]
    assert without == []


def test_layers_after_the_one_that_is_read_are_not_kept():
    counts = [sum(p.numel() for p in encoder("vit", layer=n, final_norm="none").parameters()) for n in (1, 2, 3)]
    assert counts[2] - counts[1] == counts[1] - counts[0] > 0


def test_a_frozen_encoder_stays_frozen():
    module = encoder("vit").train()
    assert not module.model.training
    assert not any(p.requires_grad for p in module.parameters())
    assert not module(PIXELS).requires_grad
    assert encoder("vit", trainable=True).train().model.training


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_other_precisions_give_float32_tokens_near_the_exact_ones(precision):
    module = encoder("vit", precision=precision)
    assert next(module.model.parameters()).dtype == getattr(torch, precision)
    tokens, exact = module(PIXELS), encoder("vit")(PIXELS)
    assert tokens.dtype == torch.float32
    assert (tokens - exact).norm() < 0.03 * exact.norm()


@pytest.mark.parametrize("family", ["vit", "dinov2", "clip_vision_model", "siglip_vision_model"])
def test_images_of_another_size(family):
    larger = torch.randn(1, 3, 48, 48)
    assert encoder(family, image_size=48)(larger).shape == (1, 36, 16)


def test_a_layer_that_is_not_there():
    with pytest.raises(UserError, match="3 layers, there is no layer 4"):
        encoder("vit", layer=4, final_norm="none")
    with pytest.raises(ValueError, match="belongs to its last layer"):
        EncoderUse(layer=-2)
    with pytest.raises(ValueError, match="layer 0 is no layer"):
        EncoderUse(layer=0, final_norm="none")
