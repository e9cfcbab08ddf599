"""What each hash head contributes on its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from engram.analysis.capture import hooked
from engram.analysis.intervals import REPLICATES, DocumentBootstrap, Estimates
from engram.analysis.ngram_counts import checked_lookup
from engram.analysis.split import split_losses, validation_split
from engram.corpus.dataset import Corpus
from engram.corpus.spool import Progress
from engram.memory.tables import EmbeddingTables
from engram.model import Transformer
from engram.training.checkpoints.restore import Restored

Head = tuple[int, int, int]
"""Number of the set of tables, order, number of the head within its order."""


@dataclass(frozen=True, eq=False)
class HeadLosses:
    """Validation loss, nats per token, with the rows of one head only; all others are read as zero."""

    heads: list[Head]
    all: Estimates
    """With all heads, []"""
    none: Estimates
    """With none: all rows zero, []"""
    alone: Estimates
    """[heads]"""
    share: Estimates
    """(none - alone) / (none - all), [heads]: the share of the effect of all rows that one head has by itself. Heads can stand in for each
    other, so the shares do not add up to 1; below zero, a head alone is worse than none."""


@contextmanager
def only_heads(model: Transformer, heads: frozenset[Head]) -> Iterator[Transformer]:
    """The model with the rows of all other heads read as zero, for the length of a block. UserError if it has no memory."""
    lookup = checked_lookup(model)
    numbers = {table: number for number, table in enumerate(lookup.tables)}

    def keep(module: nn.Module, inputs: tuple[Any, ...], vectors: Tensor) -> Tensor:
        assert isinstance(module, EmbeddingTables)
        rows = vectors.unflatten(-1, (-1, module.weight.shape[1]))  # [..., H, r]
        kept = [(numbers[module], order, head) in heads for order, head in _columns(model)]
        return (rows * rows.new_tensor(kept).unsqueeze(-1)).flatten(-2)

    with hooked(lookup.tables, keep):
        yield model


def head_losses(
    restored: Restored,
    corpus: Corpus,
    max_tokens: int | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
    progress: Progress | None = None,
) -> HeadLosses:
    """Validation loss with each head's rows alone, with all rows and with none.

    As in `suppression.suppressed`, the model was never trained like this: the losses say what the trained model makes of one head. The
    validation split is read once per head and twice more.

    Args:
        restored: a model with memory, left in evaluation mode.
        corpus: the one it was trained on.
        max_tokens: fewer validation tokens than in training.
        replicates: of the bootstrap over documents.
        seed: of the bootstrap.
        progress: told of every pass over the validation split.

    Raises UserError when the model has no memory or the corpus is another one.
    """
    lookup = checked_lookup(restored.model)
    split = validation_split(restored, corpus, max_tokens)
    heads = [(number, order, head) for number in range(len(lookup.tables)) for order, head in _columns(restored.model)]
    report = progress or (lambda stage, done, total: None)
    report("losses of heads", 0, len(heads) + 2)
    losses = [split_losses(restored, split)]
    for kept in (frozenset[Head](), *(frozenset([head]) for head in heads)):
        report("losses of heads", len(losses), len(heads) + 2)
        with only_heads(restored.model, kept):
            losses.append(split_losses(restored, split))
    report("losses of heads", len(losses), len(heads) + 2)
    means = DocumentBootstrap(split.target_document.ravel(), replicates, seed).means(np.stack([one.ravel() for one in losses]))
    return HeadLosses(
        heads=heads,
        all=Estimates.of(means.mean[0], means.replicates[:, 0]),
        none=Estimates.of(means.mean[1], means.replicates[:, 1]),
        alone=Estimates.of(means.mean[2:], means.replicates[:, 2:]),
        share=Estimates.of(_share(means.mean), _share(means.replicates)),
    )


def _share(losses: np.ndarray) -> np.ndarray:
    """[..., 2 + heads] -> [..., heads]"""
    every, none, alone = losses[..., :1], losses[..., 1:2], losses[..., 2:]
    with np.errstate(invalid="ignore", divide="ignore"):
        share: np.ndarray = (none - alone) / (none - every)
    return share


def _columns(model: Transformer) -> list[tuple[int, int]]:
    """Order and head of the H rows that a token reads, in their order."""
    memory = checked_lookup(model).memory
    return [(order, head) for order in range(2, memory.max_ngram + 1) for head in range(memory.n_heads)]
