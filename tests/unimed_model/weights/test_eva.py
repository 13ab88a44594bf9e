"""The converted encoder against EVA's block written out in plain float64, on small random checkpoints."""

import json
import math

import pytest
import torch
from torch.nn.functional import interpolate, layer_norm

from unimed_model import UserError
from unimed_model.weights import convert_eva
from unimed_model.weights.provenance import RECORD, sha256

WIDTH, HEAD, FEEDFORWARD, PATCH, BLOCKS = 24, 8, 40, 4, 3


def eva_state(grid=3, blocks=BLOCKS, kind=torch.float32):
    """A checkpoint with the keys and shapes of eva_vit_g.pth, every tensor random, norms and biases too."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return (torch.randn(*shape, generator=generator) / math.sqrt(shape[-1])).to(kind)

    state = {"cls_token": random(1, 1, WIDTH), "pos_embed": random(1, grid * grid + 1, WIDTH)}
    state |= {"patch_embed.proj.weight": random(WIDTH, 3, PATCH, PATCH), "patch_embed.proj.bias": random(WIDTH)}
    for i in range(blocks):
        shapes = {
            "norm1.weight": (WIDTH,),
            "norm1.bias": (WIDTH,),
            "attn.q_bias": (WIDTH,),
            "attn.v_bias": (WIDTH,),
            "attn.qkv.weight": (3 * WIDTH, WIDTH),
            "attn.proj.weight": (WIDTH, WIDTH),
            "attn.proj.bias": (WIDTH,),
            "norm2.weight": (WIDTH,),
            "norm2.bias": (WIDTH,),
            "mlp.fc1.weight": (FEEDFORWARD, WIDTH),
            "mlp.fc1.bias": (FEEDFORWARD,),
            "mlp.fc2.weight": (WIDTH, FEEDFORWARD),
            "mlp.fc2.bias": (WIDTH,),
        }
        state |= {f"blocks.{i}.{name}": random(*shape) for name, shape in shapes.items()}
    return state | {"norm.weight": random(WIDTH), "head.weight": random(5, WIDTH), "head.bias": random(5)}


def oracle(state, pixels, blocks):
    """EVA's forward pass, one image, one head and one patch at a time, in float64; (tokens, width), no last norm."""
    state = {key: value.double() for key, value in state.items()}
    kernel, bias = state["patch_embed.proj.weight"].flatten(1), state["patch_embed.proj.bias"]
    rows = [
        kernel @ pixels[:, top : top + PATCH, left : left + PATCH].double().flatten() + bias
        for top in range(0, pixels.shape[1], PATCH)
        for left in range(0, pixels.shape[2], PATCH)
    ]
    x = torch.cat([state["cls_token"][0], torch.stack(rows)]) + state["pos_embed"][0]
    for i in range(blocks):
        block = {key.removeprefix(f"blocks.{i}."): v for key, v in state.items() if key.startswith(f"blocks.{i}.")}
        h = layer_norm(x, (WIDTH,), block["norm1.weight"], block["norm1.bias"], 1e-6)
        w_q, w_k, w_v = block["attn.qkv.weight"].chunk(3)
        q, k, v = h @ w_q.T + block["attn.q_bias"], h @ w_k.T, h @ w_v.T + block["attn.v_bias"]
        heads = []
        for start in range(0, WIDTH, HEAD):
            part = slice(start, start + HEAD)
            weights = torch.softmax(q[:, part] @ k[:, part].T / math.sqrt(HEAD), dim=-1)
            heads.append(weights @ v[:, part])
        x = x + torch.cat(heads, dim=1) @ block["attn.proj.weight"].T + block["attn.proj.bias"]
        h = layer_norm(x, (WIDTH,), block["norm2.weight"], block["norm2.bias"], 1e-6)
        h = h @ block["mlp.fc1.weight"].T + block["mlp.fc1.bias"]
        h = h * 0.5 * (1 + torch.erf(h / math.sqrt(2)))
        x = x + h @ block["mlp.fc2.weight"].T + block["mlp.fc2.bias"]
    return x


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "eva.pth"
    torch.save(eva_state(), path)
    return path


def converted(checkpoint, out, **changes):
    options = {"blocks": BLOCKS - 1, "head_width": HEAD, "image_size": 3 * PATCH, "quiet": True}
    return convert_eva(checkpoint, out, **(options | changes))


def opened(folder):
    from transformers import Blip2VisionModel

    model, report = Blip2VisionModel.from_pretrained(folder, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval()


def last_hidden(folder, pixels):
    """What leaves the last block."""
    model = opened(folder).double()
    with torch.no_grad():
        return model(pixels[None].double(), output_hidden_states=True).hidden_states[-1][0]


def test_the_encoder_computes_what_the_checkpoint_says(checkpoint, tmp_path):
    report = converted(checkpoint, tmp_path / "out")
    pixels = torch.randn(3, 3 * PATCH, 3 * PATCH, generator=torch.Generator().manual_seed(1))
    expected = oracle(eva_state(), pixels, BLOCKS - 1)
    torch.testing.assert_close(last_hidden(tmp_path / "out", pixels), expected, rtol=1e-10, atol=1e-10)
    assert (report.blocks, report.grid, report.interpolated) == (BLOCKS - 1, 3, False)
    model = opened(tmp_path / "out")
    assert report.parameters == sum(p.numel() for p in model.parameters())
    assert model.post_layernorm.weight.eq(1).all()
    assert model.post_layernorm.bias.eq(0).all()


def test_what_is_left_out_is_named(checkpoint, tmp_path):
    report = converted(checkpoint, tmp_path / "out")
    dropped = [key for key in eva_state() if key.startswith(f"blocks.{BLOCKS - 1}.")]
    assert report.unused == (*dropped, "norm.weight", "head.weight", "head.bias")
    assert len(dropped) == 13
    record = json.loads((tmp_path / "out" / RECORD).read_text())
    assert record["unused"] == list(report.unused)
    assert record["sha256"] == sha256(checkpoint)
    assert str(tmp_path) not in (tmp_path / "out" / RECORD).read_text()


def test_another_image_size_interpolates_the_positions(checkpoint, tmp_path):
    report = converted(checkpoint, tmp_path / "out", image_size=5 * PATCH)
    assert (report.grid, report.interpolated) == (3, True)
    state = eva_state()
    plane = state["pos_embed"][0, 1:].reshape(3, 3, WIDTH).permute(2, 0, 1)[None]
    larger = interpolate(plane, size=(5, 5), mode="bicubic", align_corners=False)[0].flatten(1).T
    state["pos_embed"] = torch.cat([state["pos_embed"][:, :1], larger[None]], dim=1)
    pixels = torch.randn(3, 5 * PATCH, 5 * PATCH, generator=torch.Generator().manual_seed(1))
    expected = oracle(state, pixels, BLOCKS - 1)
    torch.testing.assert_close(last_hidden(tmp_path / "out", pixels), expected, rtol=1e-10, atol=1e-10)


def test_positions_along_a_line_keep_their_orientation(tmp_path):
    """A ramp from left to right stays one: rows and columns are not exchanged."""
    state = eva_state()
    state["pos_embed"] = torch.zeros_like(state["pos_embed"])
    state["pos_embed"][0, 1:, 0] = torch.arange(3.0).repeat(3)
    torch.save(state, tmp_path / "eva.pth")
    converted(tmp_path / "eva.pth", tmp_path / "out", image_size=6 * PATCH)
    ramp = opened(tmp_path / "out").embeddings.position_embedding[0, 1:, 0].detach().reshape(6, 6)
    assert (ramp.diff(dim=1) > 0).all()
    torch.testing.assert_close(ramp, ramp[:1].expand(6, 6))


def test_the_weights_may_be_read_by_whoever_may_read_the_rest(checkpoint, tmp_path):
    out = converted(checkpoint, tmp_path / "out").folder
    assert len({path.stat().st_mode for path in out.iterdir()}) == 1


def test_half_precision_stays(tmp_path):
    torch.save(eva_state(kind=torch.float16), tmp_path / "eva.pth")
    converted(tmp_path / "eva.pth", tmp_path / "out")
    model = opened(tmp_path / "out")
    assert {p.dtype for p in model.parameters()} == {torch.float16}
    qkv = model.encoder.layers[1].self_attn.qkv
    state = eva_state(kind=torch.float16)
    zeros = torch.zeros(WIDTH, dtype=torch.float16)
    bias = torch.cat([state["blocks.1.attn.q_bias"], zeros, state["blocks.1.attn.v_bias"]])
    assert torch.equal(qkv.bias, bias)


def test_the_old_format_of_torch_is_read(tmp_path):
    torch.save(eva_state(), tmp_path / "eva.pth", _use_new_zipfile_serialization=False)
    assert converted(tmp_path / "eva.pth", tmp_path / "out").blocks == BLOCKS - 1


def test_the_image_processor_ignores_the_aspect(checkpoint, tmp_path):
    import numpy as np
    from PIL import Image
    from transformers import ViTImageProcessorPil
    from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

    converted(checkpoint, tmp_path / "out")
    processor = ViTImageProcessorPil.from_pretrained(tmp_path / "out")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8))
    pixels = processor(image, return_tensors="pt")["pixel_values"]
    resized = np.asarray(image.resize((12, 12), Image.Resampling.BICUBIC), dtype=np.float64) / 255
    expected = (resized - OPENAI_CLIP_MEAN) / OPENAI_CLIP_STD
    torch.testing.assert_close(pixels[0].double(), torch.tensor(expected).permute(2, 0, 1), rtol=0, atol=1e-5)


class Anything:
    """Something that is no tensor."""


@pytest.mark.parametrize(
    ("change", "options", "says"),
    [
        (lambda s: s.pop("blocks.1.attn.q_bias"), {}, "holds no tensor blocks.1.attn.q_bias"),
        (lambda s: s.pop("cls_token"), {}, "holds no tensor cls_token"),
        (lambda s: s.pop("pos_embed"), {}, "holds no tensor pos_embed"),
        (lambda s: None, {"blocks": BLOCKS + 1}, f"has {BLOCKS} blocks, so {BLOCKS + 1} of them cannot be kept"),
        (lambda s: None, {"head_width": 7}, "24 channels wide, which are no whole heads of 7"),
        (lambda s: None, {"image_size": 13}, "13 pixels holds no whole patches of 4"),
        (lambda s: s.update(pos_embed=torch.zeros(1, 9, WIDTH)), {}, r"pos_embed of shape \(1, 9, 24\)"),
        (
            lambda s: s.update({"blocks.1.norm1.bias": torch.zeros(3)}),
            {},
            r"layer_norm1.bias would have the shape \(3,\)",
        ),
        (lambda s: s.update(more=Anything()), {}, "holds more than tensors and was not unpickled"),
    ],
)
def test_a_wrong_checkpoint_is_one_sentence_and_leaves_nothing(tmp_path, change, options, says):
    state = eva_state()
    change(state)
    torch.save(state, tmp_path / "eva.pth")
    with pytest.raises(UserError, match=says):
        converted(tmp_path / "eva.pth", tmp_path / "deep" / "out", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["eva.pth"]


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.99])
def test_a_truncated_checkpoint_is_one_sentence(checkpoint, tmp_path, keep):
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    with pytest.raises(UserError, match="damaged"):
        converted(checkpoint, tmp_path / "out")


def test_wrapped_missing_and_occupied_are_named(checkpoint, tmp_path):
    torch.save({"model": eva_state()}, tmp_path / "wrapped.pth")
    with pytest.raises(UserError, match=r"not EVA's encoder as LAVIS serves it \(it holds model\)"):
        converted(tmp_path / "wrapped.pth", tmp_path / "out")
    with pytest.raises(UserError, match="There is no checkpoint"):
        converted(tmp_path / "nowhere.pth", tmp_path / "out")
    converted(checkpoint, tmp_path / "out")
    with pytest.raises(UserError, match="is there already"):
        converted(checkpoint, tmp_path / "out")


def test_the_real_shape_has_986_million_parameters():
    """The class that the defaults describe, counted without memory."""
    from transformers import Blip2VisionConfig, Blip2VisionModel

    with torch.device("meta"):
        model = Blip2VisionModel(Blip2VisionConfig())
    block = 4 * 1408**2 + 4 * 1408 + 4 * 1408 + 2 * 1408 * 6144 + 6144 + 1408
    outside = 1408 + 257 * 1408 + 3 * 14 * 14 * 1408 + 1408
    assert sum(p.numel() for p in model.parameters()) == 39 * block + outside + 2 * 1408
