"""Names and identifiers of several tokens in the validation text: the spans to look at when none are given."""

import itertools
import re

import numpy as np

from engram.analysis.spans import SpannedText, tokens_of
from engram.analysis.split import check_corpus
from engram.corpus.dataset import VALIDATION_DOCUMENT_TOKENS, Corpus
from engram.errors import UserError
from engram.tokenizer.compression import REPLACEMENT
from engram.tokenizer.plain import plain_encodings
from engram.training.checkpoints.restore import Restored

MAX_SPANS = 4096
_WORD = r"[^\W\d]\w*"
_WORDS = re.compile(rf"{_WORD}(?: {_WORD})*")
_SINGLE = re.compile(_WORD)
_UNDERSCORE_INSIDE = re.compile(r"[^\W_]_+[^\W_]")


def names_in(text: str) -> list[tuple[int, int]]:
    """Character spans of identifiers and of names in a text, in order.

    An identifier is a word with an underscore inside (`val_loss`) or a capital after a small letter (`HyperHead`); a name is a run
    of capitalised words with single spaces between them (`New York`), which may be one word.
    """
    spans = []
    for run in _WORDS.finditer(text):
        name: tuple[int, int] | None = None
        for word in _SINGLE.finditer(text, run.start(), run.end()):
            start, end = word.span()
            if _is_identifier(word.group()):
                spans += [name] if name else []
                spans.append((start, end))
                name = None
            elif word.group()[0].isupper():
                name = (name[0] if name else start, end)
            else:
                spans += [name] if name else []
                name = None
        spans += [name] if name else []
    return spans


def _is_identifier(word: str) -> bool:
    return bool(_UNDERSCORE_INSIDE.search(word)) or any(a.islower() and b.isupper() for a, b in itertools.pairwise(word))


def validation_names(restored: Restored, corpus: Corpus, max_spans: int = MAX_SPANS, seed: int = 0) -> list[SpannedText]:
    """Names and identifiers of two tokens or more in the beginnings of the validation documents.

    Each counts once per document, at its first occurrence, so that a document's favourite does not fill the sample. If there are more than
    `max_spans`, that many are drawn at random. Documents without any are left out. Raises UserError when there is none at all, or when the
    corpus is not the one the checkpoint was trained on.
    """
    check_corpus(restored, corpus)
    tokenizer = restored.tokenizer
    bounds = zip(corpus.val_doc_starts[:-1], corpus.val_doc_starts[1:] - 1, strict=True)  # without end-of-text
    tokens = [corpus.val[start : min(end, start + VALIDATION_DOCUMENT_TOKENS)].tolist() for start, end in bounds]
    # The cut can leave part of a character at the end.
    texts = [text.rstrip(REPLACEMENT) for text in tokenizer.decode_batch(tokens, skip_special_tokens=False)]
    offsets = [encoding.offsets for encoding in plain_encodings(tokenizer, texts)]
    found = [(number, span) for number, text in enumerate(texts) for span in _several_tokens(text, offsets[number])]
    if not found:
        raise UserError("the validation text has no name or identifier of two tokens or more; give a file of spans")
    if len(found) > max_spans:
        drawn = np.sort(np.random.default_rng(seed).choice(len(found), max_spans, replace=False))
        found = [found[i] for i in drawn]
    by_document: dict[int, list[tuple[int, int]]] = {}
    for number, span in found:
        by_document.setdefault(number, []).append(span)
    return [SpannedText(texts[number], tuple(spans)) for number, spans in by_document.items()]


def _several_tokens(text: str, offsets: list[tuple[int, int]]) -> list[tuple[int, int]]:
    first = {text[start:end]: (start, end) for start, end in reversed(names_in(text))}
    spans = sorted(first.values())
    return [span for span, n_tokens in zip(spans, tokens_of(spans, offsets), strict=True) if n_tokens > 1]
