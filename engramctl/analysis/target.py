"""Which model is looked at: a checkpoint's folder, or a trial of a sweep."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engram.errors import UserError
from engramctl.analysis.store import AnalysisStore
from engramctl.removal import known_trials
from engramctl.store import Store, list_sweeps
from engramctl.trial_names import find_trial

if TYPE_CHECKING:
    import torch

    from engram.config import TrialConfig
    from engram.corpus.dataset import Corpus
    from engram.training.restore import Restored


@dataclass(frozen=True, eq=False)
class Target:
    """A trained model and where findings about it are kept."""

    restored: "Restored"
    folder: Path
    """Of the sweep that it is a trial of, else of its checkpoint."""
    sweep: str
    """Empty for a checkpoint outside of a sweep."""

    @property
    def trial(self) -> "TrialConfig":
        return self.restored.trial

    @property
    def store(self) -> AnalysisStore:
        return AnalysisStore(self.folder)

    @property
    def model(self) -> str:
        """The trial for a person."""
        return model_name(self.trial)


def model_name(trial: "TrialConfig") -> str:
    """1m, rho = 0.40, seed 0."""
    from engramctl.summary import format_rho

    return ", ".join([trial.size, *([trial.variant] if trial.variant else []), f"rho = {format_rho(trial.rho)}", f"seed {trial.seed}"])


def load_target(typed: str, results: Path, device: "torch.device") -> Target:
    """Load the model of a checkpoint's folder or of SWEEP/TRIAL, where TRIAL is an id or its beginning.

    Raises UserError when there is no such model.
    """
    from engram.training.checkpoint import FINAL
    from engram.training.restore import load_final

    folder = Path(typed)
    restored = load_final(folder if folder.exists() else _of_sweep(typed, results), device)
    final = restored.folder.absolute()
    own = final.parent if final.name == FINAL else final
    sweep = own.parent.parent
    rows = [sweep / kind / f"{restored.trial.id}.parquet" for kind in ("trials", "extensions")]
    of_sweep = own.parent.name == "checkpoints" and any(row.is_file() for row in rows)
    return Target(restored, sweep if of_sweep else own, sweep.name if of_sweep else "")


def _of_sweep(typed: str, results: Path) -> Path:
    sweep, _, trial = typed.partition("/")
    if not trial or "/" in trial or (results.is_dir() and sweep not in list_sweeps(results)):
        raise UserError(f"'{typed}' is neither the folder of a checkpoint nor SWEEP/TRIAL, a trial of a sweep in {results}")
    store = Store.open_existing(results, sweep)
    trial_id = find_trial(trial, known_trials(store), sweep)
    if not (store.checkpoints / trial_id).is_dir():
        raise UserError(f"trial {trial_id} of sweep {sweep} has no checkpoint in {store.checkpoints}: it stays where the trial was trained")
    return store.checkpoints / trial_id


def corpus_of(restored: "Restored", cache: Path | None) -> "Corpus":
    """The corpus of a model's training; UserError when it is not in the cache."""
    from engram.cache import default_cache
    from engramctl.extension_places import find_corpus, sweep_of

    return find_corpus(restored.trial, cache or default_cache(), sweep_of(restored.folder))


def require_memory(target: Target, layers: Sequence[int] | None) -> None:
    """UserError when the model has no memory, or none in a wanted layer: said before any text is looked for."""
    from engram.analysis.capture import memory_sites

    memory_sites(target.restored.model, layers)
