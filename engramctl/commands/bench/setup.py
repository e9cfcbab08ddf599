"""What `bench` commands start with: checking values, preparing the text, settling this process as one that trains."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engram.errors import UserError
from engramctl.present.progress import StageProgress
from engramctl.results.defaults import DEFAULT_SWEEP

if TYPE_CHECKING:
    from engram.benchmarks.shapes import Setup
    from engram.corpus.dataset import Corpus
    from engram.corpus.sources import CorpusSpec

_PRECISIONS = ("auto", "bf16", "fp32")


def check_size(name: str) -> None:
    """UserError for an unknown size; called before anything that takes time."""
    from engram.benchmarks.shapes import named_size

    named_size(name)


def check_precision(precision: str) -> None:
    """UserError for an unknown precision."""
    if precision not in _PRECISIONS:
        raise UserError(f"precision '{precision}' is unknown; use {', '.join(_PRECISIONS[:-1])} or {_PRECISIONS[-1]}")


def prepared(spec: "CorpusSpec", cache: Path | None) -> "Corpus":
    """The corpus, prepared if the cache doesn't have it yet."""
    from engram.cache import default_cache
    from engram.corpus.prepare import prepare_corpus

    with StageProgress() as progress:
        return prepare_corpus(spec, cache or default_cache(), progress)


def default_text(overrides: Mapping[str, Any]) -> "CorpusSpec":
    """The text of the default sweep, with the changes that options make."""
    from engramctl.sweep.files import find_sweep, load_sweep

    return load_sweep(find_sweep(DEFAULT_SWEEP), {"corpus": overrides}).corpus


def settled(
    size: str,
    optimizer: str,
    text: Mapping[str, Any],
    device: str,
    precision: Any,
    cache: Path | None,
    step_tokens: int | None = None,
) -> "Setup":
    """Settle this process as one that trains, and prepare what is to be measured."""
    check_precision(precision)
    from engram.benchmarks.shapes import Setup, named_size
    from engram.scaling.recipe import DEFAULT_RECIPE
    from engram.training.machine import resolve_device, settle_process

    shape, where = named_size(size), resolve_device(device)
    DEFAULT_RECIPE.learning_rate(shape, optimizer)  # refuses an unknown optimiser before the text is prepared
    corpus = prepared(default_text(text), cache)
    settle_process(1, where)
    return Setup(shape, optimizer, corpus, where, precision, step_tokens)


def setting(name: str, setup: "Setup", seconds: float, rounds: int, rho: float | None = None) -> dict[str, Any]:
    """The beginning of a bench's JSON."""
    values = {
        "size": setup.size.name,
        "optimizer": setup.optimizer,
        "corpus": setup.corpus.meta["spec"]["source"],
        "vocab_size": setup.corpus.vocab_size,
        "tokens_per_step": setup.tokens_per_step,
        "seconds": seconds,
        "rounds": rounds,
    }
    return {"bench": name, "setting": values | ({} if rho is None else {"rho": rho})}
