import os
import random
from pathlib import Path

import pytest

from engramctl.commands.process import one_blas_thread

# Before anything loads NumPy: fits beside busy cores would take fifty times as long.
one_blas_thread()
# Tables as wide as in a file, whatever terminal the tests are started from.
os.environ.pop("COLUMNS", None)

WORDS = (Path(__file__).parent / "data" / "words.txt").read_text().split()


def write_documents(folder: Path, count: int, words: int = 300, seed: int = 0) -> Path:
    """Distinct text files of a small Markov-like language that a model can learn something of."""
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        index, text = rng.randrange(len(WORDS)), []
        for _ in range(words):
            index = (index * 3 + rng.choice((1, 2, 7))) % len(WORDS)
            text.append(WORDS[index])
        (folder / f"{number:04d}.txt").write_text(" ".join(text))
    return folder


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes are not in a test's name: gzip writes the time of day into them, and every test process has to find the same names."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory) -> Path:
    return write_documents(tmp_path_factory.mktemp("text"), 120)


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def tiny_corpus(text_folder, cache):
    from engram.corpus.prepare import prepare_corpus
    from engram.corpus.sources import CorpusSpec

    return prepare_corpus(CorpusSpec(source=f"files:{text_folder}/*.txt", vocab_size=400, val_fraction=0.1), cache)


@pytest.fixture(scope="module")
def one_thread():
    """Training as in a worker: on one thread, so that losses are the same to the bit."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
