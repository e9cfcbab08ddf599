"""Statistics of a prepared corpus: sizes, compression, and how often its N-grams recur."""

from dataclasses import fields
from typing import Any

import numpy as np

from engram.corpus.dataset import OVERLAP_TOKENS, Corpus
from engram.corpus.split import MOST_LINES, SplitFacts

MAX_NGRAM_TOKENS = 20_000_000
"""Number of training tokens, from the first, over which N-grams are counted; more would take more memory than a laptop can spare."""
HEAVY_OVERLAP = 0.01
"""Share of the validation tokens in n-grams of training above which a person is told."""
_NEW = (
    *("read_documents", "unknown_token", "unknown_tokens", "changed_documents", "skipped_files"),
    *(field.name for field in fields(SplitFacts)),
    *("val_overlap_16", f"val_overlap_{OVERLAP_TOKENS}"),
)
"""Keys of meta.json that earlier versions did not write."""


def describe(corpus: Corpus) -> dict[str, Any]:
    """Sizes of a corpus and, for N = 2 and 3, how many distinct N-grams of canonical ids it has and how many occur once.

    N-grams run across document boundaries, as they do in training. What a corpus of an earlier version does not know is None.
    """
    meta = corpus.meta
    tokens = meta["train_tokens"] + meta["val_tokens"]
    documents = meta["train_documents"] + meta["val_documents"]
    text = meta["train_bytes"] + meta["val_bytes"]
    ids = corpus.compression[np.asarray(corpus.train[:MAX_NGRAM_TOKENS])]
    return {
        "folder": str(corpus.folder),
        "corpus_fingerprint": corpus.fingerprint,
        "tokenizer_fingerprint": corpus.tokenizer_fingerprint,
        **{name: meta[name] for name in meta if name.startswith(("train_", "val_", "duplicate_", "blank_"))},
        **{name: meta.get(name) for name in _NEW},
        "unknown_percent": _percent(meta.get("unknown_tokens"), tokens - documents),
        "changed_percent": _percent(meta.get("changed_documents"), documents),
        "bytes_per_token": text / (tokens - documents),
        "vocab_size": corpus.vocab_size,
        "compressed_vocab_size": corpus.compressed_vocab_size,
        "compression_percent": 100 * (1 - corpus.compressed_vocab_size / corpus.vocab_size),
        "ngram_tokens": len(ids),
        "ngrams": [{"n": n, **_once(_packed(ids, n, corpus.compressed_vocab_size))} for n in (2, 3)],
    }


def text_loss(corpus: Corpus) -> str | None:
    """What the tokenizer lost of the text, in one line for a person; None if nothing."""
    meta = corpus.meta
    documents = meta["train_documents"] + meta["val_documents"]
    unknown, changed = meta.get("unknown_tokens") or 0, meta.get("changed_documents") or 0
    if not unknown and not changed:
        return None
    share = 100 * unknown / max(1, meta["train_tokens"] + meta["val_tokens"] - documents)
    lost = [f"{share:.3g} % of the tokens are {meta.get('unknown_token')}"] if unknown else []
    lost += [f"{changed:,} of {documents:,} documents do not decode back to their text"] if changed else []
    return f"the tokenizer loses text: {', '.join(lost)}; bits per byte are not comparable with those of another tokenizer"


def overlap(corpus: Corpus) -> str | None:
    """How much of validation stands in training, in one line for a person; None if next to nothing."""
    share, lines = (corpus.meta.get(name) for name in (f"val_overlap_{OVERLAP_TOKENS}", "val_line_share"))
    if share is None or lines is None:
        return "how much of validation stands in training is not known: an earlier version prepared this corpus"
    if share <= HEAVY_OVERLAP and lines < MOST_LINES:
        return None
    tokens = f"{100 * share:.3g} % of its tokens are in a {OVERLAP_TOKENS}-gram of training"
    return (
        f"validation overlaps with training: {tokens}, and a document has {100 * lines:.0f} % of its lines in common with one of training;"
        " losses flatter models that memorise"
    )


def _percent(part: int | None, whole: int) -> float | None:
    return None if part is None else 100 * part / max(1, whole)


def _packed(ids: np.ndarray, n: int, base: int) -> np.ndarray:
    """Canonical ids int64 [T] -> one number for each N-gram, int64 [T - n + 1] (base^3 < 2^63 for any vocabulary below 2 M)."""
    keys = np.zeros(max(0, len(ids) - n + 1), dtype=np.int64)
    for k in range(n):
        keys = keys * base + ids[k : len(ids) - n + 1 + k]
    return keys


def _once(keys: np.ndarray) -> dict[str, Any]:
    keys = np.sort(keys)
    first = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]]) if len(keys) else np.array([], dtype=np.int64)
    counts = np.diff(np.r_[first, len(keys)])
    once = int((counts == 1).sum())
    return {
        "distinct": len(counts),
        "seen_once_percent": 100 * once / max(1, len(counts)),
        "occurrences_seen_once_percent": 100 * once / max(1, len(keys)),
    }
