"""GGUF files written here from small random models must come back as those models; the real one is compared whole."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unimed_model import UserError
from unimed_model.weights import assembly, smollm
from unimed_model.weights.smollm import convert_llama_gguf, rows_of_halves

TEXTS = [
    "The dose is 12345 mg, twice a day.",
    "Café ½ naïve ³ 日本語 ٣٤",
    "  two  spaces\n\n\tand a tab ",
    "<|im_start|>user\nhi<|im_end|>",
    "it's they're I'll 'd",
    "",
]


@given(heads=st.integers(1, 4), half=st.integers(1, 4), seed=st.integers(0, 9))
def test_both_orders_of_rows_turn_alike(heads, half, seed):
    """llama.cpp's rotation of neighbours on its rows gives the scores of transformers' rotation of halves on ours."""
    generator = np.random.default_rng(seed)
    width = 2 * half
    stored = generator.normal(size=(heads * width, 3))
    ours = rows_of_halves(stored, heads)
    x, angles = generator.normal(size=3), generator.normal(size=half)
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        neighbours, halves = stored[part] @ x, ours[part] @ x
        turned = np.empty(width)
        for i, angle in enumerate(angles):
            a, b = neighbours[2 * i], neighbours[2 * i + 1]
            turned[i] = a * np.cos(angle) - b * np.sin(angle)
            turned[half + i] = a * np.sin(angle) + b * np.cos(angle)
        cos, sin = np.tile(np.cos(angles), 2), np.tile(np.sin(angles), 2)
        expected = halves * cos + np.concatenate([-halves[half:], halves[:half]]) * sin
        np.testing.assert_allclose(turned, expected, atol=1e-12)


@pytest.fixture(scope="module")
def gguf():
    return pytest.importorskip("gguf", reason="the optional extra weights is not installed")


@pytest.fixture(scope="module")
def tokenizer():
    """A byte-level tokenizer built as SmolLM2's, trained on a few sentences."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    made.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        TEXTS * 5, trainers.BpeTrainer(vocab_size=320, special_tokens=special, initial_alphabet=alphabet)
    )
    return made


@pytest.fixture(scope="module")
def model(tokenizer):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
        tie_word_embeddings=True,
        initializer_range=0.3,
    )
    made = LlamaForCausalLM(config).eval()
    for name, parameter in made.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(parameter, 1.0, 0.3)
    return made


PARTS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def gguf_tensors(model, tied):
    """The model's tensors as llama.cpp stores them: its names, rows of q and k as neighbouring pairs."""
    config = model.config
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    tensors = {}
    for name, tensor in model.state_dict().items():
        if tied and name == "lm_head.weight":
            continue
        stem = name.removesuffix(".weight")
        if stem in OUTSIDE:
            tensors[f"{OUTSIDE[stem]}.weight"] = tensor.numpy()
            continue
        number, _, part = stem.removeprefix("model.layers.").partition(".")
        values = tensor.numpy()
        if PARTS[part] in heads:
            paired = np.empty_like(values)
            width = values.shape[0] // heads[PARTS[part]]
            for head in range(heads[PARTS[part]]):
                for i in range(width // 2):
                    paired[head * width + 2 * i] = values[head * width + i]
                    paired[head * width + 2 * i + 1] = values[head * width + width // 2 + i]
            values = paired
        tensors[f"blk.{number}.{PARTS[part]}.weight"] = values
    return tensors


def write_gguf(gguf, path, model, tokenizer, *, kind="F32", tied=True, without=(), **changes):
    config = model.config
    writer = gguf.GGUFWriter(path, changes.get("architecture", "llama"))
    numbers = {
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "block_count": config.num_hidden_layers,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "context_length": config.max_position_embeddings,
    }
    for key, value in numbers.items():
        if key not in without:
            writer.add_uint32(f"llama.{key}", value)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", config.rms_norm_eps)
    writer.add_float32("llama.rope.freq_base", config.rope_parameters["rope_theta"])
    vocabulary = sorted(tokenizer.get_vocab(), key=tokenizer.token_to_id)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(changes.get("pre", "smollm"))
    writer.add_token_list(vocabulary)
    writer.add_token_types([3 if token.startswith("<|") else 1 for token in vocabulary])
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(merge) if isinstance(merge, list) else merge for merge in merges])
    for add, number in (("bos", 1), ("eos", 2), ("unk", 0), ("pad", 2)):
        getattr(writer, f"add_{add}_token_id")(number)
    writer.add_chat_template("{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}")
    for name, values in (gguf_tensors(model, tied) | changes.get("more", {})).items():
        quantised = values.ndim == 2 and kind != "F32"
        wanted = gguf.GGMLQuantizationType[kind]
        stored = gguf.quants.quantize(values, wanted) if quantised else values
        writer.add_tensor(name, stored, raw_dtype=wanted if quantised else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def reopened(folder):
    from transformers import AutoModelForCausalLM

    from unimed_model.weights.model_folders import open_strictly

    return open_strictly(AutoModelForCausalLM, folder)


def test_a_model_comes_back_bit_for_bit(gguf, model, tokenizer, tmp_path):
    source = write_gguf(gguf, tmp_path / "m.gguf", model, tokenizer)
    convert_llama_gguf(source, tmp_path, quiet=True)
    again = reopened(tmp_path)
    ids = torch.randint(0, model.config.vocab_size, (2, 17), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(again(ids).logits, model(ids).logits)
    special = (again.config.bos_token_id, again.config.eos_token_id, again.config.pad_token_id)
    assert special == (1, 2, 2)
    assert again.generation_config.eos_token_id == 2
    assert again.dtype == torch.float32


def test_a_head_of_its_own_stays_one(gguf, model, tokenizer, tmp_path):
    import copy

    untied = copy.deepcopy(model)
    untied.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    convert_llama_gguf(write_gguf(gguf, tmp_path / "m.gguf", untied, tokenizer, tied=False), tmp_path, quiet=True)
    again = reopened(tmp_path)
    assert not again.config.tie_word_embeddings
    assert torch.equal(again.lm_head.weight, untied.lm_head.weight)
    assert not torch.equal(again.lm_head.weight, again.model.embed_tokens.weight)


def test_four_bits_are_read_as_stored(gguf, model, tokenizer, tmp_path):
    """Q4_1 by hand: 32 values a block, half-precision scale and minimum, low nibbles first."""
    source = write_gguf(gguf, tmp_path / "m.gguf", model, tokenizer, kind="Q4_1")
    convert_llama_gguf(source, tmp_path, quiet=True)
    stored = next(t for t in gguf.GGUFReader(source).tensors if t.name == "blk.1.ffn_down.weight")
    blocks = np.ascontiguousarray(stored.data).reshape(-1, 20)
    expected = []
    for block in blocks:
        scale, least = block[:4].view(np.float16).astype(np.float32)
        nibbles = [*(block[4:] & 15), *(block[4:] >> 4)]
        expected += [scale * np.float32(n) + least for n in nibbles]
    found = reopened(tmp_path).model.layers[1].mlp.down_proj.weight.detach().numpy()
    np.testing.assert_array_equal(found, np.array(expected, dtype=np.float32).reshape(found.shape))


def test_the_tokenizer_comes_back(gguf, model, tokenizer, tmp_path):
    from transformers import AutoTokenizer

    convert_llama_gguf(write_gguf(gguf, tmp_path / "m.gguf", model, tokenizer), tmp_path, quiet=True)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for text in TEXTS:
        assert again(text)["input_ids"] == tokenizer.encode(text).ids
    assert again("<|im_end|>")["input_ids"] == [2]
    assert again.decode(again(TEXTS[1])["input_ids"]) == TEXTS[1]
    assert again.decode(again(TEXTS[3])["input_ids"], skip_special_tokens=True) == "user\nhi"
    assert len(again("2024")["input_ids"]) == 4
    assert (again.bos_token, again.eos_token, again.pad_token) == ("<|im_start|>", "<|im_end|>", "<|im_end|>")
    assert again.model_max_length == 128
    turns = [{"role": "user", "content": "hi"}]
    assert again.apply_chat_template(turns, tokenize=False) == "<|im_start|>hi<|im_end|>"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"architecture": "qwen2"}, "general.architecture is 'qwen2'; only 'llama' can be read"),
        ({"pre": "llama-bpe"}, "tokenizer.ggml.pre is 'llama-bpe'; only 'smollm' can be read"),
        ({"without": ("block_count",)}, "holds no llama.block_count"),
        ({"more": {"rope_freqs.weight": np.ones(8, np.float32)}}, "rope_freqs.weight, which has no place in a LLaMA"),
        ({"more": {"blk.0.ffn_more.weight": np.ones(8, np.float32)}}, "blk.0.ffn_more.weight, which has no place"),
    ],
)
def test_what_cannot_be_read_is_named(gguf, model, tokenizer, tmp_path, changes, says):
    source = write_gguf(gguf, tmp_path / "m.gguf", model, tokenizer, **changes)
    with pytest.raises(UserError, match=says.replace(".", r"\.")):
        convert_llama_gguf(source, tmp_path, quiet=True)


def test_a_missing_or_misshapen_tensor_is_not_made_up(gguf, model, tokenizer, tmp_path):
    from safetensors.torch import load_file, save_file

    convert_llama_gguf(write_gguf(gguf, tmp_path / "m.gguf", model, tokenizer), tmp_path, quiet=True)
    path = tmp_path / "model.safetensors"
    whole = load_file(path)
    for change, says in (
        ({"model.layers.1.mlp.up_proj.weight": None}, r"1 missing tensors, .*up_proj"),
        ({"model.layers.2.mlp.up_proj.weight": torch.zeros(2)}, r"1 unexpected tensors, .*layers\.2"),
        ({"model.norm.weight": torch.zeros(3)}, r"1 mismatched tensors, .*norm"),
    ):
        save_file({k: v for k, v in (whole | change).items() if v is not None}, path, metadata={"format": "pt"})
        with pytest.raises(UserError, match=says):
            reopened(tmp_path)


def test_known_outputs_refuse_another_model(gguf, model, tokenizer, tmp_path):
    convert_llama_gguf(write_gguf(gguf, tmp_path / "m.gguf", model, tokenizer), tmp_path, quiet=True)
    with pytest.raises(UserError, match="not 134,515,008"):
        smollm.require_known_outputs(tmp_path)


@pytest.mark.slow
def test_the_real_model_is_what_transformers_reads(package_file, assembled):
    """Against transformers' own reader of GGUF files, every weight bit for bit."""
    from transformers import AutoModelForCausalLM

    folder = assembled("SmolLM2-135M-Instruct")
    source = package_file(assembly.RECIPES[0])
    reference = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    ours = reopened(folder)
    expected = reference.state_dict()
    assert expected.keys() == ours.state_dict().keys()
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    ids = torch.tensor([smollm.QUESTION_IDS])
    with torch.no_grad():
        logits = reference(ids).logits[0, -1]
    top = logits.topk(len(smollm.LOGITS))
    assert top.indices.tolist() == list(smollm.LOGITS)
    torch.testing.assert_close(top.values, torch.tensor(list(smollm.LOGITS.values())), rtol=0, atol=1e-3)


@pytest.mark.slow
def test_the_real_model_answers_and_wrong_weights_are_noticed(assembled, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file
    from transformers import AutoTokenizer

    folder = assembled("SmolLM2-135M-Instruct")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), reopened(folder)
    ids = torch.tensor([smollm.QUESTION_IDS])
    answer = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
    assert answer[0, ids.shape[1] :].tolist() == list(smollm.ANSWER_IDS)
    sentence = "The heart is the organ that pumps blood through the body."
    assert tokenizer.decode(smollm.ANSWER_IDS) == sentence
    assert tokenizer("12 mg")["input_ids"] == [33, 34, 9209]

    spoilt = shutil.copytree(folder, tmp_path / "spoilt")
    tensors = load_file(spoilt / "model.safetensors")
    key = "model.layers.0.self_attn.k_proj.weight"
    tensors[key] = torch.from_numpy(rows_of_halves(tensors[key].numpy(), 3).copy())
    save_file(tensors, spoilt / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="does not compute what it should"):
        smollm.require_known_outputs(spoilt)
