"""Where an extension of a trial goes, and where the corpus of that trial is."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engram.config import TrialConfig
from engram.corpus.dataset import Corpus
from engram.errors import UserError
from engram.training.checkpoint import FINAL
from engramctl.store import Store

RECORD = "extension.parquet"
"""The row of an extension outside of a results folder, in the folder of its checkpoint."""


@dataclass(frozen=True)
class Place:
    """Where the results of an extension are kept."""

    checkpoint: Path
    """Folder that has, or will have, `final` with the extended model."""
    record: Path
    """Parquet file with its row: the extension is done when it exists."""
    store: Store | None
    """The sweep that they belong to."""


def find_place(source: Path, trial: TrialConfig, out: Path | None) -> Place:
    """Where `trial` goes.

    Args:
        source: the final checkpoint that it starts from.
        trial: the extension.
        out: folder that gets the checkpoint as a folder of its own; None: beside the source, in its sweep where it has one.
    """
    beside = source.absolute()
    if beside.name == FINAL:
        beside = beside.parent
    store = sweep_of(source)
    if out is None and store is not None:
        return Place(store.checkpoints / trial.id, store.extensions / f"{trial.id}.parquet", store)
    folder = (beside.parent if out is None else out.absolute()) / trial.id
    return Place(folder, folder / RECORD, None)


def sweep_of(source: Path) -> Store | None:
    """The sweep that a final checkpoint lies in, `SWEEP/checkpoints/TRIAL/final`; None where it lies elsewhere."""
    parents = source.absolute().parents
    if source.name != FINAL or len(parents) < 4 or parents[1].name != "checkpoints" or not (parents[2] / "sweep.json").is_file():
        return None
    return Store(parents[3], parents[2].name)


def find_corpus(trial: TrialConfig, cache: Path, store: Store | None) -> Corpus:
    """The prepared corpus that a trial names by its fingerprints; UserError saying how to get it when the cache has it no longer."""
    for folder in sorted((cache / "corpora").glob(f"{trial.corpus_fingerprint[:16]}-*")):
        try:
            corpus = Corpus.open(folder)
        except UserError:
            continue
        if (corpus.fingerprint, corpus.tokenizer_fingerprint) == (trial.corpus_fingerprint, trial.tokenizer_fingerprint):
            return corpus
    spec = ((store.read_manifest() or {}).get("sweep", {}) if store else {}).get("corpus")
    again = f"`{_corpus_command(spec)}` prepares it again" if spec else "`engramctl corpus` with the options of its sweep prepares it again"
    raise UserError(
        f"the corpus of trial {trial.id} (fingerprint {trial.corpus_fingerprint[:12]}) is not in the cache {cache}; {again} if its text"
        f" has not changed, and --cache names another cache"
    )


def _corpus_command(spec: dict[str, Any]) -> str:
    options = {
        "--corpus": spec["source"],
        "--corpus-bytes": spec.get("max_bytes"),
        "--text-column": spec.get("text_column"),
        "--tokenizer": spec.get("tokenizer"),
        "--vocab-size": None if spec.get("tokenizer") else spec.get("vocab_size"),
    }
    return shlex.join(["engramctl", "corpus", *(str(part) for pair in options.items() if pair[1] is not None for part in pair)])
