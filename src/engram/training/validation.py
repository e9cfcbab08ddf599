"""Validation loss with its uncertainty, loss by position, and a copying loss."""

import itertools
import math
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch

from engram.config.model import ModelConfig
from engram.config.training import TrainConfig
from engram.corpus.dataset import Corpus, validation_windows
from engram.model import Transformer
from engram.processes import ALONE, Processes
from engram.scaling.accounting import training_memory_bytes
from engram.training.replicas import share_of_windows

_COPY_SEED = 20_260_112
_COPY_SEQUENCES = 32


PASS_TOKENS = 8192
"""Tokens that go through the model at once on a CPU. Larger batches take several passes, so that memory does not grow with the batch."""
_MOST_PASS_TOKENS = 32_768
"""On a GPU, where a pass is as large as its memory allows: more tokens than this keep it no busier."""


def pass_tokens(model: ModelConfig, device: torch.device) -> int:
    """Tokens that go through the model at once on a device: a power of two.

    On a GPU the activations take up to half of its memory; other trials beside this one are not asked for, so that losses are the same
    with them.
    """
    if device.type != "cuda":
        return PASS_TOKENS
    memory = torch.cuda.get_device_properties(device).total_memory
    of_a_token = training_memory_bytes(model, 1) - training_memory_bytes(model, 0)
    fitting = max(1, memory // 2 // of_a_token)
    return max(PASS_TOKENS, min(_MOST_PASS_TOKENS, 1 << (fitting.bit_length() - 1)))


def sequences_at_once(train: TrainConfig, tokens: int | None = None) -> int:
    """Sequences per training pass: the whole batch, or as many as fit into `tokens` (`pass_tokens`; None: those of a CPU), at least one."""
    return min(train.batch_size, windows_at_once(train.seq_len, tokens))


def windows_at_once(length: int, tokens: int | None = None) -> int:
    """Sequences of a length that go through the model at once where nothing is trained, at least one."""
    return max(1, (PASS_TOKENS if tokens is None else tokens) // length)


@dataclass(frozen=True)
class Validation:
    """Losses in nats, on the same documents for every trial."""

    loss: float
    """Mean over tokens."""
    loss_se: float
    """Standard error of `loss`, with tokens clustered by document."""
    bpb: float
    """Bits per byte of the documents' text."""
    loss_by_position: list[float]
    """Means over the positions [0, 1), [1, 2), [2, 4), [4, 8), ... of a sequence."""
    documents: dict[str, np.ndarray]
    """By document: `document`, `n_tokens`, `n_bytes`, `loss_sum` and `overlap`, None where the corpus does not know it."""


class Validator:
    """The validation tokens of a trial, cut into sequences once. Its processes share the work and all get the result.

    Args:
        corpus: whose validation text.
        train: length of the sequences and number of the tokens.
        processes: of the trial.
        at_once: sequences that go through the model at once; None: as in training on a CPU.
    """

    def __init__(self, corpus: Corpus, train: TrainConfig, processes: Processes = ALONE, at_once: int | None = None) -> None:
        self.corpus, self.train, self.processes = corpus, train, processes
        self.at_once = sequences_at_once(train) if at_once is None else at_once
        self.windows, self.document = validation_windows(corpus, train.seq_len, train.val_tokens)  # [n, T + 1], [n, T]

    def validate(self, model: Transformer, autocast: AbstractContextManager[object]) -> Validation:
        """Validate `model`, whose mode is left as it was."""
        losses = self._token_losses(model, autocast).astype(np.float64)  # [n, T]
        flat_loss, flat_document = losses.ravel(), self.document.ravel()
        ids, place = np.unique(flat_document, return_inverse=True)
        loss_sum = np.bincount(place, weights=flat_loss)
        n_tokens = np.bincount(place)
        # A document cut off by the end of the last window counts only for the share of its bytes that its tokens stand for.
        starts = self.corpus.val_doc_starts
        share = n_tokens / (starts[ids + 1] - starts[ids])
        n_bytes = np.rint(self.corpus.val_doc_bytes[ids] * share).astype(np.int64)
        overlap = self.corpus.val_doc_overlap
        mean = float(flat_loss.mean())
        return Validation(
            loss=mean,
            loss_se=_clustered_standard_error(loss_sum, n_tokens),
            bpb=float(loss_sum.sum() / n_bytes.sum() / math.log(2)),
            loss_by_position=[float(losses[:, low:high].mean()) for low, high in position_buckets(losses.shape[1])],
            documents={
                "document": self.corpus.val_doc_ids[ids],
                "n_tokens": n_tokens,
                "n_bytes": n_bytes,
                "loss_sum": loss_sum,
                "overlap": np.full(len(ids), None) if overlap is None else overlap[ids],
            },
        )

    def copy_loss(self, model: Transformer, autocast: AbstractContextManager[object]) -> float:
        """Mean loss on the second half of random sequences that repeat themselves; near 0 once the model copies."""
        half = self.train.seq_len // 2
        generator = np.random.default_rng(_COPY_SEED)
        once = generator.integers(0, self.corpus.vocab_size, size=(_COPY_SEQUENCES, half))
        windows = np.concatenate([once, once], axis=1)  # [n, 2 half]
        losses = token_losses(model, windows, self.at_once, autocast, self.processes)  # [n, 2 half - 1]
        return float(losses[:, half:].mean())  # the first repeated token, at half - 1, can't be predicted

    def _token_losses(self, model: Transformer, autocast: AbstractContextManager[object]) -> np.ndarray:
        return token_losses(model, self.windows, self.at_once, autocast, self.processes)


def token_losses(
    model: Transformer, windows: np.ndarray, batch_size: int, autocast: AbstractContextManager[object], processes: Processes = ALONE
) -> np.ndarray:
    """Loss of every target in nats, fp32 [n, T], for windows int64 [n, T + 1]; the model's mode is left as it was."""
    mine = share_of_windows(windows, processes)
    device, training = next(model.parameters()).device, model.training
    model.eval()
    parts = []
    with torch.no_grad(), autocast:
        for start in range(0, len(mine), batch_size):
            batch = torch.from_numpy(mine[start : start + batch_size]).to(device)
            parts.append(model.token_losses(batch[:, :-1], batch[:, 1:]).float())
    model.train(training)
    return processes.gather_everywhere(torch.cat(parts).cpu()).cpu().numpy()[: len(windows)]


def _clustered_standard_error(loss_sum: np.ndarray, n_tokens: np.ndarray) -> float:
    """Standard error of sum(loss) / sum(tokens) with documents as clusters (linearised ratio); 0 for one document."""
    n = len(loss_sum)
    if n < 2:
        return 0.0
    residual = loss_sum - n_tokens * (loss_sum.sum() / n_tokens.sum())
    return float(math.sqrt(n / (n - 1) * float((residual**2).sum())) / n_tokens.sum())


def position_buckets(length: int) -> list[tuple[int, int]]:
    """[0, 1), [1, 2), [2, 4), [4, 8), ... up to `length`."""
    edges = [0, 1]
    while edges[-1] < length:
        edges.append(min(2 * edges[-1], length))
    return list(itertools.pairwise(edges))
