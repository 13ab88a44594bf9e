"""Small tokenizers of the two kinds that matter: SentencePiece-BPE as LLaMA has it, byte-level BPE as SmolLM2."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaTokenizer, PreTrainedTokenizerFast, ViTImageProcessorPil

from unimed_model.processing import UniMedProcessor

IMAGE_TOKENS = 4

_AFTER_A_SPACE = """
[ < </ { ? " ' what organ is it Based on the image respond to this question with a short answer If you are doctor
please following using or Does mint help Describe input Can provide brief summary of radiology Where where location
Give give me What object in Which category does CT belong liver spleen Liver No change yes helpful assistant
"""
_BARE = "INST Img qa caption refer identify cls >< </ $$ yes no maybe Liver No spleen You system user assistant"

CHATML = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}"
    "{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""ChatML with a system turn of its own where there is none, as SmolLM2's template has it."""


def _chains(pieces):
    """Merges that build each piece from the left, one character at a time."""
    merges = []
    for piece in pieces:
        for end in range(1, len(piece)):
            pair = (piece[:end], piece[end])
            if pair not in merges:
                merges.append(pair)
    return merges


def _vocabulary(first, characters, space):
    merges = _chains([space + piece for piece in _AFTER_A_SPACE.split()]) + _chains(_BARE.split())
    tokens = [*first, *characters, *("".join(pair) for pair in merges)]
    return {token: number for number, token in enumerate(dict.fromkeys(tokens))}, merges


def llama_like(**options):
    """LLaMA's kind: a blank before the text, byte fallback, a begin token by default, no padding token."""
    first = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocabulary, merges = _vocabulary(first, ["▁", *(chr(code) for code in range(33, 127))], "▁")
    return LlamaTokenizer(vocab=vocabulary, merges=merges, **{"legacy": True, "add_bos_token": True, **options})


def smollm_like(**options):
    """SmolLM2's kind: byte-level, single digits, ChatML; nothing is added to a text."""
    first = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocabulary, merges = _vocabulary(first, sorted(pre_tokenizers.ByteLevel.alphabet()), "Ġ")
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **{**special, "unk_token": "<|endoftext|>", "chat_template": CHATML, **options},
    )


def processor_of(tokenizer, profile="paper", **options):
    """A processor with pictures of 8 x 8 pixels."""
    pictures = ViTImageProcessorPil(size={"height": 8, "width": 8})
    return UniMedProcessor(pictures, tokenizer, image_tokens=IMAGE_TOKENS, profile=profile, **options)
