"""Compression of the vocabulary: tokens that read alike share one canonical id (paper, 2.2)."""

from collections.abc import Sequence

import numpy as np
from tokenizers import Regex, Tokenizer, normalizers

from engram.tokenizer.bpe import vocabulary_size

REPLACEMENT = "\ufffd"
"""What decoding puts in place of bytes that are not whole characters."""

_FOLD = normalizers.Sequence(
    [
        normalizers.NFKC(),
        normalizers.NFD(),
        normalizers.StripAccents(),
        normalizers.Lowercase(),
        normalizers.Replace(Regex(r"[ \t\r\n]+"), " "),
    ]
)
# By the normaliser's own notion of white space: str.strip() would also remove control characters such as U+001C.
_STRIP = normalizers.Strip()


def canonical_key(text: str, raw_token: str) -> str:
    """The key under which a token that decodes to `text` is merged with others."""
    if REPLACEMENT in text:
        return raw_token  # part of a character: there is nothing but its bytes to compare
    folded = _FOLD.normalize_str(text)
    if folded == " ":
        return folded
    return _STRIP.normalize_str(folded) or text


def canonical_ids(texts: Sequence[str], raw_tokens: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Canonical id of each token and the key it was merged under.

    `texts[i]` is what token i decodes to, `raw_tokens[i]` its string in the vocabulary; both have length V. Returns ids int64 [V],
    numbered in order of first appearance, and V keys.
    """
    keys = [canonical_key(text, raw) for text, raw in zip(texts, raw_tokens, strict=True)]
    ids: dict[str, int] = {}
    return np.array([ids.setdefault(key, len(ids)) for key in keys], dtype=np.int64), keys


def compress_vocabulary(tokenizer: Tokenizer) -> np.ndarray:
    """Canonical id of every token id, int64 [V]; each token is decoded on its own, special tokens included.

    Ids missing from the vocabulary decode to the empty string and share one canonical id.
    """
    n_tokens = vocabulary_size(tokenizer)
    texts = tokenizer.decode_batch([[i] for i in range(n_tokens)], skip_special_tokens=False)
    raw_tokens = [tokenizer.id_to_token(i) or "" for i in range(n_tokens)]
    return canonical_ids(texts, raw_tokens)[0]
