"""Turns a source of text into a tokenised, memory-mapped corpus, once, and keeps it in the cache."""

import dataclasses
import hashlib
import itertools
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from tokenizers import Tokenizer

from engram.corpus.dataset import FORMAT, OVERLAP_TOKENS, VALIDATION_DOCUMENT_TOKENS, Corpus
from engram.corpus.sources import CorpusSpec, read_documents, source_listing
from engram.corpus.split import Split, split_documents
from engram.corpus.spool import Progress, Spool
from engram.corpus.token_overlap import token_overlap
from engram.errors import UserError
from engram.files import is_full, sync, write_atomically
from engram.foreign_files import read_json
from engram.tokenizer.bpe import check_vocab_size, end_of_text_id, fingerprint, load_tokenizer, train_bpe, vocabulary_size
from engram.tokenizer.compression import compress_vocabulary
from engram.tokenizer.losses import Losses
from engram.tokenizer.plain import plain_ids

TOKENIZER_SAMPLE_BYTES = 32_000_000
"""Bytes of training text that the tokenizer is trained on, at most."""
_FILE_READER = 3
"""Version of how files are read: what an earlier one made of them is not taken from the cache unread."""
_BATCH_DOCUMENTS = 256
_BATCH_BYTES = 4_000_000


def prepare_corpus(spec: CorpusSpec, cache: Path, progress: Progress | None = None, refresh: bool = False) -> Corpus:
    """The corpus of `spec`: from `cache` if it is there, otherwise read, split, tokenised and saved there.

    A corpus is found again by the listing of its files (path, size, times of change), a data set on the hub by its name; `refresh` reads
    the text regardless. Several processes may prepare at once, and any may be killed: a folder that exists is complete.

    Args:
        spec: what text, and how it is tokenised.
        cache: folder for prepared corpora.
        progress: called with a stage, how much of it is done, and how much there is.
        refresh: whether to read the text even if the corpus is in the cache.

    Raises UserError for whatever is wrong with the source, the tokenizer or the cache.
    """
    report = progress or (lambda stage, done, total: None)
    tokenizer = _given_tokenizer(spec)
    root = cache.expanduser().absolute() / "corpora"
    request = _request_key(spec, tokenizer)
    entry = root / "requests" / f"{request}.json"
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        # One process at a time for each request; the lock is released when its process ends.
        with _lock(root, request):
            folder = None if refresh else _known(entry, root, spec)
            if folder is None:
                folder = _build(spec, root, request, tokenizer, report)
                write_atomically(entry, json.dumps({"folder": folder.name}).encode())
            return Corpus.open(folder)
    except OSError as problem:
        helps = "make room there, or choose another cache folder" if is_full(problem) else "choose another cache folder"
        raise UserError(f"the cache {cache} can't be used: {problem.strerror or problem}; {helps}") from None


def open_again(folder: Path, spec: CorpusSpec) -> Corpus:
    """A corpus that `prepare_corpus` has made, prepared once more if somebody has deleted it from the cache since.

    UserError when the text or the tokenizer is no longer the same.
    """
    try:
        return Corpus.open(folder)
    except UserError:
        corpus = prepare_corpus(spec, folder.parents[1])
    if corpus.folder != folder:
        raise UserError(
            f"corpus {folder} has been deleted, and {spec.source} is no longer the text or the tokenizer that it was made of, or"
            " an earlier version divided it into training and validation"
        )
    return corpus


def _given_tokenizer(spec: CorpusSpec) -> Tokenizer | None:
    if spec.tokenizer is not None:
        return load_tokenizer(spec.tokenizer)
    check_vocab_size(spec.vocab_size)
    return None


def _request_key(spec: CorpusSpec, tokenizer: Tokenizer | None) -> str:
    asked: dict[str, Any] = {"format": FORMAT, "spec": spec.model_dump(mode="json"), "files": source_listing(spec)}
    if spec.source.startswith("files:"):
        asked["reader"] = _FILE_READER
    if tokenizer is not None:
        asked["tokenizer"] = fingerprint(tokenizer)
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:24]


def _known(entry: Path, root: Path, spec: CorpusSpec) -> Path | None:
    """The folder that an earlier preparation wrote, if it and its entry still exist."""
    try:
        name = read_json(entry)["folder"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not isinstance(name, str) or "\0" in name or name != Path(name).name:
        return None
    return root / name if _whole(root / name, spec) else None


def _whole(folder: Path, spec: CorpusSpec) -> bool:
    """Whether a folder exists, is undamaged and has the current format.

    With a tokenizer of the user's, what it lost must be known too: before that was counted, an end token spelled out in a text was taken
    for the end of a document.
    """
    try:
        meta = Corpus.open(folder).meta
    except UserError:
        return False
    return spec.tokenizer is None or "unknown_tokens" in meta


def _lock(root: Path, request: str) -> FileLock:
    return FileLock(root / "requests" / f"{request}.lock")


def _temporary(root: Path, request: str) -> Path:
    return root / f".{request}.tmp"


def _remove_left_behind(root: Path, request: str) -> None:
    """Remove temporary folders of killed processes: those of this request, whose lock we hold, and those whose lock is free."""
    shutil.rmtree(_temporary(root, request), ignore_errors=True)
    for folder in root.glob(_temporary(root, "*").name):
        other = folder.name[1 : -len(".tmp")]
        try:
            with _lock(root, other).acquire(timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
        except Timeout:
            continue


def _build(spec: CorpusSpec, root: Path, request: str, tokenizer: Tokenizer | None, report: Progress) -> Path:
    _remove_left_behind(root, request)
    temporary = _temporary(root, request)
    temporary.mkdir()
    try:
        skipped: Counter[str] = Counter()
        spool = Spool(temporary / "text", read_documents(spec, skipped), spec.max_bytes, report)
        split = split_documents(spool, spec.val_fraction, report)
        choice = fingerprint(tokenizer) if tokenizer else f"bpe {spec.vocab_size}"
        name = split.fingerprint(spool, spec.val_fraction)[:16]
        target = root / f"{name}-{hashlib.sha256(choice.encode()).hexdigest()[:8]}"
        if _whole(target, spec):
            return target
        if tokenizer is None:
            report("training the tokenizer", 0, None)
            tokenizer = train_bpe(_sample(spool, split.train), spec.vocab_size)
        folder = temporary / "corpus"
        folder.mkdir()
        try:
            _write_corpus(folder, spool, split, spec, tokenizer, skipped, report)
        except UserError as problem:
            if spec.tokenizer is None:
                raise
            raise UserError(f"tokenizer {spec.tokenizer}: {problem}") from None
        if not _whole(target, spec):
            shutil.rmtree(target, ignore_errors=True)
        try:
            folder.rename(target)
        except OSError:  # another request for the same text finished first
            if not _whole(target, spec):
                raise
        return target
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sample(spool: Spool, numbers: Sequence[int]) -> Iterator[str]:
    """The first documents, up to `TOKENIZER_SAMPLE_BYTES` but at least one."""
    sizes = itertools.accumulate(spool.size(number) for number in numbers)
    kept = sum(1 for _ in itertools.takewhile(lambda size: size <= TOKENIZER_SAMPLE_BYTES, sizes))
    return spool.texts(numbers[: max(1, kept)])


def _write_corpus(
    folder: Path,
    spool: Spool,
    split: Split,
    spec: CorpusSpec,
    tokenizer: Tokenizer,
    skipped: Counter[str],
    report: Progress,
) -> None:
    train, val = split.train, split.val
    losses = Losses(tokenizer)
    vocab_size, end = vocabulary_size(tokenizer), end_of_text_id(tokenizer)
    dtype = np.dtype(np.uint16 if vocab_size <= 2**16 else np.uint32)
    total = sum(map(spool.size, itertools.chain(train, val)))
    done = 0
    starts = {}
    for name, numbers in (("val", val), ("train", train)):
        ends = [0]
        with (folder / f"{name}.bin").open("wb") as file:
            for batch in spool.batches(numbers, _BATCH_BYTES, _BATCH_DOCUMENTS):
                texts = list(spool.texts(batch))
                encoded = plain_ids(tokenizer, texts)
                if spec.tokenizer is not None:  # one that is trained here loses nothing
                    losses.add(texts, encoded)
                for ids in encoded:
                    file.write(np.array([*ids, end], dtype=dtype).tobytes())
                    ends.append(ends[-1] + len(ids) + 1)
                done += sum(map(spool.size, batch))
                report("tokenising", done, total)
        starts[name] = np.array(ends, dtype=np.int64)
    report("comparing tokens", 0, None)
    tokens = {name: np.memmap(folder / f"{name}.bin", dtype=dtype, mode="r") for name in starts}
    overlaps = {
        n: token_overlap(tokens["train"], tokens["val"], starts["val"], VALIDATION_DOCUMENT_TOKENS, vocab_size, n)
        for n in (16, OVERLAP_TOKENS)
    }
    counted = np.minimum(np.diff(starts["val"]), VALIDATION_DOCUMENT_TOKENS)
    compression = compress_vocabulary(tokenizer)
    (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
    for name, array in {
        "compression": compression,
        "train_docs": starts["train"],
        "val_docs": starts["val"],
        "val_doc_bytes": np.array([spool.size(number) for number in val], dtype=np.int64),
        "val_doc_overlap": overlaps[OVERLAP_TOKENS],
        "val_doc_ids": np.array([spool.digests[number].hex()[:16] for number in val]),
    }.items():
        # Neither NumPy nor `tokenizer.save` says why a disk refuses, so the files are written here.
        content = BytesIO()
        np.save(content, array)
        (folder / f"{name}.npy").write_bytes(content.getbuffer())
    meta = {
        "format": FORMAT,
        "spec": spec.model_dump(mode="json"),
        "corpus_fingerprint": split.fingerprint(spool, spec.val_fraction),
        "tokenizer_fingerprint": fingerprint(tokenizer),
        "vocab_size": vocab_size,
        "compressed_vocab_size": int(compression.max()) + 1,
        "end_of_text_id": end,
        "dtype": dtype.name,
        "train_documents": len(train),
        "val_documents": len(val),
        "read_documents": spool.read,
        "duplicate_documents": spool.duplicates,
        "blank_documents": spool.blank,
        "train_bytes": sum(map(spool.size, train)),
        "val_bytes": sum(map(spool.size, val)),
        "train_tokens": int(starts["train"][-1]),
        "val_tokens": int(starts["val"][-1]),
        "unknown_token": losses.token,
        "unknown_tokens": losses.unknown,
        "changed_documents": losses.changed,
        "skipped_files": dict(skipped),
        **dataclasses.asdict(split.facts),
        **{f"val_overlap_{n}": float((share * counted).sum() / counted.sum()) for n, share in overlaps.items()},
    }
    (folder / "meta.json").write_text(json.dumps(meta, indent=2))
    for path in folder.iterdir():
        sync(path)
    sync(folder)
