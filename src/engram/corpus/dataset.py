"""A prepared corpus on disk, and the batches that training and validation take from it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from tokenizers import Tokenizer

from engram.errors import UserError

FORMAT = 1
"""Version of the folder's layout; folders of another version are not opened."""
VALIDATION_DOCUMENT_TOKENS = 1024
"""Tokens taken from the beginning of a validation document, at least: a few long files must not be the whole validation."""


@dataclass(frozen=True, eq=False)
class Corpus:
    """A tokenised corpus; tokens are memory-mapped, shared by all processes of a machine."""

    folder: Path
    fingerprint: str
    """SHA-256 over the documents in their order and the split."""
    tokenizer_fingerprint: str
    vocab_size: int
    compressed_vocab_size: int
    end_of_text_id: int
    compression: np.ndarray
    """int64 [V]: canonical id of each token"""
    train: np.ndarray
    """uint16 or uint32 [n]: documents one after another, each followed by end-of-text"""
    train_doc_starts: np.ndarray
    """int64 [documents + 1]: first token of each training document"""
    val: np.ndarray
    """The same of the validation documents, in the order of their hashes: any beginning is a random sample"""
    val_doc_starts: np.ndarray
    """int64 [documents + 1]: first token of each validation document"""
    val_doc_bytes: np.ndarray
    """int64 [documents]: UTF-8 bytes"""
    val_doc_ids: np.ndarray
    """16 hexadecimal digits of each document's hash"""
    meta: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Map a prepared corpus; UserError when the folder is not a whole one of this format."""
        try:
            meta = json.loads((folder / "meta.json").read_text())
            if meta["format"] != FORMAT:
                raise UserError(f"corpus {folder} has format {meta['format']}, this program reads {FORMAT}; prepare it again")
            dtype = np.dtype(meta["dtype"])
            corpus = cls(
                folder=folder,
                fingerprint=meta["corpus_fingerprint"],
                tokenizer_fingerprint=meta["tokenizer_fingerprint"],
                vocab_size=meta["vocab_size"],
                compressed_vocab_size=meta["compressed_vocab_size"],
                end_of_text_id=meta["end_of_text_id"],
                compression=np.load(folder / "compression.npy"),
                train=np.memmap(folder / "train.bin", dtype=dtype, mode="r"),
                train_doc_starts=np.load(folder / "train_docs.npy", mmap_mode="r"),
                val=np.memmap(folder / "val.bin", dtype=dtype, mode="r"),
                val_doc_starts=np.load(folder / "val_docs.npy"),
                val_doc_bytes=np.load(folder / "val_doc_bytes.npy"),
                val_doc_ids=np.load(folder / "val_doc_ids.npy"),
                meta=meta,
            )
            for name, tokens in (("train", corpus.train), ("val", corpus.val)):
                if len(tokens) != meta[f"{name}_tokens"]:
                    raise ValueError(f"{name}.bin has {len(tokens)} tokens instead of {meta[f'{name}_tokens']}")
            return corpus
        except UserError:
            raise
        except (OSError, ValueError, KeyError) as problem:
            raise UserError(f"{folder} is not a prepared corpus that can be read here ({type(problem).__name__}: {problem})") from None

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that made the tokens."""
        return Tokenizer.from_file(str(self.folder / "tokenizer.json"))


class TrainBatches:
    """Batches as a pure function of seed and step: a resumed run needs no state.

    Windows of T + 1 tokens start every T tokens, so no target is seen twice in an epoch; each epoch has an
    order of its own, and a batch may run over the border of two.

    Args:
        tokens: [n] token ids.
        seq_len: T.
        batch_size: B.
        seed: seed of the orders.

    Raises UserError when the tokens don't fill one window.
    """

    def __init__(self, tokens: np.ndarray, seq_len: int, batch_size: int, seed: int) -> None:
        self.n_windows = (len(tokens) - 1) // seq_len
        if self.n_windows < 1:
            raise UserError(f"the training split has {len(tokens)} tokens, fewer than one sequence of {seq_len + 1}; take more text")
        self.tokens, self.seq_len, self.batch_size, self.seed = tokens, seq_len, batch_size, seed
        self._orders: dict[int, np.ndarray] = {}

    def batch(self, step: int) -> np.ndarray:
        """Batch of `step` (from 0), int64 [B, T + 1]: inputs are [:, :-1], targets [:, 1:]."""
        positions = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epochs, places = np.divmod(positions, self.n_windows)
        windows = np.concatenate([self._order(int(epoch))[places[epochs == epoch]] for epoch in np.unique(epochs)])
        return self.tokens[windows[:, None] * self.seq_len + np.arange(self.seq_len + 1)].astype(np.int64)

    def _order(self, epoch: int) -> np.ndarray:
        if epoch not in self._orders:
            if len(self._orders) > 1:  # a batch needs two at most
                del self._orders[min(self._orders)]
            self._orders[epoch] = np.random.default_rng([self.seed, epoch]).permutation(self.n_windows)
        return self._orders[epoch]


def validation_windows(corpus: Corpus, seq_len: int, max_tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Validation text as whole windows: tokens int64 [n, T + 1] and the document of each target int64 [n, T].

    The beginnings of the documents (`VALIDATION_DOCUMENT_TOKENS`, or T if that is more) stand one after another in the
    order of their hashes. Targets number at most `max_tokens`. Raises UserError when there is not one window.
    """
    limit = max(VALIDATION_DOCUMENT_TOKENS, seq_len)
    starts = corpus.val_doc_starts
    lengths = np.minimum(np.diff(starts), limit)
    ends = lengths.cumsum()
    n = min(max_tokens, int(ends[-1]) - 1) // seq_len
    if n < 1:
        raise UserError(
            f"validation has {int(ends[-1])} tokens and val_tokens is {max_tokens}; both must fill a sequence of {seq_len}: take more text"
        )
    needed = int(np.searchsorted(ends, n * seq_len + 1)) + 1  # documents
    stream = np.concatenate([corpus.val[s : s + length] for s, length in zip(starts[:needed], lengths[:needed], strict=True)])
    document = np.repeat(np.arange(needed), lengths[:needed])
    windows = np.arange(n)[:, None] * seq_len + np.arange(seq_len + 1)
    return stream[windows].astype(np.int64), document[windows[:, 1:]]


def document_windows(corpus: Corpus, seq_len: int, max_tokens: int) -> np.ndarray:
    """Validation documents of at least T tokens, each cut to one window: int64 [n, T + 1].

    The end-of-text that stands before a document in training, then its first T tokens: all of them are targets. Documents come
    in the order of their hashes, as many as hold `max_tokens` (one at least); n is 0 where none is that long.
    """
    starts = corpus.val_doc_starts[:-1][np.diff(corpus.val_doc_starts) >= seq_len][: max(1, max_tokens // seq_len)]
    documents = np.asarray(corpus.val)[starts[:, None] + np.arange(seq_len)].astype(np.int64)
    return np.concatenate([np.full((len(starts), 1), corpus.end_of_text_id), documents], axis=1)
