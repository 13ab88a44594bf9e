"""A tokenizer trained on the corpus, for models trained from scratch."""

from collections.abc import Iterable
from typing import Any

BEGIN, END, PAD, IMAGE = "<s>", "</s>", "<pad>", "<image>"


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Any:
    """Train a byte-level BPE tokenizer; digits are single tokens, as in LLaMA, so that boxes are regular.

    Args:
        texts: the corpus; any other text can be encoded too, byte by byte.
        vocabulary: the largest number of tokens, the 256 bytes and four special tokens included.

    Returns:
        A ``PreTrainedTokenizerFast`` with begin, end, padding and image tokens.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[BEGIN, END, PAD, IMAGE],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[IMAGE],
    )
