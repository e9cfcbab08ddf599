"""Text to tokens, where all of the text is plain: the end-of-document token spelled out in it does not end the document."""

import functools
import json
from collections.abc import Sequence
from typing import Any

from tokenizers import Encoding, Tokenizer

from engram.errors import UserError
from engram.tokenizer.bpe import END_OF_TEXT_TOKENS
from engram.tokenizer.hub import short_cause

_NEVER_IN_TEXT = "\U0010ffff end of the document \U0010ffff"


def plain_ids(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of texts, on all processors, without the tokenizer's special tokens and never with its end-of-document token.

    Raises UserError when the tokenizer can't encode a text.
    """
    return [encoding.ids for encoding in _encoded(tokenizer, texts, offsets=False)]


def plain_encodings(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Encoding]:
    """The same with the place of each token in the text."""
    return _encoded(tokenizer, texts, offsets=True)


def _encoded(tokenizer: Tokenizer, texts: Sequence[str], offsets: bool) -> list[Encoding]:
    encodings = _batch(tokenizer, texts, offsets)
    end = _end(tokenizer)
    wrong = [] if end is None else [number for number, encoding in enumerate(encodings) if end in encoding.ids]
    if wrong:
        # `encode_special_tokens` holds for special tokens only, not for an end token in the vocabulary of the model, such as Unigram's.
        assert end is not None
        mended = _batch(_without_end(tokenizer, end), [texts[number] for number in wrong], offsets)
        for number, encoding in zip(wrong, mended, strict=True):
            if end in encoding.ids:
                spelled = tokenizer.id_to_token(end)
                raise UserError(
                    f"the tokenizer turns text into its end-of-document token {spelled}, as for what it does not know; take another"
                )
            encodings[number] = encoding
    return encodings


def _batch(tokenizer: Tokenizer, texts: Sequence[str], offsets: bool) -> list[Encoding]:
    tokenizer.encode_special_tokens = True  # special tokens inside a text are plain text; not kept in a tokenizer's file
    encode = tokenizer.encode_batch if offsets else tokenizer.encode_batch_fast
    try:
        return list(encode(list(texts), add_special_tokens=False))
    except Exception as problem:  # tokenizers has no class of its own
        raise UserError(
            f"the tokenizer can't encode this text: {short_cause(problem)}; take a tokenizer that has a token for all text"
        ) from None


def _end(tokenizer: Tokenizer) -> int | None:
    return next((found for token in END_OF_TEXT_TOKENS if (found := tokenizer.token_to_id(token)) is not None), None)


@functools.lru_cache(maxsize=2)
def _without_end(tokenizer: Tokenizer, end: int) -> Tokenizer:
    """The same tokenizer with the same ids, except that the string of its end token is one that no text has."""
    content: dict[str, Any] = json.loads(tokenizer.to_str())
    token, model = tokenizer.id_to_token(end), content["model"]

    def renamed(one: Any) -> Any:
        return _NEVER_IN_TEXT if one == token else one

    if isinstance(model.get("vocab"), dict):
        model["vocab"] = {renamed(one): number for one, number in model["vocab"].items()}
    else:
        model["vocab"] = [[renamed(one), score] for one, score in model["vocab"]]
    if model.get("merges"):
        pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
        model["merges"] = [pair for pair in pairs if token not in (*pair, "".join(pair))]
    if "unk_token" in model:
        model["unk_token"] = renamed(model["unk_token"])
    for added in content.get("added_tokens") or []:
        added["content"] = renamed(added["content"])
    return Tokenizer.from_str(json.dumps(content))
