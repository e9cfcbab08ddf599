"""Finding the prepared text of a trial in the cache."""

import shlex
from pathlib import Path
from typing import Any

from engram.config.trial import TrialConfig
from engram.corpus.dataset import Corpus
from engram.errors import UserError
from engramctl.results.store import Store


def find_corpus(trial: TrialConfig, cache: Path, sweep: Store | None) -> Corpus:
    """The prepared corpus with the fingerprints that a trial names.

    Raises UserError when the cache no longer has it, quoting the command that prepares it again if the sweep is known.
    """
    for folder in sorted((cache / "corpora").glob(f"{trial.corpus_fingerprint[:16]}-*")):
        try:
            corpus = Corpus.open(folder)
        except UserError:
            continue
        if (corpus.fingerprint, corpus.tokenizer_fingerprint) == (trial.corpus_fingerprint, trial.tokenizer_fingerprint):
            return corpus
    manifest = sweep.read_manifest() if sweep else None
    spec = manifest.sweep.corpus if manifest else {}
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
