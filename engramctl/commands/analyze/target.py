"""The model to analyse: given as a checkpoint's folder, or as a trial of a sweep."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engram.config.trial import TrialConfig
    from engram.corpus.dataset import Corpus
    from engram.training.checkpoints.restore import Restored
    from engramctl.results.analysis_store import AnalysisStore
    from engramctl.results.checkpoints import Home


@dataclass(frozen=True, eq=False)
class Target:
    """A trained model, and where findings about it are kept."""

    restored: "Restored"
    home: "Home"

    @property
    def trial(self) -> "TrialConfig":
        return self.restored.trial

    @property
    def store(self) -> "AnalysisStore":
        from engramctl.results.analysis_store import AnalysisStore

        return AnalysisStore(self.home.folder)

    @property
    def content(self) -> "dict[str, Any]":
        """What the model is, for an identity: its weights, and its config with the fingerprints of text and tokenizer."""
        from engram.training.checkpoints.files import WEIGHTS

        return {"weights": self.restored.folder / WEIGHTS, "trial": self.trial.model_dump(mode="json")}

    def corpus(self, cache: Path | None) -> "Corpus":
        """The text that the model was trained on; UserError when it is not in the cache."""
        from engram.cache import default_cache
        from engramctl.results.corpora import find_corpus

        return find_corpus(self.trial, cache or default_cache(), self.home.sweep)

    def require_memory(self, layers: Sequence[int] | None = None) -> None:
        """UserError when the model has no memory, or none in one of the layers; called before any text is looked for."""
        from engram.analysis.capture import memory_sites

        memory_sites(self.restored.model, layers)


def load_target(typed: str, results: Path, device: str) -> Target:
    """Load the model in a checkpoint's folder, or of SWEEP/TRIAL, where TRIAL is an id or the beginning of one.

    Raises UserError when there is no such model or device.
    """
    from engram.training.checkpoints.restore import load_final
    from engram.training.machine import resolve_device
    from engramctl.results.checkpoints import checkpoint_of, home_of

    folder, where = Path(typed), resolve_device(device)
    restored = load_final(folder if folder.exists() else checkpoint_of(typed, results), where)
    return Target(restored, home_of(restored.folder, restored.trial.id))
