"""The model with its memory switched off: how much of its knowledge is in the memory (paper, 6.3, Figure 6)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from engram.analysis.capture import hooked, memory_sites
from engram.analysis.groups import Grouping, by_seen_ngram, by_token_frequency, everything
from engram.analysis.intervals import REPLICATES, DocumentBootstrap, Estimates
from engram.analysis.ngram_counts import count_ngrams
from engram.analysis.split import split_losses, validation_split
from engram.corpus.dataset import Corpus
from engram.corpus.spool import Progress
from engram.model import Transformer
from engram.training.checkpoints.restore import Restored


@contextmanager
def suppressed(model: Transformer) -> Iterator[Transformer]:
    """The model with the output of every memory site set to zero, for the length of a block; the backbone is unchanged.

    What a site adds to the residual branches, the embedding or the values of attention becomes 0, as if tables and projections were zero.
    This is the paper's protocol: a score is taken with the memory on and off, and the retained share is off / on. Its caveat is that the
    backbone was never trained without the memory, so a drop says what the trained model relies on, not what a model trained without memory
    would reach; this is why the paper compares kinds of tasks with each other.

    Raises UserError when the model has no memory.
    """
    with hooked(memory_sites(model).values(), lambda module, inputs, output: torch.zeros_like(output)):
        yield model


@dataclass(frozen=True, eq=False)
class SuppressedLosses:
    """Validation loss with the memory on and off in the groups of one grouping."""

    name: str
    labels: tuple[str, ...]
    n_tokens: np.ndarray
    """Targets in each group, int64 [G]."""
    on: Estimates
    """Nats per token, [G]."""
    off: Estimates
    """Nats per token, [G]."""
    difference: Estimates
    """off - on, [G], paired by document; above zero, the memory helps."""
    retained: Estimates
    """exp(on - off), [G]: the share of the right token's probability that is left (geometric mean over tokens)."""


def suppressed_losses(
    restored: Restored,
    corpus: Corpus,
    max_tokens: int | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[SuppressedLosses]:
    """Validation loss with the memory on and off (`suppressed`): over all targets, by frequency of the target, and by N-gram.

    The last groups the targets by whether the N-gram of each order that the memory reads to predict them, which ends at the token before,
    occurs in the training split.

    Args:
        restored: a model with memory, left in evaluation mode.
        corpus: the one it was trained on.
        max_tokens: fewer validation tokens than in training.
        replicates: of the bootstrap over documents.
        seed: of the bootstrap.
        progress: told of every step.

    Raises UserError when the model has no memory or the corpus is another one.
    """
    split = validation_split(restored, corpus, max_tokens)
    report = progress or (lambda stage, done, total: None)
    report("counting N-grams", 0, None)
    counts = count_ngrams(restored.model, corpus)
    report("loss with the memory on", 0, None)
    on = split_losses(restored, split)
    report("loss with the memory off", 0, None)
    with suppressed(restored.model):
        off = split_losses(restored, split)
    report("intervals", 0, None)
    bootstrap = DocumentBootstrap(split.target_document.ravel(), replicates, seed)
    groupings = [everything(on.shape), by_token_frequency(counts, split.targets), *by_seen_ngram(counts, split.inputs)]
    return [_grouped(grouping, on, off, bootstrap) for grouping in groupings]


def _grouped(grouping: Grouping, on: np.ndarray, off: np.ndarray, bootstrap: DocumentBootstrap) -> SuppressedLosses:
    values, index = np.stack([on.ravel(), off.ravel(), (off - on).ravel()]), grouping.index.ravel()
    groups = [bootstrap.means(values, index == group) for group in range(len(grouping.labels))]
    means = np.stack([group.mean for group in groups], axis=-1)  # [3, G]
    drawn = np.stack([group.replicates for group in groups], axis=-1)  # [R, 3, G]
    return SuppressedLosses(
        name=grouping.name,
        labels=grouping.labels,
        n_tokens=np.bincount(index[index >= 0], minlength=len(grouping.labels)),
        on=Estimates.of(means[0], drawn[:, 0]),
        off=Estimates.of(means[1], drawn[:, 1]),
        difference=Estimates.of(means[2], drawn[:, 2]),
        retained=Estimates.of(np.exp(-means[2]), np.exp(-drawn[:, 2])),
    )
