"""A prepared corpus on disk, and the batches that training and validation take from it."""

import tokenize
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypedDict

import numpy as np
from tokenizers import Tokenizer

from engram.errors import UserError
from engram.foreign_files import MOST_BYTES, read_bytes, read_json, require_regular

FORMAT = 2
"""Version of the folder's layout that is written.

1 is read too: it has no `val_doc_overlap`, and much of its validation text may stand in training.
"""
_READABLE = (1, FORMAT)
VALIDATION_DOCUMENT_TOKENS = 1024
"""Tokens taken at most from the beginning of a validation document (or a sequence, if longer): a few long files must not dominate."""
OVERLAP_TOKENS = 32
"""Length of the n-grams that `val_doc_overlap` is about."""

_ARRAYS = ("compression.npy", "train.bin", "train_docs.npy", "val.bin", "val_docs.npy", "val_doc_bytes.npy", "val_doc_ids.npy")
_DTYPES: dict[str, Any] = {"uint16": np.dtype(np.uint16), "uint32": np.dtype(np.uint32)}


class Fingerprints(TypedDict):
    """The fields by which a `TrialConfig` names its corpus."""

    corpus_fingerprint: str
    tokenizer_fingerprint: str


@dataclass(frozen=True, eq=False)
class Corpus:
    """A tokenised corpus. Tokens are memory-mapped, and so shared by all processes of a machine."""

    folder: Path
    fingerprint: str
    """SHA-256 of the documents in order and of the split."""
    tokenizer_fingerprint: str
    vocab_size: int
    compressed_vocab_size: int
    end_of_text_id: int
    compression: np.ndarray
    """Canonical id of each token, int64 [V]."""
    train: np.ndarray
    """Training documents one after another, each followed by end-of-text, uint16 or uint32 [n]."""
    train_doc_starts: np.ndarray
    """First token of each training document, and the end of the last, int64 [documents + 1]."""
    val: np.ndarray
    """Validation documents in the same form, in the order of their hashes, so that the first few are a random sample."""
    val_doc_starts: np.ndarray
    """First token of each validation document, and the end of the last, int64 [documents + 1]."""
    val_doc_bytes: np.ndarray
    """UTF-8 bytes of each validation document, int64 [documents]."""
    val_doc_ids: np.ndarray
    """16 hexadecimal digits of each validation document's hash."""
    val_doc_overlap: np.ndarray | None
    """Share of each validation document's first `VALIDATION_DOCUMENT_TOKENS` tokens that lie in an exact n-gram of training tokens,
    n = `OVERLAP_TOKENS`, float64 [documents]; None where the folder has format 1."""
    tokenizer_json: bytes
    """The tokenizer that made the tokens. It is read with the rest: what is mapped outlives a cache that is deleted meanwhile."""
    meta: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Map a prepared corpus; UserError when the folder is not a complete corpus of this format."""
        try:
            meta = read_json(folder / "meta.json")
            if meta["format"] not in _READABLE:
                readable = " and ".join(map(str, _READABLE))
                raise UserError(f"corpus {folder} has format {meta['format']}, this program reads {readable}; prepare it again")
            has_overlap = meta["format"] > 1
            for name in (*_ARRAYS, "val_doc_overlap.npy") if has_overlap else _ARRAYS:
                require_regular(folder / name, most=None)
            dtype = _DTYPES[meta["dtype"]]
            corpus = cls(
                folder=folder,
                fingerprint=meta["corpus_fingerprint"],
                tokenizer_fingerprint=meta["tokenizer_fingerprint"],
                vocab_size=meta["vocab_size"],
                compressed_vocab_size=meta["compressed_vocab_size"],
                end_of_text_id=meta["end_of_text_id"],
                compression=_array(folder / "compression.npy"),
                train=np.memmap(folder / "train.bin", dtype=dtype, mode="r"),
                train_doc_starts=_array(folder / "train_docs.npy", mmap_mode="r"),
                val=np.memmap(folder / "val.bin", dtype=dtype, mode="r"),
                val_doc_starts=_array(folder / "val_docs.npy"),
                val_doc_bytes=_array(folder / "val_doc_bytes.npy"),
                val_doc_ids=_array(folder / "val_doc_ids.npy"),
                val_doc_overlap=_array(folder / "val_doc_overlap.npy") if has_overlap else None,
                tokenizer_json=read_bytes(folder / "tokenizer.json"),
                meta=meta,
            )
            corpus._check()
            return corpus
        except UserError:
            raise
        except (OSError, EOFError, ValueError, KeyError, TypeError) as problem:
            raise UserError(f"{folder} is not a prepared corpus that can be read here ({type(problem).__name__}: {problem})") from None

    def _check(self) -> None:
        """ValueError or TypeError unless everything fits together, so that no place in a file leads out of another."""
        if not isinstance(self.fingerprint, str) or not isinstance(self.tokenizer_fingerprint, str):
            raise TypeError("a fingerprint in meta.json is no text")
        if not 0 <= self.end_of_text_id < self.vocab_size or self.compression.shape != (self.vocab_size,):
            raise ValueError("meta.json and compression.npy have vocabularies of different sizes")
        if self.compression.dtype != np.int64 or not 0 <= self.compression.min() <= self.compression.max() < self.compressed_vocab_size:
            raise ValueError("compression.npy has no canonical ids")
        for name, tokens, starts in (("train", self.train, self.train_doc_starts), ("val", self.val, self.val_doc_starts)):
            if len(tokens) != self.meta[f"{name}_tokens"]:
                raise ValueError(f"{name}.bin has {len(tokens)} tokens instead of {self.meta[f'{name}_tokens']}")
            if starts.dtype != np.int64 or starts.ndim != 1 or len(starts) != self.meta[f"{name}_documents"] + 1:
                raise ValueError(f"{name}_docs.npy does not have the place of every document")
            if starts[0] != 0 or starts[-1] != len(tokens) or (np.diff(starts) < 1).any():
                raise ValueError(f"{name}_docs.npy does not divide {name}.bin into documents")
            if tokens.nbytes <= MOST_BYTES and int(tokens.max()) >= self.vocab_size:  # a larger one would take a while to look through
                raise ValueError(f"{name}.bin has a token that is not in the vocabulary")
        if self.val_doc_bytes.dtype != np.int64 or not len(self.val_doc_bytes) == len(self.val_doc_ids) == len(self.val_doc_starts) - 1:
            raise ValueError("val_doc_bytes.npy and val_doc_ids.npy do not have every document")
        if (
            self.val_doc_bytes.ndim != 1
            or (self.val_doc_bytes < 1).any()
            or self.val_doc_ids.dtype.kind != "U"
            or self.val_doc_ids.ndim != 1
        ):
            raise ValueError("val_doc_bytes.npy or val_doc_ids.npy has other values")
        overlap = self.val_doc_overlap
        if overlap is not None and (
            overlap.dtype != np.float64 or overlap.shape != self.val_doc_bytes.shape or not ((overlap >= 0) & (overlap <= 1)).all()
        ):
            raise ValueError("val_doc_overlap.npy does not have a share of every document")

    @property
    def fingerprints(self) -> Fingerprints:
        """The two fingerprints as fields of a `TrialConfig`."""
        return {"corpus_fingerprint": self.fingerprint, "tokenizer_fingerprint": self.tokenizer_fingerprint}

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that made the tokens."""
        return Tokenizer.from_str(self.tokenizer_json.decode())


class TrainBatches:
    """Training batches as a pure function of seed and step, so that a resumed run needs no state.

    Windows of T + 1 tokens start every T tokens, so no target is seen twice in an epoch. Each epoch has its own order, and a batch may
    straddle two epochs.

    Args:
        tokens: token ids [n].
        seq_len: tokens per sequence (T).
        batch_size: sequences per batch (B).
        seed: of the orders.

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
            if len(self._orders) > 1:  # a batch needs at most two
                del self._orders[min(self._orders)]
            self._orders[epoch] = np.random.default_rng([self.seed, epoch]).permutation(self.n_windows)
        return self._orders[epoch]


def validation_windows(corpus: Corpus, seq_len: int, max_tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Validation text as whole windows: tokens int64 [n, T + 1] and the document of each target int64 [n, T].

    The beginnings of the documents (`VALIDATION_DOCUMENT_TOKENS`, or T if that is more) are joined in the order of their hashes. There are
    at most `max_tokens` targets. Raises UserError when they don't fill one window.
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

    A window is the end-of-text token that precedes a document in training, then the document's first T tokens, all of which are targets.
    Documents come in the order of their hashes, up to `max_tokens` in all (at least one); n is 0 if none is long enough.
    """
    starts = corpus.val_doc_starts[:-1][np.diff(corpus.val_doc_starts) >= seq_len][: max(1, max_tokens // seq_len)]
    documents = np.asarray(corpus.val)[starts[:, None] + np.arange(seq_len)].astype(np.int64)
    return np.concatenate([np.full((len(starts), 1), corpus.end_of_text_id), documents], axis=1)


def _array(path: Path, mmap_mode: Literal["r"] | None = None) -> np.ndarray:
    """An array from a file; EOFError, OSError or ValueError when it holds none."""
    try:
        array: np.ndarray = np.load(path, mmap_mode=mmap_mode)
    except (SyntaxError, tokenize.TokenError) as problem:  # the header is Python
        raise ValueError(f"{path.name} has no header of an array: {problem}") from None
    return array
