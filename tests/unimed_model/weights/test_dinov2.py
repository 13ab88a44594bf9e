"""ONNX files laid out as the package's, from small random encoders, come back; the real one against onnxruntime."""

import shutil

import numpy as np
import pytest
import torch

from unimed_model import UserError
from unimed_model.weights import assembly, dinov2
from unimed_model.weights.dinov2 import convert_dinov2_onnx
from unimed_model.weights.model_folders import open_strictly

HUB_NAMES = {
    "attention.q_proj": "attention.attention.query",
    "attention.k_proj": "attention.attention.key",
    "attention.v_proj": "attention.attention.value",
    "attention.o_proj": "attention.output.dense",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


@pytest.fixture(scope="module")
def onnx():
    return pytest.importorskip("onnx", reason="the optional extra weights is not installed")


@pytest.fixture(scope="module")
def encoder():
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=24, num_hidden_layers=3, num_attention_heads=2, mlp_ratio=4, patch_size=4, image_size=20
    )
    made = Dinov2Model(config).eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, 0.1, 0.3)
    torch.nn.init.zeros_(made.embeddings.mask_token)
    return made


def exported(encoder):
    """Initialisers and products as the exporter leaves them: linear weights anonymous and transposed."""
    named, products = {}, []
    for name, tensor in encoder.state_dict().items():
        values = tensor.numpy()
        for ours, hub in HUB_NAMES.items():
            name = name.replace(ours, hub)
        if name.startswith("encoder.layer.") and name.endswith(".weight") and values.ndim == 2:
            anonymous = f"onnx::MatMul_{1966 + len(products)}"
            named[anonymous] = np.ascontiguousarray(values.T)
            products.append((f"/backbone/{name.removesuffix('.weight')}".replace(".", "/"), anonymous))
        elif name == "embeddings.position_embeddings":
            named["onnx::Concat_1957"], named["onnx::Reshape_1962"] = values[:, :1], values[:, 1:]
        elif name != "embeddings.mask_token":
            named[f"backbone.{name}"] = values
    # Layers keep the dot in their number: /backbone/encoder/layer.0/mlp/fc1/MatMul
    products = [(name.replace("/layer/", "/layer.") + "/MatMul", anonymous) for name, anonymous in products]
    named["decoder.bn1.weight"] = np.ones(4, np.float32)
    return named, products


def write_onnx(onnx, path, named, products):
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [helper.make_node("MatMul", ["x", weight], [f"{name}_out"], name=name) for name, weight in products]
    nodes.insert(
        0, helper.make_node("MatMul", ["x", "x"], ["scores"], name="/backbone/encoder/layer.0/attention/MatMul")
    )
    tensors = [onnx.numpy_helper.from_array(np.ascontiguousarray(values), name) for name, values in named.items()]
    ends = [helper.make_tensor_value_info(name, floats, None) for name in ("x", "scores")]
    onnx.save(helper.make_model(helper.make_graph(nodes, "saliency", ends[:1], ends[1:], tensors)), path)
    return path


def reopened(folder):
    from transformers import AutoModel

    return open_strictly(AutoModel, folder)


@pytest.fixture
def source(onnx, encoder, tmp_path):
    return write_onnx(onnx, tmp_path / "m.onnx", *exported(encoder))


@pytest.mark.parametrize("side", [20, 16])
def test_an_encoder_comes_back_bit_for_bit(source, encoder, tmp_path, side):
    convert_dinov2_onnx(source, tmp_path, heads=2)
    again = reopened(tmp_path)
    pixels = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(again(pixels).last_hidden_state, encoder(pixels).last_hidden_state)
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "mlp_ratio", "patch_size", "image_size"):
        assert getattr(again.config, key) == getattr(encoder.config, key)


def test_the_folder_has_the_hubs_names(source, tmp_path):
    """Older releases of transformers know only those."""
    from safetensors import safe_open

    convert_dinov2_onnx(source, tmp_path, heads=2)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        names = set(file.keys())
    assert "encoder.layer.2.attention.attention.query.weight" in names
    assert "encoder.layer.2.attention.output.dense.bias" in names
    assert not [name for name in names if name.startswith(("backbone", "decoder", "onnx"))]


def test_images_are_resized_whole_and_normalised_as_dinov2_was_trained(source, tmp_path):
    from PIL import Image
    from transformers import AutoImageProcessor

    convert_dinov2_onnx(source, tmp_path, heads=2)
    processor = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 300, 3), dtype=np.uint8))
    pixels = processor(image, return_tensors="np")["pixel_values"]
    resized = np.asarray(image.resize((224, 224), Image.Resampling.BICUBIC), dtype=np.float64) / 255
    expected = (resized - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(pixels[0], expected.transpose(2, 0, 1), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda named: named.update({"onnx::MatMul_7": np.ones((2, 2), np.float32)}),
            "onnx::MatMul_7, which has no pl",
        ),
        (lambda named: named.update({"head.weight": np.ones(2, np.float32)}), "head.weight, which has no place"),
        (lambda named: named.pop("onnx::Concat_1957"), "holds no position embeddings"),
        (
            lambda named: named.pop("backbone.embeddings.patch_embeddings.projection.weight"),
            "no tensor backbone.embedd",
        ),
    ],
)
def test_what_has_no_place_is_named(onnx, encoder, tmp_path, change, says):
    named, products = exported(encoder)
    change(named)
    with pytest.raises(UserError, match=says.replace(".", r"\.")):
        convert_dinov2_onnx(write_onnx(onnx, tmp_path / "m.onnx", named, products), tmp_path, heads=2)


@pytest.mark.parametrize(
    "lost", ["backbone.layernorm.bias", "backbone.encoder.layer.1.norm1.weight", "onnx::MatMul_1968"]
)
def test_a_lost_tensor_is_not_made_up(onnx, encoder, tmp_path, lost):
    named, products = exported(encoder)
    del named[lost]
    convert_dinov2_onnx(write_onnx(onnx, tmp_path / "m.onnx", named, products), tmp_path, heads=2)
    with pytest.raises(UserError, match="1 missing tensors"):
        reopened(tmp_path)


def test_known_outputs_refuse_another_encoder(source, tmp_path):
    convert_dinov2_onnx(source, tmp_path, heads=2)
    with pytest.raises(UserError, match="not 22,056,576"):
        dinov2.require_known_outputs(tmp_path)


@pytest.mark.slow
def test_the_real_encoder_computes_what_onnxruntime_computes(onnx, package_file, assembled):
    """The whole last hidden state to 1e-4, and the values that the conversion is checked against."""
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    graph = onnx.load(package_file(assembly.RECIPES[1]))
    output = "/backbone/layernorm/Add_1_output_0"
    graph.graph.output.append(onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None))
    session = runtime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])

    def reference(pixels):
        return torch.from_numpy(session.run([output], {"input_image": pixels.numpy()})[0])

    model = reopened(assembled("dinov2-small"))
    images = [dinov2.known_image(), torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))]
    for pixels in images:
        with torch.no_grad():
            found = model(pixels).last_hidden_state
        torch.testing.assert_close(found, reference(pixels), rtol=0, atol=1e-4)
    hidden = reference(images[0])[0]
    for (token, channel), value in dinov2.KNOWN.items():
        assert float(hidden[token, channel]) == pytest.approx(value, abs=1e-4)


@pytest.mark.slow
def test_wrong_weights_are_noticed(assembled, tmp_path):
    from safetensors.torch import load_file, save_file

    spoilt = shutil.copytree(assembled("dinov2-small"), tmp_path / "spoilt")
    tensors = load_file(spoilt / "model.safetensors")
    key = "encoder.layer.11.attention.attention.query.weight"
    tensors[key] = tensors[key].T.contiguous()
    save_file(tensors, spoilt / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="does not compute what it should"):
        dinov2.require_known_outputs(spoilt)
