"""What the gate lets in, token by token and over validation text (paper, 6.5, Figure 7)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engram.analysis.capture import memory_sites, site_inputs
from engram.analysis.groups import Grouping, by_longest_ngram, by_ngram_frequency, by_place_in_word, everything, token_texts
from engram.analysis.intervals import REPLICATES, DocumentBootstrap, Estimates
from engram.analysis.ngram_counts import count_ngrams
from engram.analysis.phrases import Phrase, top_phrases
from engram.analysis.split import validation_split
from engram.analysis.windows import reading_windows
from engram.corpus.dataset import Corpus
from engram.errors import UserError
from engram.memory.designs.base import Memory
from engram.memory.site import MemorySite
from engram.model import Transformer
from engram.tokenizer.plain import plain_ids
from engram.training.checkpoints.restore import Restored
from engram.training.validation import PASS_TOKENS


@dataclass(frozen=True, eq=False)
class TextGates:
    """The gates of one text."""

    tokens: list[str]
    """What each of the T tokens stands for."""
    layers: tuple[int, ...]
    gates: np.ndarray
    """By layer, token and branch, float32 [S, T, M]: between 0 and 1; for the design `value` between 0 and 2, one for all branches."""


@dataclass(frozen=True, eq=False)
class GroupedGates:
    """Mean gates in the groups of one grouping."""

    name: str
    labels: tuple[str, ...]
    n_tokens: np.ndarray
    """int64 [G]"""
    gate: Estimates
    """[S, M, G]"""


@dataclass(frozen=True, eq=False)
class ValidationGates:
    """The gates over the validation split."""

    layers: tuple[int, ...]
    groups: list[GroupedGates]
    """All tokens, and tokens by frequency of the N-gram of each order, by the longest N-gram seen in training, and by place in a word."""
    phrases: dict[int, list[Phrase]]
    """By layer, N-grams that occur several times in the validation text, highest mean gate first."""


def text_gates(restored: Restored, text: str, layers: Sequence[int] | None = None) -> TextGates:
    """Gate by token, layer and branch for a text.

    A text longer than a training sequence is read in overlapping windows, so that each token has at least half a sequence before it.

    Args:
        restored: a model with gates, left in evaluation mode.
        text: at least as many tokens as the longest N-gram.
        layers: those of interest; None: all with a memory.

    Raises UserError when the text is shorter, a layer has no memory, or the design has no gate.
    """
    sites = memory_sites(restored.model, layers)
    ids = np.array(plain_ids(restored.tokenizer, [text])[0], dtype=np.int64)
    order = next(iter(sites.values())).memory.max_ngram
    if len(ids) < order:
        raise UserError(f"the text is too short: it has {len(ids)} of at least {order} tokens, the longest N-gram that the memory reads")
    windows = reading_windows([ids], np.zeros(len(ids), dtype=np.int64), np.arange(len(ids)), restored.trial.train.seq_len)
    gates = _gates(restored.model, windows.tokens, sites)  # [S, W, T, M]
    return TextGates(token_texts(restored.tokenizer, ids.tolist()), tuple(sites), gates[:, windows.window, windows.place])


def validation_gates(
    restored: Restored,
    corpus: Corpus,
    layers: Sequence[int] | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> ValidationGates:
    """Mean gates over the validation split, and the phrases that open them most.

    N-grams are counted in the training split. Those that would begin before their window are in no group, because there the memory reads a
    padded one.

    Args:
        restored: a model with gates, left in evaluation mode.
        corpus: the one it was trained on.
        layers: those of interest; None: all with a memory.
        replicates: of the bootstrap over documents.
        seed: of the bootstrap.

    Raises UserError when a layer has no memory, the design has no gate, or the corpus is another one.
    """
    sites = memory_sites(restored.model, layers)
    split = validation_split(restored, corpus)
    gates = _gates(restored.model, split.inputs, sites)  # [S, n, T, M]
    counts = count_ngrams(restored.model, corpus)
    # A gate belongs to the document of its own token: that of the target before it.
    document = np.concatenate([split.target_document[:, :1], split.target_document[:, :-1]], axis=1)
    bootstrap = DocumentBootstrap(document.ravel(), replicates, seed)
    groupings = [
        everything(document.shape),
        *by_ngram_frequency(counts, split.inputs),
        by_longest_ngram(counts, split.inputs),
        by_place_in_word(restored.tokenizer, split.windows),
    ]
    order = counts.lookup.hash.max_ngram
    return ValidationGates(
        layers=tuple(sites),
        groups=[_grouped(grouping, gates, bootstrap) for grouping in groupings],
        phrases={
            layer: top_phrases(restored.tokenizer, split.inputs, of_layer.mean(-1), order)
            for layer, of_layer in zip(sites, gates, strict=True)
        },
    )


@torch.no_grad()
def _gates(model: Transformer, tokens: np.ndarray, sites: dict[int, MemorySite]) -> np.ndarray:
    """Tokens int64 [n, T] -> float32 [S, n, T, M]."""
    model.eval()
    device = model.head_weight.device
    at_once = max(1, PASS_TOKENS // tokens.shape[1])
    parts = []
    for start in range(0, len(tokens), at_once):
        inputs = site_inputs(model, torch.from_numpy(tokens[start : start + at_once]).to(device), sites)
        gates: list[Tensor] = []
        for site, (vectors, stream) in zip(sites.values(), inputs, strict=True):
            gate = site.gates(vectors, stream)
            if gate is None:
                raise UserError(_no_gate(site.memory))
            gates.append(gate)
        parts.append(torch.stack(gates).float().cpu())
    return torch.cat(parts, dim=1).numpy()


def _no_gate(memory: Memory) -> str:
    setting = " with gate none" if getattr(memory, "gate", None) == "none" else ""
    return f"memory design {memory.design}{setting} has no gate; engram (gate plain or signed_sqrt), engram-v4.1 and value have one"


def _grouped(grouping: Grouping, gates: np.ndarray, bootstrap: DocumentBootstrap) -> GroupedGates:
    n_sites, *_, branches = gates.shape
    values = gates.astype(np.float64).transpose(0, 3, 1, 2).reshape(n_sites * branches, -1)  # [S M, n T]
    index, n_groups = grouping.index.ravel(), len(grouping.labels)
    groups = [bootstrap.means(values, index == group) for group in range(n_groups)]
    mean = np.stack([group.mean for group in groups], axis=-1).reshape(n_sites, branches, n_groups)
    drawn = np.stack([group.replicates for group in groups], axis=-1).reshape(-1, n_sites, branches, n_groups)
    return GroupedGates(grouping.name, grouping.labels, np.bincount(index[index >= 0], minlength=n_groups), Estimates.of(mean, drawn))
