"""A question of RULER, and what the generators need of a tokenizer."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from engram.tokenizer.plain import plain_ids

Encode = Callable[[str], Sequence[object]]
"""Tokens of a text, without special tokens at the beginning or the end."""


@dataclass(frozen=True)
class Sample:
    """One line of RULER's `validation.jsonl`."""

    index: int
    """Number of the sample; in the needle tasks, as in RULER's files, the place of the first answer in `input`, in characters."""
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
        """The prompt for a base model."""
        return self.input + self.answer_prefix


class PlainTokens:
    """A `tokenizers.Tokenizer` as RULER uses it: no special tokens, no truncation, no padding."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        if tokenizer.truncation is not None or tokenizer.padding is not None:
            tokenizer = Tokenizer.from_str(tokenizer.to_str())  # a copy: the caller may need both
            tokenizer.no_truncation()
            tokenizer.no_padding()
        self._tokenizer = tokenizer

    def __call__(self, text: str) -> list[int]:
        return plain_ids(self._tokenizer, [text])[0]

    def tail(self, text: str, tokens: int) -> str:
        """Text of the last `tokens` tokens of `text`."""
        decoded: str = self._tokenizer.decode(self(text)[-tokens:], skip_special_tokens=False)
        return decoded


def as_encode(tokenizer: Tokenizer | Encode) -> Encode:
    """A function from text to tokens, given such a function or a `tokenizers.Tokenizer`."""
    return PlainTokens(tokenizer) if isinstance(tokenizer, Tokenizer) else tokenizer


def tail(text: str, tokens: int, encode: Encode) -> str:
    """The end of `text`, about `tokens` tokens.

    For a `PlainTokens` it is exact. Of any other function only the encoding is known, and the result is the longest ending of the text that
    takes at most `tokens` tokens on its own.
    """
    if isinstance(encode, PlainTokens):
        return encode.tail(text, tokens)
    # The number of tokens falls as the ending gets shorter, except by the one token that a cut may split: as good as sorted.
    start = bisect_left(range(len(text)), True, key=lambda cut: len(encode(text[cut:])) <= tokens)
    return text[start:]
