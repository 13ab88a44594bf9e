"""SmolLM2-135M-Instruct from a GGUF file to a folder for ``AutoModelForCausalLM`` and ``AutoTokenizer``.

The file's weights are rounded to 4 bits in groups of 32 (Q4_1). They are written as float32: bfloat16 would round
them a second time, and a folder's precision is what ``from_pretrained`` loads by default.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from unimed_model.errors import UserError

from .extras import extra
from .model_folders import open_strictly, write_tensors

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from transformers import LlamaConfig

PARAMETERS = 134_515_008
TOLERANCE = 1e-2
QUESTION = "Which organ pumps blood through the body?"
QUESTION_IDS = (
    *(1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407, 19712, 8182, 2),
    *(198, 1, 4093, 198, 14413, 1192, 15834, 1670, 738, 260, 1248, 47, 2, 198, 1, 520, 9531, 198),
)
"""The question as a user's turn, with the template's own system prompt."""
ANSWER_IDS = (504, 1911, 314, 260, 1192, 338, 15834, 1670, 738, 260, 1248, 30)
"""``The heart is the organ that pumps blood through the body.``"""
LOGITS = {504: 33.5484, 2122: 29.5981, 788: 29.3751, 2705: 29.3242, 49: 29.2979, 2427: 29.2792}
"""The largest logits after the question."""

_OUTSIDE_BLOCKS = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_IN_BLOCKS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_CONTROL = 3  # llama.cpp's token type of <|im_start|> and the like


def write_smollm(source: Path, folder: Path, quiet: bool) -> None:
    """Convert the package's GGUF file and require the model's known outputs.

    Raises:
        UserError: as `convert_llama_gguf`; or the folder's outputs are not the known ones.
    """
    convert_llama_gguf(source, folder, quiet=quiet)
    require_known_outputs(folder)


def convert_llama_gguf(source: Path, folder: Path, *, quiet: bool = False) -> None:
    """Write configuration, float32 weights and tokenizer of a LLaMA-type GGUF file with a byte-level tokenizer.

    Args:
        source: GGUF file; its pre-tokenizer must be SmolLM's.
        folder: empty folder.
        quiet: no progress bar.

    Raises:
        UserError: gguf is not installed; another architecture or tokenizer; an unknown tensor.
    """
    from transformers import GenerationConfig

    reader = extra("gguf", "Reading a GGUF file").GGUFReader(source)
    fields = Fields(reader, source)
    config = _config(fields, {tensor.name for tensor in reader.tensors})
    config.save_pretrained(folder)
    special = {key: getattr(config, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    GenerationConfig(**special).save_pretrained(folder)
    write_tensors(folder, _tensors(reader, source, config, quiet))
    _tokenizer(fields).save_pretrained(folder)


class Fields:
    """The metadata of a GGUF file, by key."""

    def __init__(self, reader: Any, source: Path) -> None:
        self._reader, self._source = reader, source

    def __getitem__(self, key: str) -> Any:
        field = self._reader.get_field(key)
        if field is None:
            raise UserError(f"{self._source.name} holds no {key}.")
        return field.contents()

    def require(self, key: str, value: str) -> None:
        """Raise a UserError unless the key has that value."""
        if self[key] != value:
            raise UserError(f"{self._source.name}: {key} is {self[key]!r}; only {value!r} can be read.")


def _config(fields: Fields, tensors: set[str]) -> LlamaConfig:
    import torch
    from transformers import LlamaConfig

    fields.require("general.architecture", "llama")
    return LlamaConfig(
        vocab_size=len(fields["tokenizer.ggml.tokens"]),
        hidden_size=fields["llama.embedding_length"],
        intermediate_size=fields["llama.feed_forward_length"],
        num_hidden_layers=fields["llama.block_count"],
        num_attention_heads=fields["llama.attention.head_count"],
        num_key_value_heads=fields["llama.attention.head_count_kv"],
        max_position_embeddings=fields["llama.context_length"],
        rms_norm_eps=fields["llama.attention.layer_norm_rms_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": fields["llama.rope.freq_base"]},
        tie_word_embeddings="output.weight" not in tensors,
        bos_token_id=fields["tokenizer.ggml.bos_token_id"],
        eos_token_id=fields["tokenizer.ggml.eos_token_id"],
        pad_token_id=fields["tokenizer.ggml.padding_token_id"],
        dtype=torch.float32,
        architectures=["LlamaForCausalLM"],
    )


def _tensors(reader: Any, source: Path, config: LlamaConfig, quiet: bool) -> dict[str, Tensor]:
    import numpy as np
    import torch
    from tqdm import tqdm

    dequantize = extra("gguf.quants", "Reading a GGUF file").dequantize
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    tensors = {}
    for tensor in tqdm(reader.tensors, desc="weights", unit="tensor", disable=quiet, leave=False):
        values = dequantize(tensor.data, tensor.tensor_type)
        part = tensor.name.removesuffix(".weight").rpartition(".")[2]
        if part in heads:
            values = rows_of_halves(values, heads[part])
        tensors[_new_name(tensor.name, source)] = torch.from_numpy(np.array(values, dtype=np.float32, order="C"))
    return tensors


def rows_of_halves(weight: np.ndarray, heads: int) -> np.ndarray:
    """Return the rows of a query or key projection, (heads * width, channels), as transformers orders them.

    Rotary embedding turns pairs of channels. llama.cpp stores the two of a pair one after the other; transformers
    wants all first ones of a head, then all second ones.
    """
    pairs = weight.reshape(heads, -1, 2, weight.shape[1])
    return pairs.swapaxes(1, 2).reshape(weight.shape)


def _new_name(name: str, source: Path) -> str:
    if name in _OUTSIDE_BLOCKS:
        return _OUTSIDE_BLOCKS[name]
    match name.split("."):
        case ["blk", number, part, "weight"] if number.isdecimal() and part in _IN_BLOCKS:
            return f"model.layers.{number}.{_IN_BLOCKS[part]}.weight"
    raise UserError(f"{source.name} holds a tensor {name}, which has no place in a LLaMA.")


def _tokenizer(fields: Fields) -> Any:
    """Return the byte-level tokenizer: digits one by one, then GPT-2's splitting, no token added at the beginning."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    fields.require("tokenizer.ggml.model", "gpt2")
    fields.require("tokenizer.ggml.pre", "smollm")
    tokens = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = zip(tokens, fields["tokenizer.ggml.token_type"], strict=True)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t, k in kinds if k == _CONTROL])
    names = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding", "unk_token": "unknown"}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **{name: tokens[fields[f"tokenizer.ggml.{key}_token_id"]] for name, key in names.items()},
        chat_template=fields["tokenizer.chat_template"],
        model_max_length=fields["llama.context_length"],
        clean_up_tokenization_spaces=False,
    )


def require_known_outputs(folder: Path) -> None:
    """Open the folder strictly, as its users will, and compare token ids, logits and a greedy answer.

    Raises:
        UserError: a tensor does not fit, or what comes out is not what transformers' own reader makes of the GGUF
            file.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = open_strictly(AutoModelForCausalLM, folder, PARAMETERS)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    turns = [{"role": "user", "content": QUESTION}]
    prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)["input_ids"]
    if prompt != list(QUESTION_IDS):
        raise UserError(f"The tokenizer of {folder.name} writes a question as {prompt}, not as {list(QUESTION_IDS)}.")
    with torch.no_grad():
        # Each token of the answer is the likeliest after those before it: the same as answering greedily.
        logits = model(torch.tensor([[*prompt, *ANSWER_IDS]])).logits[0, len(prompt) - 1 : -1]
    answer = logits.argmax(dim=-1).tolist()
    far = [token for token, known in LOGITS.items() if not abs(float(logits[0, token]) - known) <= TOLERANCE]
    if answer != list(ANSWER_IDS) or far:
        raise UserError(
            f"{folder.name} does not compute what it should: it answers {tokenizer.decode(answer)!r}; the installed "
            "versions of torch and transformers may not fit each other."
        )
