"""Sparse language models with experts and lookup memory: build, count, train and fit them.

The names below are the library's face; everything else is in the subpackages. They are imported when they are first used, so that
`import engram` needs neither torch nor pydantic.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engram.config.model import ModelConfig
    from engram.config.training import TrainConfig
    from engram.config.trial import TrialConfig
    from engram.corpus.prepare import prepare_corpus
    from engram.corpus.sources import CorpusSpec
    from engram.errors import UserError
    from engram.fitting.optimum import fit_allocation
    from engram.model.generation import generate
    from engram.scaling.accounting import count_parameters
    from engram.scaling.allocation import allocate, baseline, memory_template
    from engram.scaling.ladder import LADDER
    from engram.scaling.recipe import DEFAULT_RECIPE
    from engram.training.checkpoints.restore import load_final
    from engram.training.trainer import Trainer

__all__ = [
    "DEFAULT_RECIPE",
    "LADDER",
    "CorpusSpec",
    "ModelConfig",
    "TrainConfig",
    "Trainer",
    "TrialConfig",
    "UserError",
    "allocate",
    "baseline",
    "count_parameters",
    "fit_allocation",
    "generate",
    "load_final",
    "memory_template",
    "prepare_corpus",
]

_HOMES = {
    "DEFAULT_RECIPE": "scaling.recipe",
    "LADDER": "scaling.ladder",
    "CorpusSpec": "corpus.sources",
    "ModelConfig": "config.model",
    "TrainConfig": "config.training",
    "Trainer": "training.trainer",
    "TrialConfig": "config.trial",
    "UserError": "errors",
    "allocate": "scaling.allocation",
    "baseline": "scaling.allocation",
    "count_parameters": "scaling.accounting",
    "fit_allocation": "fitting.optimum",
    "generate": "model.generation",
    "load_final": "training.checkpoints.restore",
    "memory_template": "scaling.allocation",
    "prepare_corpus": "corpus.prepare",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'engram' has no attribute {name!r}")
    value = getattr(import_module(f"engram.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
