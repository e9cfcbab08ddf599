"""Byte-level BPE: training, loading and identifying tokenizers."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from engram.errors import UserError
from engram.foreign_files import require_regular
from engram.tokenizer.hub import require_hub, short_cause

END_OF_TEXT = "<|endoftext|>"
"""End-of-document token of the tokenizers trained here; always id 0."""
MIN_VOCAB_SIZE = 257
"""The end-of-document token and the 256 bytes."""
MAX_VOCAB_SIZE = 10_000_000
"""Far more than any tokenizer has; the trainer's own numbers end at 2^64."""
# In order of preference. Base models of all well-known families have at least one of them.
END_OF_TEXT_TOKENS = (
    END_OF_TEXT,
    "<|end_of_text|>",
    "<｜end▁of▁sentence｜>",
    "</s>",
    "<eos>",
    "<|eos|>",
    "<|im_end|>",
    "<|eot_id|>",
    "[EOS]",
    "[SEP]",
)


def check_vocab_size(vocab_size: int) -> None:
    """Raise UserError when a byte-level BPE of `vocab_size` tokens can't be trained."""
    if vocab_size < MIN_VOCAB_SIZE:
        raise UserError(f"vocab_size is {vocab_size}; a byte-level BPE needs at least {MIN_VOCAB_SIZE} (256 bytes and {END_OF_TEXT})")
    if vocab_size > MAX_VOCAB_SIZE:
        raise UserError(f"vocab_size is {vocab_size}; a BPE that is trained here has at most {MAX_VOCAB_SIZE:,} tokens")


def train_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train a byte-level BPE; the same texts in the same order give the same tokenizer.

    Every byte has a token, so nothing is ever unknown. A short text may give fewer than `vocab_size` tokens. Raises UserError when
    `vocab_size` is below 257.
    """
    check_vocab_size(vocab_size)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    return tokenizer


def load_tokenizer(source: str) -> Tokenizer:
    """Load a tokenizer from the path of a `tokenizer.json` or from `hf:NAME` on the Hugging Face hub.

    Truncation and padding, which the file may ask for, are switched off: both would change what is encoded. Raises UserError when the
    tokenizer can't be loaded.
    """
    if source.startswith("hf:"):
        require_hub(f"tokenizer {source}")
        try:
            tokenizer = Tokenizer.from_pretrained(source.removeprefix("hf:"))
        except Exception as error:
            raise UserError(f"tokenizer {source} can't be loaded: {short_cause(error)}") from error
    else:
        path = Path(source).expanduser()
        if not path.is_file():
            raise UserError(f"tokenizer {source} is not a file; give the path of a tokenizer.json or hf:NAME")
        try:
            require_regular(path)
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:
            raise UserError(f"tokenizer {source} is not a tokenizer.json: {short_cause(error)}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def end_of_text_id(tokenizer: Tokenizer) -> int:
    """Id of the first well-known end-of-document token that the tokenizer has; UserError if it has none."""
    for token in END_OF_TEXT_TOKENS:
        found = tokenizer.token_to_id(token)
        if found is not None:
            return int(found)
    raise UserError(f"the tokenizer has no end-of-document token; it needs one of {', '.join(END_OF_TEXT_TOKENS)}")


def vocabulary_size(tokenizer: Tokenizer) -> int:
    """Rows that an embedding needs: the largest id + 1, which exceeds the number of tokens if ids have gaps."""
    return 1 + max(tokenizer.get_vocab(with_added_tokens=True).values())


def fingerprint(tokenizer: Tokenizer) -> str:
    """SHA-256 of the tokenizer's JSON, 64 hexadecimal digits."""
    return hashlib.sha256(tokenizer.to_str().encode()).hexdigest()
