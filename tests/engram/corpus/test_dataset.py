import json
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engram.corpus.dataset import VALIDATION_DOCUMENT_TOKENS, Corpus, TrainBatches, validation_windows
from engram.errors import UserError


@given(n=st.integers(9, 300), seq_len=st.integers(1, 8), batch_size=st.integers(1, 70), seed=st.integers(0, 5))
def test_an_epoch_has_every_window_once(n, seq_len, batch_size, seed):
    tokens = np.arange(n, dtype=np.uint16)
    batches = TrainBatches(tokens, seq_len, batch_size, seed)
    windows = (n - 1) // seq_len
    assert batches.n_windows == windows
    epochs = 3
    steps = -(-epochs * windows // batch_size)
    rows = np.concatenate([batches.batch(step) for step in range(steps)])[: epochs * windows]
    assert rows.dtype == np.int64
    assert (rows == rows[:, :1] + np.arange(seq_len + 1)).all()
    for epoch in range(epochs):
        starts = rows[epoch * windows : (epoch + 1) * windows, 0]
        assert sorted(starts) == [i * seq_len for i in range(windows)]


def test_a_batch_depends_on_seed_and_step_only():
    tokens = np.arange(1000, dtype=np.uint32)
    straight = TrainBatches(tokens, 10, 7, seed=3)
    expected = [straight.batch(step) for step in range(60)]
    for step in (59, 0, 31, 14, 15):
        np.testing.assert_array_equal(TrainBatches(tokens, 10, 7, seed=3).batch(step), expected[step])
        np.testing.assert_array_equal(straight.batch(step), expected[step])
    assert (TrainBatches(tokens, 10, 7, seed=4).batch(0) != expected[0]).any()
    order = np.concatenate(expected)[:, 0]
    assert (order[:99] != order[99:198]).any()  # another epoch, another order


def test_too_few_tokens_for_a_window():
    assert TrainBatches(np.arange(9), 8, 2, 0).batch(0).shape == (2, 9)
    with pytest.raises(UserError, match="8 tokens, fewer than one sequence of 9"):
        TrainBatches(np.arange(8), 8, 2, 0)


def validation(lengths):
    starts = np.cumsum([0, *lengths])
    return SimpleNamespace(val=np.arange(starts[-1], dtype=np.uint32), val_doc_starts=starts)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=20), st.integers(1, 30), st.integers(1, 400))
def test_validation_windows_run_through_the_documents(lengths, seq_len, max_tokens):
    corpus = validation(lengths)
    n = min(sum(lengths) - 1, max_tokens) // seq_len
    if n == 0:
        with pytest.raises(UserError, match="take more text"):
            validation_windows(corpus, seq_len, max_tokens)
        return
    windows, documents = validation_windows(corpus, seq_len, max_tokens)
    assert windows.shape == (n, seq_len + 1)
    assert documents.shape == (n, seq_len)
    assert (windows.dtype, documents.dtype) == (np.int64, np.int64)
    # Tokens are their own positions here, so each target tells its document.
    np.testing.assert_array_equal(windows[:, 1:].ravel(), np.arange(1, n * seq_len + 1))
    np.testing.assert_array_equal(documents, np.searchsorted(corpus.val_doc_starts, windows[:, 1:], side="right") - 1)


def test_a_long_document_gives_its_beginning_only():
    limit = VALIDATION_DOCUMENT_TOKENS
    corpus = validation([limit * 5, 10, limit * 3])
    windows, documents = validation_windows(corpus, 16, 10**9)
    assert np.bincount(documents.ravel())[:2].tolist() == [limit - 1, 10]
    assert windows.max() < limit * 5 + 10 + limit
    windows, _ = validation_windows(corpus, limit * 2, 10**9)  # a longer sequence takes longer beginnings
    np.testing.assert_array_equal(windows[0, :-1], np.arange(limit * 2))


def _changed(name, change):
    def spoil(folder):
        np.save(folder / name, change(np.load(folder / name)))

    return spoil


def _meta(**changes):
    def spoil(folder):
        (folder / "meta.json").write_text(json.dumps(json.loads((folder / "meta.json").read_text()) | changes))

    return spoil


def _replaced(name, make):
    def spoil(folder):
        (folder / name).unlink()
        make(folder / name)

    return spoil


def _token_too_large(folder):
    tokens = np.fromfile(folder / "train.bin", dtype=np.uint16)
    tokens[7] = 60_000
    tokens.tofile(folder / "train.bin")


@pytest.mark.parametrize(
    "spoil",
    [
        _meta(dtype="object"), _meta(dtype=[]), _meta(vocab_size="many"), _meta(vocab_size=7), _meta(end_of_text_id=-1),
        _meta(corpus_fingerprint=None), _meta(train_tokens=1), _meta(val_documents=1), _meta(compressed_vocab_size=3),
        _changed("compression.npy", lambda ids: ids - 1), _changed("compression.npy", lambda ids: ids.astype(float)),
        _changed("val_docs.npy", lambda starts: starts[::-1]), _changed("train_docs.npy", lambda starts: starts * 2),
        _changed("train_docs.npy", lambda starts: starts[:0]), _changed("val_doc_bytes.npy", lambda sizes: -sizes),
        _changed("val_doc_ids.npy", lambda ids: ids[:-1]), _token_too_large, _changed("val_doc_overlap.npy", lambda shares: shares[1:]),
        _changed("val_doc_overlap.npy", lambda shares: shares - 1), _changed("val_doc_overlap.npy", lambda shares: shares * np.nan),
        _changed("val_doc_overlap.npy", lambda shares: shares.astype(int)), _replaced("val_doc_overlap.npy", os.mkfifo),
        _replaced("meta.json", lambda path: path.write_text("[" * 100_000)), _replaced("meta.json", lambda path: path.write_text("[]")),
        _replaced("val_docs.npy", lambda path: path.touch()), _replaced("train.bin", os.mkfifo), _replaced("val_doc_ids.npy", os.mkdir),
        _replaced("tokenizer.json", os.mkfifo),
        _replaced("compression.npy", lambda path: path.write_bytes(b"\x93NUMPY\x01\x00\x10\x00{'descr': (       ")),
    ],
)  # fmt: skip
def test_a_folder_that_is_no_whole_corpus_is_one_line(tiny_corpus, tmp_path, spoil):
    folder = shutil.copytree(tiny_corpus.folder, tmp_path / "corpus")
    Corpus.open(folder)
    spoil(folder)
    with pytest.raises(UserError, match="is not a prepared corpus that can be read here") as mistake:
        Corpus.open(folder)
    assert "\n" not in str(mistake.value)


def _of_format(folder, number):
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**meta, "format": number}))


def test_a_folder_of_the_first_format_is_read_and_does_not_know_its_overlap(tiny_corpus, tmp_path):
    folder = shutil.copytree(tiny_corpus.folder, tmp_path / "corpus")
    _of_format(folder, 1)
    (folder / "val_doc_overlap.npy").unlink()
    old = Corpus.open(folder)
    assert old.val_doc_overlap is None
    assert (old.fingerprint, old.val_doc_ids.tolist()) == (tiny_corpus.fingerprint, tiny_corpus.val_doc_ids.tolist())
    _of_format(folder, 3)
    with pytest.raises(UserError, match="has format 3, this program reads 1 and 2; prepare it again"):
        Corpus.open(folder)
