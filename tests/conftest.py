import os
import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from engramctl.commands.process import one_blas_thread

# Before anything loads NumPy: fits beside busy cores would take fifty times as long.
one_blas_thread()
# Where there is no GPU, its kernels are tested in Triton's interpreter, which has to be asked for before Triton is imported.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
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


class SmallDisk:
    """A file system of its own, in memory."""

    def __init__(self, folder: Path, size: str) -> None:
        self.folder, self._filler = folder, folder / "filler"
        folder.mkdir(parents=True)
        _mount("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))

    def remount(self, option: str) -> None:
        """Give it another size (`size=100k`), or let nobody write to it (`ro`)."""
        _mount("mount", "-o", f"remount,{option}", str(self.folder))

    def fill(self, leave: int = 0) -> None:
        """Write a file until no more than `leave` bytes, in whole pages, are free."""
        with self._filler.open("ab", buffering=0) as file, suppress(OSError):
            while (free := os.statvfs(self.folder).f_bavail * os.statvfs(self.folder).f_bsize) > leave:
                file.write(bytes(max(4096, (free - leave) // 2)))

    def make_room(self) -> None:
        """Remove what `fill` has written."""
        self._filler.unlink()

    def files(self) -> list[str]:
        """What is there, but for locks and folders."""
        found = (path for path in self.folder.rglob("*") if path.is_file() and path != self._filler)
        return sorted(path.relative_to(self.folder).as_posix() for path in found if not path.name.endswith(".lock"))


def _mount(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Callable[[str], SmallDisk]]:
    """Makes a disk of a size such as `100k`, which can really be full; skips the test where nobody may mount one."""
    made = []

    def make(size: str) -> SmallDisk:
        try:
            made.append(SmallDisk(tmp_path / f"disk{len(made)}", size))
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("no disk can be mounted here: that takes root, and a container that allows it")
        return made[-1]

    yield make
    for disk in made:
        _mount("umount", "-l", str(disk.folder))  # lazily: a process of the test may still have a file open


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
