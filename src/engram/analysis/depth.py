"""Effective depth of two models: does memory let early layers do what takes experts more of them? (paper, 6.1, Figure 4)"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engram.analysis.cka import MINIBATCH, document_minibatches, minibatch_cka, soft_alignment
from engram.analysis.intervals import REPLICATES, DocumentBootstrap, Estimates
from engram.analysis.logit_lens import divergence_by_layer, states_at
from engram.analysis.spans import SpannedText, probes
from engram.analysis.windows import reading_windows
from engram.errors import UserError
from engram.training.checkpoints.restore import Restored


@dataclass(frozen=True, eq=False)
class Depth:
    """Two models, usually a pure MoE (A) and one with memory (B), on the final tokens of the same spans."""

    divergence_a: Estimates
    """LogitLens of A: KL divergence of each layer's prediction from the final one, nats, [L_a]."""
    divergence_b: Estimates
    """The same of B, [L_b]."""
    similarity: Estimates
    """CKA of every layer of A with every layer of B, [L_a, L_b]."""
    alignment: Estimates
    """Soft alignment index of every layer of B, in layers of A from 0, [L_b]: the dashed line over the heat map."""
    n_tokens: int
    n_documents: int
    n_minibatches: int
    """With one, similarity and alignment have no interval."""


def compare_depth(
    a: Restored, b: Restored, texts: Sequence[SpannedText], minibatch: int = MINIBATCH, replicates: int = REPLICATES, seed: int = 0
) -> Depth:
    """LogitLens of both models and CKA between their layers, on the final tokens of the spans.

    With M branches, a layer's state is the branches merged as after the last layer (`capture.layer_states`). A token is read after at least
    half a training sequence of its document, or all there is; both models read the same windows.

    Args:
        a: rows of the similarity.
        b: columns, with the same tokenizer.
        texts: documents with spans (`spans.read_spans`, `names.validation_names`).
        minibatch: tokens per minibatch of CKA, at least.
        replicates: of the bootstrap over documents; for CKA, over minibatches of whole documents.
        seed: of the minibatches and the bootstrap.

    Raises UserError when the tokenizers differ, or when there are fewer than four tokens.
    """
    if a.trial.tokenizer_fingerprint != b.trial.tokenizer_fingerprint:
        prints = f"{a.trial.tokenizer_fingerprint[:12]} and {b.trial.tokenizer_fingerprint[:12]}"
        raise UserError(f"the checkpoints have different tokenizers ({prints}); depth compares models of one tokenizer")
    probed = probes(texts, a.tokenizer)
    batches = document_minibatches(probed.document, minibatch, seed)
    length = min(a.trial.train.seq_len, b.trial.train.seq_len)
    windows = reading_windows(probed.documents, probed.document, probed.position, length)
    bootstrap = DocumentBootstrap(probed.document, replicates, seed)
    states_a, states_b = states_at(a.model, windows), states_at(b.model, windows)  # [L, N, d]
    cka = minibatch_cka(states_a.numpy(), states_b.numpy(), batches, replicates, seed)
    shape = (len(states_a), len(states_b))
    similarity, drawn = cka.mean.reshape(shape), cka.replicates.reshape(-1, *shape)
    return Depth(
        divergence_a=bootstrap.means(divergence_by_layer(a.model, states_a)).estimates(),
        divergence_b=bootstrap.means(divergence_by_layer(b.model, states_b)).estimates(),
        similarity=Estimates.of(similarity, drawn),
        alignment=Estimates.of(soft_alignment(similarity), soft_alignment(drawn)),
        n_tokens=len(probed.document),
        n_documents=len(np.unique(probed.document)),
        n_minibatches=len(batches),
    )
