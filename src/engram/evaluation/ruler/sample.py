"""One question of RULER and what the generators need to know of a tokenizer."""

import json
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

Encode = Callable[[str], Sequence[object]]
"""Tokens of a text, without special tokens of a beginning or an end."""


@dataclass(frozen=True)
class Sample:
    """One line of RULER's `validation.jsonl`."""

    index: int
    """Number of the sample; in the needle tasks the place of the first answer in `input`, in characters, as RULER writes it."""
    input: str
    """The prompt without `answer_prefix`."""
    outputs: tuple[str, ...]
    """Reference answers."""
    length: int
    """Tokens of the prompt and of the answer that may be generated."""
    answer_prefix: str
    token_position_answer: int | None = None
    """Tokens of `input` before the first answer; None outside the needle tasks."""

    @property
    def prompt(self) -> str:
        """What a base model gets."""
        return self.input + self.answer_prefix

    def json_line(self) -> str:
        """The line, without its newline, byte for byte as RULER writes it."""
        fields: dict[str, object] = {
            "index": self.index,
            "input": self.input,
            "outputs": list(self.outputs),
            "length": self.length,
            # The length with a chat template, for which no room is reserved here.
            "length_w_model_temp": self.length,
            "answer_prefix": self.answer_prefix,
        }
        if self.token_position_answer is not None:
            fields["token_position_answer"] = self.token_position_answer
        return json.dumps(fields)


class PlainTokens:
    """A `tokenizers.Tokenizer` as RULER uses it: no special tokens added, nothing truncated, nothing padded."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        if tokenizer.truncation is not None or tokenizer.padding is not None:
            tokenizer = Tokenizer.from_str(tokenizer.to_str())  # a copy: the caller's may need both
            tokenizer.no_truncation()
            tokenizer.no_padding()
        self._tokenizer = tokenizer

    def __call__(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def tail(self, text: str, tokens: int) -> str:
        """Text of the last `tokens` tokens of `text`."""
        decoded: str = self._tokenizer.decode(self(text)[-tokens:], skip_special_tokens=False)
        return decoded


def as_encode(tokenizer: Tokenizer | Encode) -> Encode:
    """A function from text to tokens, from such a function or from a `tokenizers.Tokenizer`."""
    return PlainTokens(tokenizer) if isinstance(tokenizer, Tokenizer) else tokenizer


def tail(text: str, tokens: int, encode: Encode) -> str:
    """End of `text` of about `tokens` tokens.

    Exact for a `PlainTokens`; of any other function only the encoding is known, and this is the longest ending of the text
    that takes at most `tokens` tokens by itself.
    """
    if isinstance(encode, PlainTokens):
        return encode.tail(text, tokens)
    # No ending is longer in tokens than the text after it by more than the token that the cut splits: as good as sorted.
    start = bisect_left(range(len(text)), True, key=lambda cut: len(encode(text[cut:])) <= tokens)
    return text[start:]
