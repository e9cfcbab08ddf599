"""Small corpora of made-up text files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engram.corpus.dataset import Corpus
from engram.corpus.prepare import prepare_corpus
from engram.corpus.sources import CorpusSpec


def _write_texts(folder: Path, n: int = 60) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    words = "alpha beta Gamma delta epsilon Zeta eta theta".split()  # noqa: SIM905
    generator = np.random.default_rng(0)
    for i in range(n):
        text = " ".join(generator.choice(words, size=40))
        (folder / f"{i:04d}.txt").write_text(f"document {i}\n{text}\n", newline="")
    return folder


@pytest.fixture(scope="session")
def write_texts() -> Callable[..., Path]:
    """write_texts(folder, n) writes n different documents as files."""
    return _write_texts


@pytest.fixture(scope="session")
def texts(tmp_path_factory) -> Path:
    return _write_texts(tmp_path_factory.mktemp("texts") / "all")


@pytest.fixture(scope="session")
def spec(texts) -> CorpusSpec:
    return CorpusSpec(source=f"files:{texts}/*.txt", vocab_size=300, val_fraction=0.3)


@pytest.fixture(scope="session")
def corpus(spec, tmp_path_factory) -> Corpus:
    return prepare_corpus(spec, tmp_path_factory.mktemp("cache"))
