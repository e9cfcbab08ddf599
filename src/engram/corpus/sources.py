"""What text a corpus is made of, and how it is read."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field, field_validator

from engram.corpus.document import Document
from engram.corpus.file_text import file_documents, matching_files
from engram.corpus.hub_text import hub_documents, parse_hub_source
from engram.corpus.python_text import python_documents, python_files
from engram.errors import UserError
from engram.frozen import FrozenConfig

ALLOWED = "python, files:GLOB or hf:NAME[/CONFIG][:SPLIT][#COLUMN]"


class CorpusSpec(FrozenConfig):
    """A corpus as a user asks for it. The fingerprint of the prepared corpus identifies what it turned out to be."""

    source: str
    """`python` (the standard library and the installed packages), `files:GLOB` or `hf:NAME[/CONFIG][:SPLIT][#COLUMN]`."""
    max_bytes: int = Field(default=64_000_000, ge=1)
    """UTF-8 bytes of documents to keep at most, training and validation together."""
    text_column: str | None = None
    """Column with the text in JSON lines, Parquet and `hf:` data; None: `text`."""
    tokenizer: str | None = None
    """Path of a tokenizer.json or `hf:NAME`; None: a byte-level BPE is trained on the corpus."""
    vocab_size: int = 8192
    """Vocabulary of that trained BPE. No effect when `tokenizer` is given."""
    val_fraction: float = Field(default=0.04, gt=0, lt=1)
    """Share of the text that is to be validation. What is kept is less where validation documents have too much in common with training."""

    @field_validator("source")
    @classmethod
    def _known(cls, source: str) -> str:
        _split(source)
        return source


def read_documents(spec: CorpusSpec, skipped: Counter[str] | None = None) -> Iterator[Document]:
    """Whole documents of the source in a fixed order, including duplicates and empty ones, and not limited by `max_bytes`.

    Files that are left out because they can't be read, which only `python` allows, are counted in `skipped`, by reason.
    Raises UserError, when the first document is asked for or later, if the source can't be read.
    """
    kind, argument = _split(spec.source)
    if kind == "python":
        yield from python_documents(Counter() if skipped is None else skipped)
    elif kind == "files":
        for path in matching_files(argument):
            yield from map(Document, file_documents(path, spec.text_column or "text"))
    else:
        yield from map(Document, hub_documents(spec.source, spec.text_column))


def source_listing(spec: CorpusSpec) -> list[tuple[str, int, int, int]]:
    """Path, size in bytes, and times in ns of modification and of change, of every local file of the source; empty for data on the hub.

    As long as the listing is the same, the text is taken to be the same: nobody can set the time of change back.
    Raises UserError like `read_documents`.
    """
    kind, argument = _split(spec.source)
    if kind == "python":
        files = list(python_files())
    elif kind == "files":
        files = matching_files(argument)
    else:
        folder = parse_hub_source(spec.source).folder
        files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder else []
    return [_entry(path) for path in files]


def _entry(path: Path) -> tuple[str, int, int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from error
    return str(path.absolute()), status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _split(source: str) -> tuple[str, str]:
    kind, colon, argument = source.partition(":")
    if source == "python" or (kind in ("files", "hf") and colon and argument):
        return kind, argument
    raise UserError(f"corpus {source!r} is unknown; allowed are {ALLOWED}")
