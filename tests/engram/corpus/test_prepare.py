import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from engram.cache import default_cache
from engram.corpus.dataset import Corpus
from engram.corpus.document import Document
from engram.corpus.prepare import prepare_corpus
from engram.corpus.sources import CorpusSpec
from engram.corpus.split import split_documents
from engram.corpus.spool import Spool
from engram.errors import UserError
from engram.tokenizer.bpe import fingerprint, train_bpe

FILES = {
    "compression.npy",
    "meta.json",
    "tokenizer.json",
    "train.bin",
    "train_docs.npy",
    "val.bin",
    "val_doc_bytes.npy",
    "val_doc_ids.npy",
    "val_doc_overlap.npy",
    "val_docs.npy",
}
# A process that prepares a corpus slowly enough to be met in the middle.
SCRIPT = """
import json, sys, time
from pathlib import Path
from engram.corpus.prepare import prepare_corpus
from engram.corpus.sources import CorpusSpec
spec, cache, stage = CorpusSpec(**json.loads(sys.argv[1])), Path(sys.argv[2]), sys.argv[3]
def progress(name, done, total):
    if name == stage:
        print("here", flush=True)
        time.sleep(float(sys.argv[4]))
corpus = prepare_corpus(spec, cache, progress)
print(json.dumps([str(corpus.folder), corpus.meta]), flush=True)
"""


def preparing(spec, cache, stage="", pause=0.0):
    arguments = [spec.model_dump_json(), str(cache), stage, str(pause)]
    return subprocess.Popen([sys.executable, "-c", SCRIPT, *arguments], stdout=subprocess.PIPE, text=True)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def corpus_folders(cache):
    return [path for path in (cache / "corpora").iterdir() if path.name != "requests"]


def decoded(corpus):
    """Texts of the training and of the validation documents."""
    tokenizer = corpus.tokenizer()
    train_starts = np.load(corpus.folder / "train_docs.npy")
    return [
        [tokenizer.decode(tokens[a : b - 1].tolist(), skip_special_tokens=False) for a, b in itertools.pairwise(starts)]
        for tokens, starts in ((corpus.train, train_starts), (corpus.val, corpus.val_doc_starts))
    ]


def test_every_document_is_there_once_and_whole(corpus, texts):
    train, val = decoded(corpus)
    assert sorted(train + val) == sorted(path.read_text() for path in texts.iterdir())
    ends = np.concatenate([corpus.train[np.load(corpus.folder / "train_docs.npy")[1:] - 1], corpus.val[corpus.val_doc_starts[1:] - 1]])
    assert set(ends.tolist()) == {corpus.end_of_text_id}
    assert corpus.val_doc_bytes.tolist() == [len(text.encode()) for text in val]
    assert corpus.val_doc_ids.tolist() == sorted(corpus.val_doc_ids.tolist())
    assert {path.name for path in corpus.folder.iterdir()} == FILES


def test_the_facts_agree(corpus):
    meta = corpus.meta
    assert (meta["train_tokens"], meta["val_tokens"]) == (len(corpus.train), len(corpus.val))
    assert meta["train_documents"] + meta["val_documents"] == 60
    assert corpus.vocab_size == len(corpus.compression)
    assert corpus.compressed_vocab_size == corpus.compression.max() + 1 < corpus.vocab_size
    assert fingerprint(corpus.tokenizer()) == corpus.tokenizer_fingerprint
    assert corpus.train.dtype == np.uint16


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=4), min_size=1, max_size=60), st.floats(0.1, 0.9))
def test_no_text_is_twice_or_in_both_splits(tmp_path, documents, val_fraction):
    kept = list(dict.fromkeys(text for text in documents if text.strip()))
    try:
        spool = Spool(tmp_path / "text", map(Document, documents), 10_000, lambda *_: None)
        split = split_documents(spool, val_fraction, lambda *_: None)
    except UserError:
        assert len(kept) < 2
        return
    assert list(spool.texts(range(len(kept)))) == kept
    assert len(split.train) + len(split.val) + split.facts.overlap_documents == len(kept)
    assert split.train
    assert split.val
    assert not {kept[number] for number in split.train} & {kept[number] for number in split.val}
    assert spool.duplicates + spool.blank + len(kept) == len(documents)


def test_reading_ends_at_max_bytes(tmp_path):
    read = []

    def documents():
        for i in range(100):
            read.append(i)
            yield Document(f"document {i:02d}")  # 11 bytes

    spool = Spool(tmp_path / "text", documents(), 50, lambda *_: None)
    assert len(spool.digests) == 4
    assert len(read) == 5
    with pytest.raises(UserError, match="the first document has 11 bytes, more than the 10"):
        Spool(tmp_path / "text", documents(), 10, lambda *_: None)


def test_text_that_looks_like_a_special_token_stays_text(tmp_path, write_texts):
    folder = write_texts(tmp_path / "texts", 20)
    for i in range(20):
        (folder / f"special{i}.txt").write_text(f"before <|endoftext|> after {i}")
    corpus = prepare_corpus(CorpusSpec(source=f"files:{folder}/*", vocab_size=300, val_fraction=0.3), tmp_path / "cache")
    assert int((corpus.train == corpus.end_of_text_id).sum()) == corpus.meta["train_documents"]
    train, val = decoded(corpus)
    assert "before <|endoftext|> after 7" in train + val


def test_a_second_call_reads_nothing_until_a_file_changes(tmp_path, write_texts):
    folder = write_texts(tmp_path / "texts")
    spec = CorpusSpec(source=f"files:{folder}/*.txt", vocab_size=300, val_fraction=0.3)
    stages: list[str] = []
    first = prepare_corpus(spec, tmp_path / "cache", lambda stage, *_: stages.append(stage))
    assert {"reading text", "training the tokenizer", "tokenising"} <= set(stages)
    stages.clear()
    again = prepare_corpus(spec, tmp_path / "cache", lambda stage, *_: stages.append(stage))
    assert again.folder == first.folder
    assert not stages
    assert prepare_corpus(spec, tmp_path / "cache", lambda stage, *_: stages.append(stage), refresh=True).folder == first.folder
    assert set(stages) == {"reading text", "comparing documents", "comparing the two sides"}  # the same text: the tokens are there
    (folder / "0000.txt").write_text("something else altogether")
    changed = prepare_corpus(spec, tmp_path / "cache")
    assert changed.fingerprint != first.fingerprint
    assert len(corpus_folders(tmp_path / "cache")) == 2


def test_the_same_text_elsewhere_is_the_same_corpus(tmp_path, write_texts, corpus):
    folder = write_texts(tmp_path / "other place")
    spec = CorpusSpec(source=f"files:{folder}/**", vocab_size=300, val_fraction=0.3)
    other = prepare_corpus(spec, tmp_path / "cache")
    assert (other.fingerprint, other.tokenizer_fingerprint) == (corpus.fingerprint, corpus.tokenizer_fingerprint)
    assert contents(other.folder) | {"meta.json": b""} == contents(corpus.folder) | {"meta.json": b""}
    assert prepare_corpus(spec.model_copy(update={"val_fraction": 0.4}), tmp_path / "cache").fingerprint != corpus.fingerprint


def test_a_given_tokenizer_and_its_changes(tmp_path, texts):
    path = tmp_path / "tokenizer.json"
    spec = CorpusSpec(source=f"files:{texts}/*.txt", tokenizer=str(path), val_fraction=0.3)
    made = []
    for vocab_size in (260, 270):
        tokenizer = train_bpe(["alpha beta Gamma delta epsilon Zeta eta theta document"] * 5, vocab_size)
        tokenizer.save(str(path))
        made.append(prepare_corpus(spec, tmp_path / "cache"))
        assert made[-1].tokenizer_fingerprint == fingerprint(tokenizer)
    assert made[0].fingerprint == made[1].fingerprint
    assert made[0].folder != made[1].folder


@pytest.mark.parametrize("damage", ["meta", "tokens"])
def test_a_damaged_corpus_is_made_again(tmp_path, spec, corpus, damage):
    folder = prepare_corpus(spec, tmp_path).folder
    if damage == "meta":
        (folder / "meta.json").unlink()
    else:
        (folder / "train.bin").write_bytes((folder / "train.bin").read_bytes()[:-2])
    with pytest.raises(UserError, match="is not a prepared corpus"):
        Corpus.open(folder)
    assert contents(prepare_corpus(spec, tmp_path).folder) == contents(corpus.folder)


def test_mistakes(tmp_path, write_texts, monkeypatch):
    folder = write_texts(tmp_path / "texts", 1)
    spec = CorpusSpec(source=f"files:{folder}/*.txt", vocab_size=300)
    with pytest.raises(UserError, match="has one document and nothing for validation; take more"):
        prepare_corpus(spec, tmp_path / "cache")
    with pytest.raises(UserError, match="at least 257"):
        prepare_corpus(spec.model_copy(update={"vocab_size": 100}), tmp_path / "cache")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cache .* can't be used"):
        prepare_corpus(spec, tmp_path / "file")
    (tmp_path / "blank.txt").write_text(" \n")
    with pytest.raises(UserError, match="the corpus is empty"):
        prepare_corpus(CorpusSpec(source=f"files:{tmp_path}/blank.txt"), tmp_path / "cache")
    with pytest.raises(UserError, match="is not a prepared corpus"):
        Corpus.open(tmp_path / "nothing")
    assert not corpus_folders(tmp_path / "cache")
    monkeypatch.setenv("ENGRAMCTL_CACHE", str(tmp_path))
    assert default_cache() == tmp_path


def test_two_processes_at_once_make_one_corpus(tmp_path, spec, corpus):
    first = preparing(spec, tmp_path, "training the tokenizer", 2.0)
    assert first.stdout.readline() == "here\n"
    second = preparing(spec, tmp_path, "training the tokenizer", 2.0)
    answers = [json.loads(process.communicate(timeout=60)[0]) for process in (first, second)]  # "here" of the second would not parse
    assert [first.returncode, second.returncode] == [0, 0]
    assert answers[0] == answers[1]
    assert len(corpus_folders(tmp_path)) == 1
    assert contents(Corpus.open(corpus_folders(tmp_path)[0]).folder) == contents(corpus.folder)


@pytest.mark.parametrize("stage", ["reading text", "comparing the two sides", "training the tokenizer", "tokenising"])
def test_a_killed_preparation_leaves_nothing_that_counts(tmp_path, spec, corpus, stage):
    killed = preparing(spec, tmp_path, stage, 60.0)
    assert killed.stdout.readline() == "here\n"
    killed.send_signal(signal.SIGKILL)
    killed.wait(timeout=10)
    left = corpus_folders(tmp_path)
    assert [path.name[0] for path in left] == ["."]
    # Another request clears it away too: the killed one may never be asked for again.
    prepare_corpus(spec.model_copy(update={"vocab_size": 290}), tmp_path)
    assert not left[0].exists()
    started = time.monotonic()
    assert contents(prepare_corpus(spec, tmp_path).folder) == contents(corpus.folder)
    assert time.monotonic() - started < 20
    assert all(not path.name.startswith(".") for path in corpus_folders(tmp_path))


def test_the_temporary_folder_of_a_living_preparation_stays(tmp_path, spec, corpus):
    living = preparing(spec, tmp_path, "training the tokenizer", 3.0)
    assert living.stdout.readline() == "here\n"
    prepare_corpus(spec.model_copy(update={"vocab_size": 290}), tmp_path)
    folder, _ = json.loads(living.communicate(timeout=60)[0])
    assert living.returncode == 0
    assert contents(tmp_path / "corpora" / folder) == contents(corpus.folder)


def test_the_end_token_spelled_out_in_html_ends_no_document(tmp_path):
    letters = sorted(set("</sdocument>0123456789▁"))
    tokenizer = Tokenizer(models.Unigram([("<unk>", 0.0), ("</s>", 0.0), *((letter, -2.0) for letter in letters)], unk_id=0))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    written = [f"<s>document {i}</s></s>" for i in range(50)]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in written))
    spec = CorpusSpec(source=f"files:{tmp_path}/x.jsonl", tokenizer=str(tmp_path / "tokenizer.json"), val_fraction=0.3)
    corpus = prepare_corpus(spec, tmp_path / "cache")
    assert sum((tokens == corpus.end_of_text_id).sum() for tokens in (corpus.train, corpus.val)) == len(written)
    assert sorted(itertools.chain(*decoded(corpus))) == sorted(written)


def test_a_tokenizer_that_can_not_encode_the_text_is_named(tmp_path, texts):
    tokenizer = Tokenizer(models.WordLevel({"</s>": 0, "report": 1}, unk_token="<unk>"))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    spec = CorpusSpec(source=f"files:{texts}/*.txt", tokenizer=str(tmp_path / "tokenizer.json"), val_fraction=0.3)
    with pytest.raises(UserError, match=r"tokenizer .*tokenizer\.json: .*can't encode this text: .*Missing") as caught:
        prepare_corpus(spec, tmp_path / "cache")
    assert "\n" not in str(caught.value)


def test_a_full_cache_is_one_line_at_every_file_and_the_same_call_goes_on(text_folder, tmp_path, small_disk):
    """Every file of a corpus, the spooled text before it and the note of the request after it is the one that does not fit."""
    spec = CorpusSpec(source=f"files:{text_folder}/00[0-3]*.txt", vocab_size=300, val_fraction=0.2)
    whole = prepare_corpus(spec, tmp_path / "whole")
    disk, refused, left = small_disk("4k"), set(), set()
    for pages in itertools.count(1):
        disk.remount(f"size={4 * pages}k")
        try:
            corpus = prepare_corpus(spec, disk.folder)
            break
        except UserError as problem:
            refused.add(str(problem))
            left.update(disk.files())
    assert refused == {f"the cache {disk.folder} can't be used: No space left on device; make room there, or choose another cache folder"}
    # A corpus that is complete is kept even where the note of the request has no room.
    assert {Path(file).name for file in left} in (set(), FILES)
    assert not list((disk.folder / "corpora").glob(".*")), "temporary folders"
    assert pages > 20
    for name in FILES - {"meta.json"}:
        assert (corpus.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_a_change_that_hides_is_read(tmp_path):
    """Same size, and the time of modification set back, as some editors and `cp -p` do."""
    for number in range(30):
        (tmp_path / f"{number}.txt").write_text(f"document {number} " * 30)
    spec = CorpusSpec(source=f"files:{tmp_path}/*.txt", vocab_size=300, val_fraction=0.3)
    before = prepare_corpus(spec, tmp_path / "cache").fingerprint
    file = tmp_path / "7.txt"
    times = file.stat()
    file.write_text(file.read_text().replace("document", "DOCUMENT"))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert prepare_corpus(spec, tmp_path / "cache").fingerprint != before
